"""Aliases of models inside a transaction."""

from collections.abc import Callable

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from models_store.database.ids import is_name
from models_store.database.schema import ModelAliasRow, ModelRow
from models_store.errors import LimitError, PreconditionError
from models_store.records import Alias

MAX_ALIASES = 100
"""Aliases of one model: each answer about a model names them all."""

RevisionCondition = Callable[[int | None], bool]
"""Test of the revision that an alias is at, None if it does not exist."""


def find_alias(session: Session, model: ModelRow, alias: str) -> ModelAliasRow | None:
    """Return an alias's row, or None if the model has no such alias."""
    if not is_name(alias):
        return None
    return session.get(ModelAliasRow, (model.id, alias))


def point(session: Session, model: ModelRow, alias: str, *, version: int) -> Alias:
    """Point an alias of a locked model at a version that exists.

    Raises:
        LimitError: `limit-aliases`, if the model has this many others.
    """
    model.alias_revision += 1
    row = find_alias(session, model, alias)
    if row is None:
        _check_aliases(session, model)
        row = ModelAliasRow(model_id=model.id, name=alias, project=model.project)
        session.add(row)
    row.version = version
    row.revision = model.alias_revision
    session.flush()
    return Alias.of_row(row)


def _check_aliases(session: Session, model: ModelRow) -> None:
    count = select(func.count()).where(ModelAliasRow.model_id == model.id)
    if (session.scalar(count) or 0) >= MAX_ALIASES:
        raise LimitError(
            "limit-aliases", f"The model has {MAX_ALIASES} aliases already; delete one of them."
        )


def any_revision(_revision: int | None) -> bool:
    """Return true: no condition."""
    return True


def check_revision(alias: str, row: ModelAliasRow | None, condition: RevisionCondition) -> None:
    """Hold an alias against a caller's condition.

    Raises:
        PreconditionError: the condition does not hold.
    """
    found = row.revision if row is not None else None
    if not condition(found):
        at = "does not exist" if found is None else f"is at revision {found}"
        raise PreconditionError(f"Alias {alias} {at}")


def aliases_by_version(session: Session, model: ModelRow) -> dict[int, list[str]]:
    """Return the names of the aliases of each version of a model that has some."""
    aliases: dict[int, list[str]] = {}
    for alias in aliases_of(session, [model.id]):
        aliases.setdefault(alias.version, []).append(alias.name)
    return aliases


def aliases_of(session: Session, model_ids: list[int]) -> list[ModelAliasRow]:
    """Return the aliases of models, by name."""
    query = select(ModelAliasRow).where(ModelAliasRow.model_id.in_(model_ids))
    return list(session.scalars(query.order_by(ModelAliasRow.model_id, ModelAliasRow.name)))
