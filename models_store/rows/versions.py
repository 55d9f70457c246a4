"""Models and their versions inside a transaction."""

from collections.abc import Collection, Mapping
from dataclasses import fields
from functools import cache
from itertools import accumulate
from typing import Any, Literal

from sqlalchemy import Text, bindparam, cast, func, literal, select
from sqlalchemy.orm import Session, load_only
from sqlalchemy.sql.dml import ReturningInsert

from models_store.database.base import large_names, whole
from models_store.database.dialects import dialect_of, insert_into
from models_store.database.ids import is_name
from models_store.database.schema import JobRow, ModelAliasRow, ModelRow, ModelVersionRow
from models_store.errors import NotFoundError, VersionInUseError
from models_store.job_states import UNFINISHED_STATES, JobKind
from models_store.records import Latest, Model, NewVersion, Version, VersionSummary
from models_store.rows.alias_changes import forget_changes
from models_store.rows.aliases import aliases_by_version, aliases_of
from models_store.rows.idempotency import forget_resources

LargeField = Literal["columns", "context_columns", "flow", "preprocessing"]
"""Field of a version that its summary lacks unless it is asked for."""

_PAGE_BYTES = 256 * 1024  # of large fields that a page of summaries reads

_LATEST = load_only(
    ModelVersionRow.model_id,
    *(getattr(ModelVersionRow, field.name) for field in fields(Latest)),
    raiseload=True,
)
# A deletion reads no more: a row may have megabytes.
_DELETED = load_only(
    ModelVersionRow.version,
    ModelVersionRow.project,
    ModelVersionRow.checkpoint_key,
    ModelVersionRow.charged_bytes,
    raiseload=True,
)
VERSIONS_AT_ONCE = 100
"""Most versions that a transaction deletes: while it does, nobody else writes to SQLite."""

_LARGEST = 2**31 - 1
# Statements are built once: that takes longer than to run them.
_MODEL = select(ModelRow).where(
    ModelRow.project == bindparam("project"),
    ModelRow.name == bindparam("name"),
    ModelRow.latest_version > 0,
)
_LOCKED_MODEL = _MODEL.with_for_update()
_VERSION = select(ModelVersionRow).where(
    ModelVersionRow.model_id == bindparam("model_id"),
    ModelVersionRow.version == bindparam("number"),
)
_NAMED = 10
_NUMBERS = (
    select(ModelVersionRow.version)
    .where(ModelVersionRow.model_id == bindparam("model_id"))
    .order_by(ModelVersionRow.version.desc())
    .limit(_NAMED + 1)
)
_FIRST_TRAINING = (
    select(JobRow.id, JobRow.state)
    .where(
        JobRow.project == bindparam("project"),
        JobRow.model_name == bindparam("name"),
        JobRow.kind.in_([kind for kind in JobKind if kind.makes_version]),
        JobRow.state.in_(UNFINISHED_STATES),
    )
    .order_by(JobRow.position)
    .limit(1)
)
_WHOLE_VERSION = _VERSION.options(*whole(ModelVersionRow))
_PINNED = (
    select(ModelVersionRow.id)
    .join(ModelRow, ModelRow.id == ModelVersionRow.model_id)
    .where(ModelRow.project == bindparam("project"), ModelRow.name == bindparam("name"))
    .where(ModelVersionRow.version == bindparam("number"))
    .with_for_update(read=True, key_share=True, of=ModelVersionRow)
)


def add_version(
    session: Session,
    new: NewVersion,
    columns: Mapping[str, Any],
    *,
    project: str,
    name: str,
    job_id: str | None,
) -> Version:
    """Register the next version of a model, and the model itself with its first one.

    Args:
        session: Transaction to write in.
        new: Version to register.
        columns: Columns of the version, the fields of `new`, perhaps with other labels.
        project: Project that owns the model.
        name: Name of the model.
        job_id: Id of the job that made it; None: it was imported.
    """
    # The row stays locked, so versions count up in the order of their commits. It is locked before other
    # rows are written, which count in the usage of the project.
    counted = _counted(dialect_of(session)), {"project": project, "name": name}
    model_id, number = session.connection().execute(*counted).one()
    row = ModelVersionRow(
        project=project, model_id=model_id, version=number, job_id=job_id, **columns
    )
    session.add(row)
    session.flush()
    large = {name: getattr(new, name) for name in large_names(ModelVersionRow)}
    return _to_version(row, name=name, aliases=[], large=large)


@cache
def _counted(dialect: str) -> ReturningInsert[int, int]:
    """Return the statement that counts one more version of a model."""
    more = ModelRow.versions_made + 1
    first = insert_into(dialect, ModelRow).values(
        project=bindparam("project"), name=bindparam("name"), versions_made=1, latest_version=1
    )
    return first.on_conflict_do_update(
        index_elements=[ModelRow.project, ModelRow.name],
        set_={"versions_made": more, "latest_version": more},
    ).returning(ModelRow.id, ModelRow.versions_made)


def version_of_job(session: Session, job_id: str, *, attempt: int) -> Version | None:
    """Return the version that this attempt at a job registered, if it did."""
    query = (
        select(ModelVersionRow, ModelRow)
        .options(*whole(ModelVersionRow))
        .join(ModelRow, ModelRow.id == ModelVersionRow.model_id)
        .join(JobRow, JobRow.id == ModelVersionRow.job_id)
        .where(JobRow.id == job_id, JobRow.attempt == attempt)
    )
    found = session.execute(query).one_or_none()
    if found is None:
        return None
    row, model = found
    return to_versions(session, model, [row])[0]


def version_of_weights(session: Session, model: ModelRow, key: str) -> Version:
    """Return the version of a model that has the weights under a key.

    Raises:
        NotFoundError: It was deleted meanwhile.
    """
    query = select(ModelVersionRow).where(
        ModelVersionRow.model_id == model.id, ModelVersionRow.checkpoint_key == key
    )
    row = session.scalar(query.options(*whole(ModelVersionRow)))
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
        query = _LOCKED_MODEL if lock else _MODEL
        row = session.scalar(query, {"project": project, "name": name})
    if row is None:
        raise NotFoundError("model", name, hint=_first_training(session, project, name))
    return row


def _first_training(session: Session, project: str, name: str) -> str:
    """Return a sentence about the job that trains the first version of a model; empty without one."""
    if not is_name(name):
        return ""
    job = session.execute(_FIRST_TRAINING, {"project": project, "name": name}).first()
    return "" if job is None else f"Its first training, {job.id}, is {job.state}."


def find_version(
    session: Session,
    model: ModelRow,
    number: int,
    *,
    full: bool = False,
) -> ModelVersionRow:
    """Return a version's row.

    Args:
        session: Transaction to read in.
        model: Model that has the version.
        number: Number of the version.
        full: Read its large columns, too, which `to_versions` needs.

    Raises:
        NotFoundError: the model has no such version.
    """
    row = None
    if 1 <= number <= _LARGEST:
        query = _WHOLE_VERSION if full else _VERSION
        row = session.scalar(query, {"model_id": model.id, "number": number})
    if row is None:
        raise NotFoundError("version", f"{model.name}:{number}", hint=_versions_of(session, model))
    return row


def _versions_of(session: Session, model: ModelRow) -> str:
    numbers = session.scalars(_NUMBERS, {"model_id": model.id}).all()
    more = " and older ones" if len(numbers) > _NAMED else ""
    return f"There is {', '.join(f'{model.name}:{n}' for n in numbers[:_NAMED])}{more}."


def pin_version(session: Session, project: str, name: str, number: int) -> None:
    """Keep a version from being deleted until this transaction, which adds a user, has ended.

    Raises:
        NotFoundError: the project has no such version.
    """
    values = {"project": project, "name": name, "number": number}
    if session.connection().scalar(_PINNED, values) is None:
        raise NotFoundError("version", f"{name}:{number}")


def delete_versions(session: Session, model: ModelRow, number: int | None = None) -> list[str]:
    """Delete versions of a locked model that nothing needs, and return the keys of their weights.

    Args:
        session: Transaction to write in.
        model: Model that has the versions.
        number: Number of the only one to delete; None: delete the oldest, `VERSIONS_AT_ONCE` at most.

    Raises:
        NotFoundError: the model has no such version.
        VersionInUseError: an alias points at one, or a job that has not ended uses one.
    """
    chosen = [ModelVersionRow.model_id == model.id]
    if number is not None:
        chosen.append(ModelVersionRow.version == min(number, _LARGEST))
    # A job that is being submitted holds the row too: one of the two waits for the other.
    query = select(ModelVersionRow).options(_DELETED).where(*chosen)
    oldest = query.order_by(ModelVersionRow.version).limit(VERSIONS_AT_ONCE)
    rows = session.scalars(oldest.with_for_update()).all()
    if not rows:
        raise NotFoundError("version", f"{model.name}:{number}")
    _check_unused(session, model, number)
    keys = [row.checkpoint_key for row in rows]
    forget_resources(session, model.project, keys)  # of imports
    for row in rows:
        session.delete(row)
    session.flush()
    newest = select(func.max(ModelVersionRow.version)).where(ModelVersionRow.model_id == model.id)
    model.latest_version = session.scalar(newest) or 0
    if model.latest_version == 0:  # the next model of this name is another one
        model.description, model.tags = None, {}
        forget_changes(session, model)
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
        raise VersionInUseError(f"{model.name}:{pointing.version}", alias=pointing.name)
    using = session.execute(job.limit(1)).first()
    if using is not None:
        raise VersionInUseError(f"{model.name}:{using.model_version}", job_id=using.id)


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
    session: Session,
    model: ModelRow,
    rows: list[ModelVersionRow],
    *,
    large: Mapping[str, Any] | None = None,
) -> list[Version]:
    """Return rows of one model as plain values, with their aliases.

    Args:
        session: Transaction to read in.
        model: Model that has the versions.
        rows: Rows of the versions.
        large: Large fields of the only row; None: the rows have them.
    """
    aliases = aliases_by_version(session, model)
    return [
        _to_version(row, name=model.name, aliases=aliases.get(row.version, []), large=large)
        for row in rows
    ]


def to_version_summaries(
    session: Session,
    model: ModelRow,
    rows: list[ModelVersionRow],
    *,
    include: Collection[LargeField] = (),
) -> list[VersionSummary]:
    """Return rows of one model as plain values without their large fields.

    Args:
        session: Transaction to read in.
        model: Model that has the versions.
        rows: Rows of the versions.
        include: Large fields to read too: of the first row, and of those after it while all are at
            most 256 KiB of JSON. The rows after these are left out.
    """
    aliases = aliases_by_version(session, model)
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
    key = ModelVersionRow.id
    columns = [getattr(ModelVersionRow, name) for name in names]
    lengths = (func.coalesce(func.length(cast(column, Text)), 0) for column in columns)
    mine = key.in_([row.id for row in rows])
    found = session.execute(select(key, sum(lengths, literal(0))).where(mine))
    sizes: dict[int, int] = {row_id: size for row_id, size in found}  # noqa: C416  of rows
    ends = accumulate(sizes[row.id] for row in rows)
    read = [row.id for row, end in zip(rows, ends, strict=True) if end <= _PAGE_BYTES]
    read = read or [row.id for row in rows[:1]]
    rest = session.execute(select(key, *columns).where(key.in_(read)))
    # Only the context of an old version is null.
    values = {row_id: [[] if value is None else value for value in row] for row_id, *row in rest}
    return [dict(zip(names, values[row_id], strict=True)) for row_id in read]


def _to_version(
    row: ModelVersionRow,
    *,
    name: str,
    aliases: list[str],
    large: Mapping[str, Any] | None = None,
) -> Version:
    return Version.of_row(
        row,
        name=name,
        aliases=aliases,
        row_bytes=row.charged_bytes - row.checkpoint_bytes,
        **(large or {"context_columns": row.context_columns or []}),
    )
