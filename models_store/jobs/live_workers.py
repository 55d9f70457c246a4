"""Workers that are at work, as the database knows them from their signs of life."""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from models_store.database.clock import db_now
from models_store.database.database import Database
from models_store.database.schema import WorkerRow
from models_store.database.upserts import insert_into

LIVE_S = 60.0
"""Seconds after its last sign of life for which a worker counts as alive."""

_FORGOTTEN_S = 7 * 86_400.0


@dataclass(frozen=True, kw_only=True)
class Worker:
    """A worker.

    Attributes:
        name: the same after a restart.
        seen_at: its last sign of life.
        unfit: why it takes no jobs; None: it does.
    """

    name: str
    seen_at: datetime
    unfit: str | None


class Workers:
    """Signs of life of all workers."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def beat(self, name: str, *, unfit: str | None = None) -> None:
        """Give a worker's sign of life.

        Args:
            name: its name.
            unfit: why it takes no jobs now; None: it does.

        Raises:
            DatabaseError: the database cannot be used.
        """
        self._database.transact(_beat, name, unfit)

    def remove(self, name: str) -> None:
        """Forget a worker that has ended.

        Raises:
            DatabaseError: the database cannot be used.
        """
        self._database.transact(_remove, name)

    def alive(self) -> list[Worker]:
        """Return those that gave a sign of life a short while ago, by name.

        Raises:
            DatabaseError: the database cannot be used.
        """
        with self._database.read() as session:
            rows = session.scalars(
                select(WorkerRow)
                .where(WorkerRow.seen_at > db_now(-LIVE_S))
                .order_by(WorkerRow.name)
            )
            return [Worker(name=row.name, seen_at=row.seen_at, unfit=row.unfit) for row in rows]


def in_service(session: Session) -> frozenset[str]:
    """Return the names of the workers that take jobs now."""
    query = select(WorkerRow.name).where(
        WorkerRow.seen_at > db_now(-LIVE_S), WorkerRow.unfit.is_(None)
    )
    return frozenset(session.scalars(query))


def _beat(session: Session, name: str, unfit: str | None) -> None:
    session.execute(delete(WorkerRow).where(WorkerRow.seen_at < db_now(-_FORGOTTEN_S)))
    values = {"seen_at": db_now(), "unfit": unfit}
    session.execute(
        insert_into(session, WorkerRow)
        .values(name=name, **values)
        .on_conflict_do_update(index_elements=[WorkerRow.name], set_=values)
    )


def _remove(session: Session, name: str) -> None:
    session.execute(delete(WorkerRow).where(WorkerRow.name == name))
