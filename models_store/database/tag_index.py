"""Index of tags: a row for each tag of each row, kept as those change.

The tags themselves are a column of their row. One function, called after every flush, brings the
index up to date: nothing else writes to it.
"""

from sqlalchemy import ColumnElement, Select, delete, insert, select
from sqlalchemy.orm import InstrumentedAttribute, PassiveFlag, Session, UOWTransaction, attributes

from models_store.database.schema import (
    DatasetRow,
    JobRow,
    ModelRow,
    ModelVersionRow,
    TagRow,
)

_UNLOADED = PassiveFlag.PASSIVE_NO_INITIALIZE
_Tagged = DatasetRow | JobRow | ModelRow | ModelVersionRow
Tagged = type[DatasetRow] | type[JobRow] | type[ModelRow] | type[ModelVersionRow]
_KEYS: dict[Tagged, InstrumentedAttribute[int]] = {
    DatasetRow: DatasetRow.position,
    JobRow: JobRow.position,
    ModelRow: ModelRow.id,
    ModelVersionRow: ModelVersionRow.id,
}


def positions(row: Tagged, project: str, name: str, value: str | None) -> Select[int]:
    """Return a query of the primary keys of a project's rows that have a tag.

    Args:
        row: Table of the rows.
        project: Project that owns them.
        name: Name of the tag.
        value: Value of the tag; None for any.
    """
    query = select(TagRow.position).where(
        TagRow.project == project, TagRow.kind == row.__tablename__, TagRow.name == name
    )
    return query if value is None else query.where(TagRow.value == value)


def has_tag(row: Tagged, project: str, name: str, value: str | None) -> ColumnElement[bool]:
    """Return the condition that a row has a tag, for queries that look at few of the rows.

    Args:
        row: Table of the rows.
        project: Project that owns them.
        name: Name of the tag.
        value: Value of the tag; None for any.
    """
    found = select(TagRow.position).where(
        TagRow.kind == row.__tablename__, TagRow.position == _KEYS[row], TagRow.name == name
    )
    # Without a value the project has any number of tags of the name, and the row few of its own.
    if value is not None:
        found = found.where(TagRow.project == project, TagRow.value == value)
    return found.exists()


def index_tags(session: Session, _context: UOWTransaction) -> None:
    """Bring the index up to date: after each flush."""
    for row in session.deleted:
        if isinstance(row, _Tagged):
            _forget(session, row)
    for row in session.new:
        if isinstance(row, _Tagged) and row.tags:
            _add(session, row)
    for row in session.dirty:
        if (
            isinstance(row, _Tagged)
            and attributes.get_history(row, "tags", _UNLOADED).has_changes()
        ):
            _forget(session, row)
            _add(session, row)


def _forget(session: Session, row: _Tagged) -> None:
    mine = (TagRow.kind == row.__tablename__, TagRow.position == _position(row))
    session.execute(delete(TagRow).where(*mine), execution_options={"synchronize_session": False})


def _add(session: Session, row: _Tagged) -> None:
    if row.tags:
        place = {
            "project": row.project,
            "kind": row.__tablename__,
            "position": _position(row),
        }
        session.execute(
            insert(TagRow),
            [{**place, "name": name, "value": value} for name, value in row.tags.items()],
        )


def _position(row: _Tagged) -> int:
    position: int = getattr(row, _KEYS[type(row)].key)
    return position
