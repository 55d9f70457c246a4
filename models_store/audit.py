"""Audit trail: a row for each request that changed something, written in the transaction of its first change."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import select

from models_store.database.database import Rows
from models_store.database.schema import AuditRow
from models_store.listing import Listing, Page, page_of
from models_store.records import Record

_TRAIL = Listing(name="audit", key=AuditRow.position)
_PIECE = 1_000


@dataclass(frozen=True, kw_only=True)
class AuditRecord(Record):
    """Row of the trail."""

    position: int
    time: datetime
    project: str
    key_id: str | None
    action: str
    resource: str
    request_id: str


class AuditTrail(Rows):
    """Audit trail of all projects."""

    def page(self, project: str, *, limit: int, cursor: str | None = None) -> Page[AuditRecord]:
        """List the records of a project, newest first.

        Raises:
            ConflictError: The cursor is not one of this listing.
        """
        with self.database.read() as session:
            query = select(AuditRow).where(AuditRow.project == project)
            page = page_of(session, query, _TRAIL, cursor=cursor, limit=limit)
            return page.map(AuditRecord.of_row)

    def records(self, *, since: datetime | None = None) -> Iterator[AuditRecord]:
        """Yield the records of all projects, oldest first; each piece of them is one short transaction."""
        query = select(AuditRow).order_by(AuditRow.position).limit(_PIECE)
        if since is not None:
            query = query.where(AuditRow.time >= since)
        last = 0
        while True:
            with self.database.read() as session:
                found = [
                    *map(AuditRecord.of_row, session.scalars(query.where(AuditRow.position > last)))
                ]
            yield from found
            if not found:
                return
            last = found[-1].position
