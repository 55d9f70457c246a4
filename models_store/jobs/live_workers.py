"""Workers that are at work, as the database knows them from their signs of life."""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from models_store.database.clock import db_now
from models_store.database.database import Database, Rows, reading, writing
from models_store.database.dialects import dialect_of, insert_into
from models_store.database.schema import WorkerRow
from models_store.records import Record

LIVE_S = 60.0
"""Seconds after its last sign of life for which a worker counts as alive."""

_FORGOTTEN_S = 7 * 86_400.0


@dataclass(frozen=True, kw_only=True)
class Worker(Record):
    """A worker.

    Attributes:
        name: Name, which is the same after a restart.
        seen_at: Time of its last sign of life.
        unfit: Reason why it takes no jobs; None: it takes them.
        accelerator: True if it has an accelerator; None: it did not say.
        memory_bytes: Memory of each of its trainers; None: it does not know.
    """

    name: str
    seen_at: datetime
    unfit: str | None
    accelerator: bool | None
    memory_bytes: int | None


class Workers(Rows):
    """Signs of life of all workers; every method raises DatabaseError when the database fails."""

    def __init__(self, database: Database) -> None:
        super().__init__(database)
        self._forgot = False

    @writing
    def beat(
        self,
        session: Session,
        name: str,
        *,
        unfit: str | None = None,
        accelerator: bool | None = None,
        memory_bytes: int | None = None,
    ) -> None:
        """Record a worker's sign of life.

        Args:
            unfit: Reason why it takes no jobs now; None: it takes them.
            accelerator: True if it has an accelerator.
            memory_bytes: Memory of each of its trainers; None: not known.
        """
        if not self._forgot:  # once a process is often enough
            session.execute(delete(WorkerRow).where(WorkerRow.seen_at < db_now(-_FORGOTTEN_S)))
        told = {
            "seen_at": db_now(),
            "unfit": unfit,
            "accelerator": accelerator,
            "memory_bytes": memory_bytes,
        }
        seen = insert_into(dialect_of(session), WorkerRow).values(name=name, **told)
        new = {column: seen.excluded[column] for column in told}
        session.execute(seen.on_conflict_do_update(index_elements=[WorkerRow.name], set_=new))
        self._forgot = True

    @writing
    def remove(self, session: Session, name: str) -> None:
        """Forget a worker that has ended."""
        session.execute(delete(WorkerRow).where(WorkerRow.name == name))

    @reading
    def alive(self, session: Session) -> list[Worker]:
        """Return the workers that gave a sign of life a short while ago, by name."""
        alive = select(WorkerRow).where(WorkerRow.seen_at > db_now(-LIVE_S))
        return [Worker.of_row(row) for row in session.scalars(alive.order_by(WorkerRow.name))]
