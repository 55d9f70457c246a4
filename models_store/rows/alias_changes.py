"""History of aliases: which version each pointed at from when on, and why."""

from sqlalchemy import delete, func, select
from sqlalchemy.orm import Session

from models_store.database.schema import AliasChangeRow, ModelRow
from models_store.database.usage import EVENT_BYTES, json_bytes, stored_bytes

MAX_CHANGES = 10_000
"""Changes that are kept of the aliases of one model; the oldest go first."""


_MOST_FORGOTTEN = 64  # small changes that make room for a large one


def record_change(
    session: Session,
    model: ModelRow,
    alias: str,
    *,
    version: int | None,
    reason: str | None,
    max_bytes: int | None = None,
) -> None:
    """Add a change to the history of a locked model, unless it repeats the one before.

    Args:
        session: Transaction to write in.
        model: Model that has the alias.
        alias: Name of the alias.
        version: Number of the version that it points at from now on; None: it was deleted.
        reason: Reason that the caller gave.
        max_bytes: Bytes that the project may store, beyond which the oldest changes of the model make
            room for this one; None: any number.
    """
    mine = AliasChangeRow.model_id == model.id
    latest = session.scalars(
        select(AliasChangeRow)
        .where(mine, AliasChangeRow.alias == alias)
        .order_by(AliasChangeRow.position.desc())
        .limit(1)
    ).first()
    if latest is not None and (latest.version, latest.reason) == (version, reason):
        return
    model.history_bytes += _bytes_of(reason)
    session.add(
        AliasChangeRow(
            project=model.project, model_id=model.id, alias=alias, version=version, reason=reason
        )
    )
    session.flush()
    oldest = (
        select(AliasChangeRow.position)
        .where(mine)
        .order_by(AliasChangeRow.position.desc())
        .offset(MAX_CHANGES)
        .limit(1)
    )
    forgotten = session.scalars(
        delete(AliasChangeRow)
        .where(mine, AliasChangeRow.position <= func.coalesce(oldest.scalar_subquery(), 0))
        .returning(AliasChangeRow.reason)
    )
    _free(model, sum(map(_bytes_of, forgotten)))
    if max_bytes is not None and stored_bytes(session, model.project) > max_bytes:
        _make_room(session, model, _bytes_of(reason))


def _make_room(session: Session, model: ModelRow, wanted: int) -> None:
    """Forget the oldest changes of a model, but for the newest one, until they have freed as much."""
    mine = AliasChangeRow.model_id == model.id
    changes = select(AliasChangeRow.position, AliasChangeRow.reason).where(mine)
    oldest = session.execute(changes.order_by(AliasChangeRow.position).limit(_MOST_FORGOTTEN)).all()
    newest = session.scalar(select(func.max(AliasChangeRow.position)).where(mine))
    freed, last = 0, 0
    for position, reason in oldest:
        if freed >= wanted or position == newest:
            break
        freed, last = freed + _bytes_of(reason), position
    session.execute(
        delete(AliasChangeRow).where(mine, AliasChangeRow.position <= last),
        execution_options={"synchronize_session": False},
    )
    _free(model, freed)


def _free(model: ModelRow, freed: int) -> None:
    model.history_bytes = max(0, model.history_bytes - freed)  # of some, less was counted


def forget_changes(session: Session, model: ModelRow) -> None:
    """Delete the history of a model that has no version any more."""
    session.execute(delete(AliasChangeRow).where(AliasChangeRow.model_id == model.id))
    model.history_bytes = 0


def _bytes_of(reason: str | None) -> int:
    """Return the bytes of a change."""
    return EVENT_BYTES + json_bytes(reason)
