"""Models and their versions inside a transaction."""

import json
from collections.abc import Collection, Sequence
from dataclasses import fields
from typing import Any, Literal

from sqlalchemy import delete, func, select
from sqlalchemy.orm import Session, load_only

from models_store.database.dialects import dialect_of, insert_into
from models_store.database.ids import is_name
from models_store.database.schema import (
    AliasChangeRow,
    JobRow,
    ModelAliasRow,
    ModelRow,
    ModelVersionRow,
    MonitoredRow,
    ReviewRow,
)
from models_store.errors import ConflictError, NotFoundError
from models_store.job_states import UNFINISHED_STATES, JobKind
from models_store.records import Latest, Model, NewVersion, Version, VersionSummary
from models_store.rows.idempotency import forget_resources

LargeField = Literal["columns", "context_columns", "flow", "preprocessing"]
"""Field of a version that its summary lacks unless it is asked for."""

_PAGE_BYTES = 256 * 1024  # of large fields that a page of summaries reads

_LATEST = load_only(
    ModelVersionRow.model_id,
    *(getattr(ModelVersionRow, field.name) for field in fields(Latest)),
    raiseload=True,
)
_LARGEST = 2**31 - 1
_NAMED = 10  # versions in a refusal


def add_version(
    session: Session,
    new: NewVersion,
    *,
    project: str,
    name: str,
    job_id: str | None,
) -> Version:
    """Register the next version of a model, and the model itself with its first one.

    Args:
        job_id: Id of the job that made it; None: it was imported.
    """
    # The row stays locked, so versions count up in the order of their commits.
    more = ModelRow.versions_made + 1
    first = insert_into(dialect_of(session), ModelRow).values(
        project=project, name=name, versions_made=1, latest_version=1, tags={}
    )
    counted = first.on_conflict_do_update(
        index_elements=[ModelRow.project, ModelRow.name],
        set_={"versions_made": more, "latest_version": more},
    )
    made = session.execute(counted.returning(ModelRow.id, ModelRow.versions_made))
    model_id, number = made.one()
    row = ModelVersionRow(
        project=project, model_id=model_id, version=number, job_id=job_id, **vars(new)
    )
    session.add(row)
    session.flush()
    return _to_version(row, name=name, aliases=[])


def version_of_weights(session: Session, model: ModelRow, key: str) -> Version:
    """Return the version of a model that has the weights under a key.

    Raises:
        NotFoundError: It was deleted meanwhile.
    """
    query = select(ModelVersionRow).where(
        ModelVersionRow.model_id == model.id, ModelVersionRow.checkpoint_key == key
    )
    row = session.scalar(query)
    if row is None:
        raise NotFoundError("version", model.name)
    return to_versions(session, model, [row])[0]


def find_model(session: Session, project: str, name: str, *, lock: bool = False) -> ModelRow:
    """Return the row of a model that has a version.

    Raises:
        NotFoundError: the project has no such model.
    """
    row = None
    if is_name(name):
        query = select(ModelRow).where(
            ModelRow.project == project, ModelRow.name == name, ModelRow.latest_version > 0
        )
        row = session.scalar(query.with_for_update() if lock else query)
    if row is None:
        raise NotFoundError("model", name, hint=_first_training(session, project, name))
    return row


def _first_training(session: Session, project: str, name: str) -> str:
    """Return a sentence about the job that trains the first version of a model; empty without one."""
    if not is_name(name):
        return ""
    query = select(JobRow.id, JobRow.state).where(
        JobRow.project == project,
        JobRow.model_name == name,
        JobRow.kind.in_([kind for kind in JobKind if kind.makes_version]),
        JobRow.state.in_(UNFINISHED_STATES),
    )
    job = session.execute(query.order_by(JobRow.position).limit(1)).first()
    return "" if job is None else f"Its first training, {job.id}, is {job.state}."


def find_version(session: Session, model: ModelRow, number: int) -> ModelVersionRow:
    """Return a version's row.

    Raises:
        NotFoundError: the model has no such version.
    """
    row = None
    if 1 <= number <= _LARGEST:
        mine = ModelVersionRow.model_id == model.id, ModelVersionRow.version == number
        row = session.scalar(select(ModelVersionRow).where(*mine))
    if row is None:
        raise NotFoundError("version", f"{model.name}:{number}", hint=_versions_of(session, model))
    return row


def _versions_of(session: Session, model: ModelRow) -> str:
    query = select(ModelVersionRow.version).where(ModelVersionRow.model_id == model.id)
    newest = query.order_by(ModelVersionRow.version.desc()).limit(_NAMED + 1)
    numbers = session.scalars(newest).all()
    more = " and older ones" if len(numbers) > _NAMED else ""
    return f"There is {', '.join(f'{model.name}:{n}' for n in numbers[:_NAMED])}{more}."


def pin_version(session: Session, project: str, name: str, number: int) -> None:
    """Keep a version from being deleted until this transaction, which adds a user, has ended.

    Raises:
        NotFoundError: the project has no such version.
    """
    query = (
        select(ModelVersionRow.id)
        .join(ModelRow, ModelRow.id == ModelVersionRow.model_id)
        .where(ModelRow.project == project, ModelRow.name == name)
        .where(ModelVersionRow.version == number)
    )
    if session.scalar(query.with_for_update(read=True, key_share=True, of=ModelVersionRow)) is None:
        raise NotFoundError("version", f"{name}:{number}")


def delete_versions(session: Session, model: ModelRow, number: int | None = None) -> list[str]:
    """Delete versions of a locked model that nothing needs, and return the keys of their weights.

    Args:
        number: Number of the only one to delete; None: delete all.

    Raises:
        NotFoundError: the model has no such version.
        ConflictError: `version-in-use`: an alias points at one, or a job that has not ended uses one.
    """
    chosen = [ModelVersionRow.model_id == model.id]
    if number is not None:
        chosen.append(ModelVersionRow.version == min(number, _LARGEST))
    # A job that is being submitted holds the row too: one of the two waits for the other.
    query = select(ModelVersionRow).where(*chosen).order_by(ModelVersionRow.version)
    rows = session.scalars(query.with_for_update()).all()
    if not rows:
        raise NotFoundError("version", f"{model.name}:{number}")
    _check_unused(session, model, number)
    keys = [row.checkpoint_key for row in rows]
    forget_resources(session, model.project, keys)  # of imports
    numbers = [row.version for row in rows]
    counts = MonitoredRow.model_id == model.id, MonitoredRow.version.in_(numbers)
    session.execute(delete(MonitoredRow).where(*counts))
    for row in rows:
        session.delete(row)
    session.flush()
    newest = select(func.max(ModelVersionRow.version)).where(ModelVersionRow.model_id == model.id)
    model.latest_version = session.scalar(newest) or 0
    if model.latest_version == 0:  # the next model of this name is another one
        model.description, model.tags = None, {}
        session.execute(delete(AliasChangeRow).where(AliasChangeRow.model_id == model.id))
        session.execute(delete(ReviewRow).where(ReviewRow.model_id == model.id))
    return keys


def _check_unused(session: Session, model: ModelRow, number: int | None) -> None:
    alias = select(ModelAliasRow).where(ModelAliasRow.model_id == model.id)
    job = select(JobRow.id, JobRow.model_version).where(
        JobRow.project == model.project,
        JobRow.state.in_(UNFINISHED_STATES),
        JobRow.model_name == model.name,
        JobRow.model_version.is_not(None),
    )
    if number is not None:
        alias = alias.where(ModelAliasRow.version == number)
        job = job.where(JobRow.model_version == number)
    pointing = session.scalars(alias.order_by(ModelAliasRow.name).limit(1)).first()
    if pointing is not None:
        ref = f"{model.name}:{pointing.version}"
        detail = f"Alias {pointing.name} points at version {ref}; move or delete the alias first."
        raise ConflictError(detail, slug="version-in-use")
    using = session.execute(job.limit(1)).first()
    if using is not None:
        ref = f"{model.name}:{using.model_version}"
        detail = f"Job {using.id}, which has not ended, uses version {ref}; cancel it first."
        raise ConflictError(detail, slug="version-in-use")


def aliases_of(session: Session, model_ids: list[int]) -> list[ModelAliasRow]:
    """Return the aliases of models, by name."""
    query = select(ModelAliasRow).where(ModelAliasRow.model_id.in_(model_ids))
    return list(session.scalars(query.order_by(ModelAliasRow.model_id, ModelAliasRow.name)))


def _aliases_by_version(session: Session, model: ModelRow) -> dict[int, list[str]]:
    """Return the names of the aliases of each version of a model that has some."""
    aliases: dict[int, list[str]] = {}
    for alias in aliases_of(session, [model.id]):
        aliases.setdefault(alias.version, []).append(alias.name)
    return aliases


def to_models(session: Session, rows: list[ModelRow]) -> list[Model]:
    """Return rows as plain values, with their aliases."""
    aliases: dict[int, dict[str, int]] = {row.id: {} for row in rows}
    for alias in aliases_of(session, list(aliases)):
        aliases[alias.model_id][alias.name] = alias.version
    latest = _latest(session, list(aliases))
    return [Model.of_row(row, aliases=aliases[row.id], latest=latest[row.id]) for row in rows]


def _latest(session: Session, model_ids: list[int]) -> dict[int, Latest]:
    """Return the newest version of each model."""
    query = (
        select(ModelVersionRow)
        .options(_LATEST)
        .join(ModelRow, ModelRow.id == ModelVersionRow.model_id)
        .where(ModelRow.id.in_(model_ids), ModelVersionRow.version == ModelRow.latest_version)
    )
    return {row.model_id: Latest.of_row(row) for row in session.scalars(query)}


def to_versions(
    session: Session, model: ModelRow, rows: Sequence[ModelVersionRow]
) -> list[Version]:
    """Return rows of one model as plain values, with their aliases."""
    aliases = _aliases_by_version(session, model)
    return [_to_version(row, name=model.name, aliases=aliases.get(row.version, [])) for row in rows]


def to_version_summaries(
    session: Session,
    model: ModelRow,
    rows: list[ModelVersionRow],
    *,
    include: Collection[LargeField] = (),
) -> list[VersionSummary]:
    """Return rows of one model as plain values without their large fields.

    Args:
        include: Large fields to read too: of the first row, and of those after it while all are at
            most 256 KiB of JSON. The rows after these are left out.
    """
    aliases = _aliases_by_version(session, model)
    large = _large_fields(session, rows, include) if include else [{} for _ in rows]
    return [
        VersionSummary.of_row(
            row, name=model.name, aliases=aliases.get(row.version, []), included=included
        )
        for row, included in zip(rows, large, strict=False)
    ]


def _large_fields(
    session: Session, rows: list[ModelVersionRow], names: Collection[LargeField]
) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    size = 0
    columns = [getattr(ModelVersionRow, name) for name in names]
    for row in rows:
        values = session.execute(select(*columns).where(ModelVersionRow.id == row.id)).one()
        # Only the context of an old version is null.
        fields: dict[str, Any] = {n: value or [] for n, value in zip(names, values, strict=True)}
        size += len(json.dumps(fields))
        if found and size > _PAGE_BYTES:
            break
        found.append(fields)
    return found


def _to_version(row: ModelVersionRow, *, name: str, aliases: list[str]) -> Version:
    context = row.context_columns or []
    return Version.of_row(row, name=name, aliases=aliases, context_columns=context, unusual=None)
