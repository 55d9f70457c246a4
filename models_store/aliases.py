"""Aliases of models: movable names of versions, with a history of their moves."""

from sqlalchemy import select
from sqlalchemy.orm import Session

from models_store.database.database import Database, reading, writing
from models_store.database.ids import is_name
from models_store.database.schema import AliasChangeRow
from models_store.errors import NotFoundError
from models_store.listings.paging import Listing, Page, page_of
from models_store.records import Alias, AliasChange
from models_store.rows.alias_changes import record_change
from models_store.rows.aliases import (
    RevisionCondition,
    any_revision,
    check_revision,
    find_alias,
    point,
)
from models_store.rows.versions import find_model, find_version

_CHANGES = Listing(name="history", key=AliasChangeRow.position)


class Aliases:
    """Aliases of the models of all projects."""

    def __init__(self, database: Database) -> None:
        self._database = database

    @reading
    def get(self, session: Session, project: str, name: str, alias: str) -> Alias:
        """Return an alias with the version that it points at.

        Raises:
            NotFoundError: The project has no such model, or the model no such alias.
        """
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
        """Point an alias at a version, atomically.

        Args:
            session: Transaction, which the decorator begins.
            project: Project that owns the model.
            name: Name of the model.
            alias: Name of the alias, which is created if it does not exist.
            version: Number of an existing version of the model.
            reason: Reason that stays in the history of the aliases.
            condition: Test of the alias's present revision, None for an alias that does not
                exist; the alias moves only if it returns true.

        Raises:
            ValueError: the alias is no valid name.
            NotFoundError: The project has no such model, or the model no such version.
            PreconditionError: the condition does not hold.
        """
        if not is_name(alias):
            raise ValueError("an alias matches ^[a-z0-9][a-z0-9._-]{0,63}$")
        model = find_model(session, project, name, lock=True)
        check_revision(alias, find_alias(session, model, alias), condition)
        number = find_version(session, model, version).version
        record_change(session, model, alias, version=number, reason=reason)
        return point(session, model, alias, version=number)

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
        """Remove an alias, under a condition as in `set`.

        Raises:
            NotFoundError: The project has no such model, or the model no such alias.
            PreconditionError: the condition does not hold.
        """
        model = find_model(session, project, name, lock=True)
        row = find_alias(session, model, alias)
        check_revision(alias, row, condition)
        if row is None:
            raise NotFoundError("alias", alias)
        record_change(session, model, alias, version=None, reason=None)
        session.delete(row)

    @reading
    def changes(
        self,
        session: Session,
        project: str,
        name: str,
        *,
        limit: int,
        cursor: str | None = None,
    ) -> Page[AliasChange]:
        """List the changes of the aliases of a model, newest first.

        Raises:
            NotFoundError: the project has no such model.
            CursorError: the cursor is not one of this listing.
        """
        model = find_model(session, project, name)
        query = select(AliasChangeRow).where(AliasChangeRow.model_id == model.id)
        page = page_of(session, query, _CHANGES, cursor=cursor, limit=limit)
        return page.map(AliasChange.of_row)
