"""Events of jobs, read page by page."""

import json
from collections.abc import Iterator, Sequence
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from models_store.database.ids import is_id
from models_store.database.schema import JobEventRow, JobRow
from models_store.errors import NotFoundError
from models_store.job_states import (
    FINAL_STATES,
    EventKind,
    EventPlace,
    EventSlice,
    JobEvent,
)

Places = dict[str, EventPlace]

_IDS_A_QUERY = 500
_SEQ, _DATA = JobEventRow.seq, JobEventRow.data
_EVENTS_AT_ONCE = 50


def read_events(
    session: Session,
    project: str,
    job_id: str,
    *,
    after: int,
    limit: int,
    max_bytes: int | None,
) -> EventSlice:
    """Return events with a number above ``after``, oldest first, and whether there are more.

    Args:
        session: Transaction that sees one moment of the database.
        project: Project that owns the job.
        job_id: Id of the job.
        after: Number of an event.
        limit: Most events.
        max_bytes: Bytes of their data, which the last one may pass.

    Raises:
        NotFoundError: the project has no such job.
    """
    place = _place(session, project, job_id)
    events: list[JobEvent] = []
    if after < place.last:
        events = _read(session, job_id, after=after, limit=limit, max_bytes=max_bytes)
    reached = events[-1].seq if events else after
    return EventSlice(events, more=reached < place.last, final=place.final)


def read_spread(
    session: Session, project: str, job_id: str, kind: EventKind, *, most: int
) -> list[dict[str, Any]]:
    """Return the data of events of one kind, oldest first; of many, some that are spread evenly.

    Args:
        session: Transaction that sees one moment of the database.
        project: Project that owns the job.
        job_id: Id of the job.
        kind: Kind of the events.
        most: Most events, at least 2; the first and the last one are among them.

    Raises:
        NotFoundError: the project has no such job.
    """
    _place(session, project, job_id)
    of_kind = JobEventRow.job_id == job_id, JobEventRow.event == kind
    ends = [
        session.scalar(select(_SEQ).where(*of_kind).order_by(order).limit(1))
        for order in (_SEQ.asc(), _SEQ.desc())
    ]
    first, last = (end or 0 for end in ends)
    chosen = {first + (last - first) * place // (most - 1) for place in range(most)}
    told = select(_DATA).where(*of_kind, _SEQ.in_(sorted(chosen))).order_by(_SEQ)
    return [*session.scalars(told)]


def read_places(session: Session, job_ids: Sequence[str]) -> Places:
    """Return how far the events of some jobs have come; those that are not there are left out."""
    places: Places = {}
    query = select(JobRow.id, JobRow.state, JobRow.last_event)
    for start in range(0, len(job_ids), _IDS_A_QUERY):
        some = job_ids[start : start + _IDS_A_QUERY]
        for row in session.execute(query.where(JobRow.id.in_(some))):
            places[row.id] = EventPlace(row.last_event, row.state in FINAL_STATES)
    return places


def _place(session: Session, project: str, job_id: str) -> EventPlace:
    """Return how far the events of a job of a project have come."""
    if not is_id(job_id, "job"):
        raise NotFoundError("job", job_id)
    # Not the whole row: it has the request, of megabytes perhaps.
    query = select(JobRow.state, JobRow.last_event)
    row = session.execute(query.where(JobRow.id == job_id, JobRow.project == project)).one_or_none()
    if row is None:
        raise NotFoundError("job", job_id)
    return EventPlace(row.last_event, row.state in FINAL_STATES)


def _read(
    session: Session, job_id: str, *, after: int, limit: int, max_bytes: int | None
) -> list[JobEvent]:
    wanted = (
        select(JobEventRow)
        .where(JobEventRow.job_id == job_id, JobEventRow.seq > max(after, 0))
        .order_by(JobEventRow.seq)
        .limit(limit)
        .execution_options(yield_per=_EVENTS_AT_ONCE)
    )
    return _bounded(map(_to_event, session.scalars(wanted)), max_bytes)


def _bounded(events: Iterator[JobEvent], max_bytes: int | None) -> list[JobEvent]:
    """Return the first events, up to the one that passes the bound in bytes."""
    if max_bytes is None:
        return list(events)
    read: list[JobEvent] = []
    size = 0
    for event in events:
        read.append(event)
        size += len(json.dumps(event.data))
        if size >= max_bytes:
            break
    return read


def _to_event(row: JobEventRow) -> JobEvent:
    return JobEvent.of_row(row, event=EventKind(row.event))
