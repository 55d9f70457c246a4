"""Aliases of models: movable names of versions, with a history of their moves."""

from collections.abc import Callable

from sqlalchemy import delete, func, select
from sqlalchemy.orm import Session

from models_store.database.database import Rows, reading, writing
from models_store.database.ids import is_name
from models_store.database.schema import AliasChangeRow, ModelAliasRow, ModelRow
from models_store.errors import ConflictError, LimitError, NotFoundError
from models_store.listing import Listing, Page, page_of
from models_store.records import Alias, AliasChange
from models_store.rows.versions import find_model, find_version

MAX_ALIASES = 100
"""Aliases of one model: each answer about a model names them all."""

MAX_CHANGES = 1000
"""Changes that are kept of the aliases of one model; the oldest go first."""

RevisionCondition = Callable[[int | None], bool]
"""Test of the revision that an alias is at, None if it does not exist."""

_CHANGES = Listing(name="history", key=AliasChangeRow.position)


def any_revision(_revision: int | None) -> bool:
    """Return true: no condition."""
    return True


class Aliases(Rows):
    """Aliases of the models of all projects.

    Methods raise `NotFoundError` if the project has no such model, or the model no such alias or version.
    """

    @reading
    def get(self, session: Session, project: str, name: str, alias: str) -> Alias:
        """Return an alias with the version that it points at."""
        row = find_alias(session, find_model(session, project, name), alias)
        if row is None:
            raise NotFoundError("alias", alias)
        return Alias.of_row(row)

    @writing
    def set(  # noqa: PLR0913 - a move has a version, a reason and a condition
        self,
        session: Session,
        project: str,
        name: str,
        alias: str,
        *,
        version: int,
        reason: str | None = None,
        condition: RevisionCondition = any_revision,
    ) -> Alias:
        """Point an alias at a version, atomically; one that does not exist is made.

        Args:
            version: Number of an existing version of the model.
            reason: Reason that stays in the history of the aliases.
            condition: Test of the alias's present revision; it moves only if this returns true.

        Raises:
            ValueError: the alias is no valid name.
            ConflictError: the condition does not hold.
            LimitError: `limit-aliases`, if the model has this many others.
        """
        if not is_name(alias):
            raise ValueError("an alias matches ^[a-z0-9][a-z0-9._-]{0,63}$")
        model = find_model(session, project, name, lock=True)
        row = find_alias(session, model, alias)
        _check_revision(alias, row, condition)
        number = find_version(session, model, version).version
        _record_change(session, model, alias, version=number, reason=reason)
        model.alias_revision += 1
        if row is None:
            _check_number(session, model)
            row = ModelAliasRow(model_id=model.id, name=alias, project=model.project)
            session.add(row)
        row.version, row.revision = number, model.alias_revision
        session.flush()
        return Alias.of_row(row)

    @writing
    def delete(
        self,
        session: Session,
        project: str,
        name: str,
        alias: str,
        *,
        condition: RevisionCondition = any_revision,
    ) -> None:
        """Remove an alias, under a condition as in `set`."""
        model = find_model(session, project, name, lock=True)
        row = find_alias(session, model, alias)
        _check_revision(alias, row, condition)
        if row is None:
            raise NotFoundError("alias", alias)
        _record_change(session, model, alias, version=None, reason=None)
        session.delete(row)

    @reading
    def changes(
        self, session: Session, project: str, name: str, *, limit: int, cursor: str | None = None
    ) -> Page[AliasChange]:
        """List the changes of the aliases of a model, newest first.

        Raises:
            ConflictError: the cursor is not one of this listing.
        """
        model = find_model(session, project, name)
        query = select(AliasChangeRow).where(AliasChangeRow.model_id == model.id)
        page = page_of(session, query, _CHANGES, cursor=cursor, limit=limit)
        return page.map(AliasChange.of_row)


def find_alias(session: Session, model: ModelRow, alias: str) -> ModelAliasRow | None:
    """Return an alias's row, or None if the model has no such alias."""
    return session.get(ModelAliasRow, (model.id, alias)) if is_name(alias) else None


def _check_revision(alias: str, row: ModelAliasRow | None, condition: RevisionCondition) -> None:
    found = None if row is None else row.revision
    if not condition(found):
        at = "does not exist" if found is None else f"is at revision {found}"
        raise ConflictError(
            f"Alias {alias} {at}; the request's condition does not hold.", slug="precondition"
        )


def _check_number(session: Session, model: ModelRow) -> None:
    count = select(func.count()).where(ModelAliasRow.model_id == model.id)
    if (session.scalar(count) or 0) >= MAX_ALIASES:
        raise LimitError(
            "limit-aliases", f"The model has {MAX_ALIASES} aliases already; delete one of them."
        )


def _record_change(
    session: Session, model: ModelRow, alias: str, *, version: int | None, reason: str | None
) -> None:
    """Add a change to the history of a locked model, unless it repeats the one before; None: deleted."""
    mine = AliasChangeRow.model_id == model.id
    newest_first = AliasChangeRow.position.desc()
    of_alias = select(AliasChangeRow).where(mine, AliasChangeRow.alias == alias)
    latest = session.scalars(of_alias.order_by(newest_first).limit(1)).first()
    if latest is not None and (latest.version, latest.reason) == (version, reason):
        return
    session.add(
        AliasChangeRow(
            project=model.project, model_id=model.id, alias=alias, version=version, reason=reason
        )
    )
    session.flush()
    oldest = select(AliasChangeRow.position).where(mine).order_by(newest_first)
    last = session.scalar(oldest.offset(MAX_CHANGES).limit(1))
    if last is not None:
        session.execute(delete(AliasChangeRow).where(mine, AliasChangeRow.position <= last))
