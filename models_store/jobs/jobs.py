"""Jobs as callers see them: submit, look, cancel, resume. Workers use `models_store.jobs.leases`."""

from collections.abc import Mapping
from functools import cache
from typing import Any

from sqlalchemy import (
    CompoundSelect,
    Integer,
    Text,
    bindparam,
    cast,
    func,
    literal_column,
    select,
    union_all,
)
from sqlalchemy.orm import Session

from models_store.database.database import Database, reading, writing
from models_store.database.schema import JobRow, ModelVersionRow
from models_store.errors import (
    JobInUseError,
    JobUnfinishedError,
    ResultDeletedError,
    ResultNotReadyError,
)
from models_store.job_states import (
    FINAL_STATES,
    EventKind,
    EventSlice,
    Idempotency,
    Job,
    JobEvent,
    JobKind,
    JobResult,
    JobRole,
    JobState,
    JobSummary,
    NewJob,
    Submitted,
)
from models_store.jobs.events import News, Places, read_events, read_news, read_places, read_spread
from models_store.jobs.parents.children import (
    delete_with_children,
)
from models_store.jobs.parents.steps import due_parents
from models_store.jobs.queue_places import QueuePlace, place_of
from models_store.jobs.rows import (
    expired_leases,
    find,
    queue,
    to_job,
    to_summary,
)
from models_store.jobs.submissions import cancel, replayed, resume, submit
from models_store.listings.filters import ALL, Filters
from models_store.listings.paging import Listing, Page, page_of
from models_store.rows.idempotency import known_resource

_JOB = JobRow.__table__.c
_LISTING = Listing(name="jobs", key=JobRow.position)
_SMALL_BYTES = 2**16  # of a request and its events, of which nobody needs to know more

# Inside the class, `list` is its method.
JobIds = list[str]
Events = list[JobEvent]
EventData = list[dict[str, Any]]


class Jobs:
    """Jobs for callers and for the queue, in the app and in workers."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def submit(
        self,
        new: NewJob,
        *,
        idempotency: Idempotency | None = None,
        max_queued: int | None = None,
        max_bytes: int | None = None,
    ) -> Submitted:
        """Accept a job: its row and its idempotency record in one transaction.

        Args:
            new: Job to add.
            idempotency: Key that makes a repeated request give the first job, for 24 hours.
            max_queued: Most jobs of the project that may wait, this one included.
            max_bytes: Most bytes that the project may store, with what this and its other
                unfinished jobs may come to store.

        Raises:
            NotFoundError: the project has no such dataset or version.
            ConflictError: a dataset has another table than the request was accepted for.
            IdempotencyReusedError: the key came before with another fingerprint.
            LimitError: as many jobs of the project wait already, or it would store too much.
        """
        job = self._database.transact(
            submit,
            new,
            idempotency=idempotency,
            max_queued=max_queued,
            max_bytes=max_bytes,
        )
        if isinstance(job, Job):
            return Submitted(job=job, replayed=False)
        return self._replayed(new.project, job)

    @reading
    def submitted(
        self, session: Session, project: str, idempotency: Idempotency
    ) -> Submitted | None:
        """Return the job that a repeated request gave the first time, whatever became of its data.

        Raises:
            IdempotencyReusedError: the key came before with another fingerprint.
        """
        job_id = known_resource(session, project, idempotency)
        return None if job_id is None else replayed(session, project, job_id)

    @reading
    def _replayed(self, session: Session, project: str, job_id: str) -> Submitted:
        return replayed(session, project, job_id)

    @reading
    def get(self, session: Session, project: str, job_id: str) -> Job:
        """Return a job.

        Raises:
            NotFoundError: the project has no such job.
        """
        row = find(session, project, job_id, full=True)
        return to_job(row, row.request)

    @reading
    def place(self, session: Session, project: str, job_id: str) -> QueuePlace | None:
        """Return the place of a job in the queue; None if it does not wait for a worker.

        Raises:
            NotFoundError: the project has no such job.
        """
        return place_of(session, find(session, project, job_id))

    @reading
    def summary(self, session: Session, project: str, job_id: str) -> JobSummary:
        """Return a job without its large fields.

        Raises:
            NotFoundError: the project has no such job.
        """
        return to_summary(find(session, project, job_id))

    @reading
    def described_bytes(self, session: Session, project: str, job_id: str) -> int:
        """Return the bytes of a job's request, about, without reading it.

        Raises:
            NotFoundError: the project has no such job.
        """
        row = find(session, project, job_id)
        if row.metadata_bytes <= _SMALL_BYTES:
            return row.metadata_bytes
        request = func.length(cast(JobRow.request, Text))  # without those of its events
        size: int = session.scalars(select(request).where(JobRow.id == job_id)).one()
        return size

    def list(  # noqa: PLR0913 - what a list is asked for
        self,
        project: str,
        *,
        limit: int,
        cursor: str | None = None,
        state: JobState | None = None,
        kind: JobKind | None = None,
        model_name: str | None = None,
        filters: Filters = ALL,
        parent_id: str | None = None,
    ) -> Page[JobSummary]:
        """List jobs, newest first, without their requests.

        Args:
            project: Project that owns the jobs.
            limit: Most jobs of the page.
            cursor: Cursor of the page before.
            state: State of the jobs.
            kind: Kind of the jobs.
            model_name: Model that the jobs train or use.
            filters: Filters that all listings share.
            parent_id: Parent of the jobs; None: those that are no children.

        Raises:
            CursorError: the cursor is not one of this listing.
        """
        query = select(JobRow).where(JobRow.project == project)
        if parent_id is None:
            query = query.where(JobRow.role.is_distinct_from(JobRole.CHILD))
        else:
            query = query.where(JobRow.parent_id == parent_id, JobRow.role == JobRole.CHILD)
        if state is not None:
            query = query.where(JobRow.state == state)
        if kind is not None:
            query = query.where(JobRow.kind == kind)
        if model_name is not None:
            query = query.where(JobRow.model_name == model_name)
        with self._database.read() as session:
            query, listing = filters.apply(query, _LISTING)
            rows = page_of(session, query, listing, cursor=cursor, limit=limit)
            return rows.map(to_summary)

    def cancel(self, project: str, job_id: str) -> Job:
        """Cancel a queued job at once; ask a running one to stop.

        Once this returned, the job gives no version any more. A second time changes nothing.

        Raises:
            NotFoundError: the project has no such job.
            JobFinalError: it succeeded or failed.
        """
        request = self.get(project, job_id).request  # it never changes
        return self._database.transact(cancel, project, job_id, request)

    def resume(
        self,
        project: str,
        job_id: str,
        *,
        max_queued: int | None = None,
        max_bytes: int | None = None,
    ) -> Job:
        """Queue a cancelled or failed job again; it continues from its newest checkpoint.

        A parent continues with its children; a child is resumed with its parent alone.

        Args:
            project: Project that owns the job.
            job_id: Id of the job.
            max_queued: Most jobs of the project that may wait, this one included.
            max_bytes: Most bytes that the project may store.

        Raises:
            NotFoundError: the project has no such job, or a dataset or the version of it is gone.
            JobNotResumableError: it is in another state, or a child, or a dataset of it has other types now.
            LimitError: as many jobs of the project wait already, or it would store too much.
        """
        request = self.get(project, job_id).request
        return self._database.transact(
            resume, project, job_id, request, max_queued=max_queued, max_bytes=max_bytes
        )

    @writing
    def delete_result(self, session: Session, project: str, job_id: str) -> JobResult:
        """Remove the result from a job and return it; the caller must delete its file.

        Raises:
            NotFoundError: the project has no such job.
            ResultNotReadyError, ResultDeletedError: it has no file yet, or not any more.
        """
        row = find(session, project, job_id, lock=True)
        result = result_of(to_summary(row))
        row.result = None
        return result

    @writing
    def delete(self, session: Session, project: str, job_id: str) -> JobIds:
        """Delete a job that has ended, with its events and its children.

        Returns:
            Ids of the deleted jobs, whose files are the caller's to delete.

        Raises:
            NotFoundError: the project has no such job.
            JobUnfinishedError: it has not ended.
            JobInUseError: the version that it made exists, or it is a child.
        """
        row = find(session, project, job_id, lock=True)
        if row.state not in FINAL_STATES:
            raise JobUnfinishedError(job_id, state=row.state)
        if row.parent_id is not None:
            raise JobInUseError(job_id, parent_id=row.parent_id)
        version = select(ModelVersionRow.version).where(ModelVersionRow.job_id == job_id)
        number = session.scalar(version)
        if number is not None:
            raise JobInUseError(job_id, ref=f"{row.model_name}:{number}")
        return delete_with_children(session, row)

    def events(
        self,
        project: str,
        job_id: str,
        *,
        after: int = 0,
        limit: int = 1000,
    ) -> Events:
        """Return events with a number above ``after``, oldest first.

        Args:
            project: Project that owns the job.
            job_id: Id of the job.
            after: Number of an event.
            limit: Most events.

        Raises:
            NotFoundError: the project has no such job.
        """
        return self.event_page(project, job_id, after=after, limit=limit).events

    @reading
    def event_page(
        self,
        session: Session,
        project: str,
        job_id: str,
        *,
        after: int = 0,
        limit: int,
        max_bytes: int | None = None,
    ) -> EventSlice:
        """Return events as `events` does, and whether there are more, as of one moment.

        Args:
            session: Transaction, which the decorator begins.
            project: Project that owns the job.
            job_id: Id of the job.
            after: Number of an event.
            limit: Most events.
            max_bytes: Bytes of their data, which the last one may pass.

        Raises:
            NotFoundError: the project has no such job.
        """
        return read_events(session, project, job_id, after=after, limit=limit, max_bytes=max_bytes)

    @reading
    def spread_events(
        self, session: Session, project: str, job_id: str, kind: EventKind, *, most: int
    ) -> EventData:
        """Return the data of events of one kind, oldest first; of many, some that are spread evenly.

        Args:
            session: Transaction, which the decorator begins.
            project: Project that owns the job.
            job_id: Id of the job.
            kind: Kind of the events.
            most: Most events, at least 2; the first and the last one are among them.

        Raises:
            NotFoundError: the project has no such job.
        """
        return read_spread(session, project, job_id, kind, most=most)

    @reading
    def event_places(self, session: Session, job_ids: JobIds) -> Places:
        """Return how far the events of some jobs have come; those that are not there are left out."""
        return read_places(session, job_ids)

    @reading
    def event_news(
        self,
        session: Session,
        known: Mapping[str, int],
        *,
        most: int,
        limit: int,
        max_bytes: int,
    ) -> tuple[Places, News]:
        """Return what `event_places` does, and the next events of the first jobs that have some.

        Args:
            session: Transaction, which the decorator begins.
            known: Ids of jobs, whoever owns them, and of each the number of the last known event.
            most: Most jobs whose events are read.
            limit: Most events of a job.
            max_bytes: Bytes of the data of a job's events, which the last one may pass.
        """
        return read_news(session, known, most=most, limit=limit, max_bytes=max_bytes)

    @reading
    def claimable(self, session: Session, limit: int) -> JobIds:
        """Return ids of jobs that a worker could take up now, in that order: parents come first."""
        found = session.connection().execute(_claimable(), {"most": limit}).all()
        return [row.id for row in sorted(found, key=lambda row: row.rank)][:limit]


@cache
def _claimable() -> CompoundSelect[int, str]:
    jobs = select(JobRow.id).limit(bindparam("most", type_=Integer))
    parts = due_parents(jobs), expired_leases(jobs), queue(jobs)
    named = [part.subquery() for part in parts]
    return union_all(
        *(
            select(literal_column(str(rank), Integer).label("rank"), part.c.id)
            for rank, part in enumerate(named)
        )
    )


def result_of(job: JobSummary) -> JobResult:
    """Return the result file of a job.

    Raises:
        ResultNotReadyError, ResultDeletedError: There is no file yet, or not any more.
    """
    if job.result is not None:
        return job.result
    if job.state is JobState.SUCCEEDED:
        raise ResultDeletedError(job.id)
    raise ResultNotReadyError(job.id, state=job.state)
