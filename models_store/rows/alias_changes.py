"""History of aliases: which version each pointed at from when on, and why."""

from sqlalchemy import delete, func, select
from sqlalchemy.orm import Session

from models_store.database.schema import AliasChangeRow, ModelRow

MAX_CHANGES = 1000
"""Changes that are kept of the aliases of one model; the oldest go first."""


def record_change(
    session: Session,
    model: ModelRow,
    alias: str,
    *,
    version: int | None,
    reason: str | None,
) -> None:
    """Add a change to the history of a locked model, unless it repeats the one before.

    Args:
        session: Transaction to write in.
        model: Model that has the alias.
        alias: Name of the alias.
        version: Number of the version that it points at from now on; None: it was deleted.
        reason: Reason that the caller gave.
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
    session.execute(
        delete(AliasChangeRow).where(
            mine, AliasChangeRow.position <= func.coalesce(oldest.scalar_subquery(), 0)
        )
    )


def forget_changes(session: Session, model: ModelRow) -> None:
    """Delete the history of a model that has no version any more."""
    session.execute(delete(AliasChangeRow).where(AliasChangeRow.model_id == model.id))
