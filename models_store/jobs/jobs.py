"""Jobs as callers see them: submit, look, cancel, resume. Workers use `models_store.jobs.leases`."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from sqlalchemy import exists, func, select
from sqlalchemy.orm import Session

from models_store.database.database import Rows, reading, writing
from models_store.database.ids import is_id, new_id
from models_store.database.schema import JobDatasetRow, JobEventRow, JobRow, ModelVersionRow
from models_store.errors import ConflictError, LimitError, NotFoundError
from models_store.job_states import (
    FINAL_STATES,
    RESUMABLE_STATES,
    Accelerator,
    EventKind,
    EventPlace,
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
from models_store.jobs.parents import cancel_children, check_open, end_child, resume_children
from models_store.jobs.queue import Outlook, QueuePlace, outlook, place_of
from models_store.jobs.retention import delete_with_children
from models_store.jobs.rows import (
    add,
    count_files,
    find,
    move,
    requeue,
    tell,
    to_job,
    to_summary,
)
from models_store.listing import ALL, Filters, Listing, Page, page_of
from models_store.quotas import check_storage, hold_project
from models_store.records import Version
from models_store.rows.datasets import pin_dataset
from models_store.rows.idempotency import claim_key, known_resource
from models_store.rows.versions import pin_version

_LISTING = Listing(name="jobs", key=JobRow.position)
_IDS_A_QUERY = 500

# Inside the class, `list` is its method.
JobIds = list[str]
Events = list[JobEvent]
EventData = list[dict[str, Any]]


class Jobs(Rows):
    """Jobs of all projects, for callers.

    Methods raise `NotFoundError` if the project has no such job, dataset or version.
    """

    @writing
    def submit(
        self,
        session: Session,
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
            max_bytes: Most bytes that the project may store.

        Raises:
            ConflictError: a dataset has another table than the request was accepted for.
            ConflictError: the key came before with another fingerprint.
            LimitError: as many jobs of the project wait already, or it would store too much.
        """
        job_id = new_id("job")
        if idempotency is not None:
            first_id = claim_key(session, new.project, idempotency, new_id=job_id)
            if first_id != job_id:
                return _replayed(session, new.project, first_id)
        dataset_ids = {*new.held_out_ids} | ({new.dataset_id} if new.dataset_id else set())
        _pin_inputs(session, new, dataset_ids, tables=new.tables)
        row = JobRow(
            id=job_id,
            project=new.project,
            kind=new.kind,
            model_name=new.model_name,
            model_version=new.model_version,
            dataset_id=new.dataset_id,
            request=new.request,
            role=new.role,
            priority=new.priority,
            accelerator=None if new.accelerator is Accelerator.NONE else new.accelerator,
            memory_bytes=new.memory_bytes,
            estimate_s=new.estimate_s,
            origin={"request_id": new.request_id, "traceparent": new.traceparent},
            description=new.description,
            tags=new.tags,
        )
        add(session, row)
        _check_limits(session, row, max_queued=max_queued, max_bytes=max_bytes)
        session.add_all(
            JobDatasetRow(job_id=job_id, dataset_id=dataset_id, project=new.project)
            for dataset_id in sorted(dataset_ids)
        )
        session.flush()
        return Submitted(job=to_job(row), replayed=False)

    @reading
    def submitted(
        self, session: Session, project: str, idempotency: Idempotency
    ) -> Submitted | None:
        """Return the job that a repeated request gave the first time, whatever became of its data.

        Raises:
            ConflictError: the key came before with another fingerprint.
        """
        job_id = known_resource(session, project, idempotency)
        return None if job_id is None else _replayed(session, project, job_id)

    @reading
    def get(self, session: Session, project: str, job_id: str) -> Job:
        """Return a job."""
        return to_job(find(session, project, job_id))

    @reading
    def unusual(self, session: Session, project: str, job_id: str) -> dict[str, Any] | None:
        """Return the least likely rows that a scoring job has found; None if none were kept."""
        return find(session, project, job_id).unusual

    @reading
    def scored(self, session: Session, version: Version, dataset_id: str) -> str | None:
        """Return the id of the newest job that has scored a dataset by a version; None if there is none."""
        query = select(JobRow.id).where(
            JobRow.project == version.project,
            JobRow.kind == JobKind.SCORING,
            JobRow.state == JobState.SUCCEEDED,
            JobRow.model_name == version.name,
            JobRow.model_version == version.version,
            JobRow.dataset_id == dataset_id,
        )
        return session.scalar(query.order_by(JobRow.position.desc()).limit(1))

    @reading
    def place(self, session: Session, project: str, job_id: str) -> QueuePlace | None:
        """Return the place of a job in the queue; None if it does not wait for a worker."""
        return place_of(session, find(session, project, job_id))

    @reading
    def outlook(self, session: Session) -> Outlook:
        """Return what earlier trainings of all projects, and the queue, tell of the time that a new one takes."""
        return outlook(session)

    @reading
    def summary(self, session: Session, project: str, job_id: str) -> JobSummary:
        """Return a job without its large fields."""
        return to_summary(find(session, project, job_id))

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
            limit: Most jobs of the page.
            filters: Filters that all listings share.
            parent_id: Parent of the jobs; None: those that are no children.

        Raises:
            ConflictError: the cursor is not one of this listing.
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
        with self.database.read() as session:
            query, listing = filters.apply(query, _LISTING)
            rows = page_of(session, query, listing, cursor=cursor, limit=limit)
            return rows.map(to_summary)

    @writing
    def cancel(self, session: Session, project: str, job_id: str) -> Job:
        """Cancel a queued job at once; ask a running one to stop.

        Once this returned, the job gives no version any more. A second time changes nothing.

        Raises:
            ConflictError: `job-final`, if it succeeded or failed.
        """
        row = find(session, project, job_id, lock=True)
        match JobState(row.state):
            case JobState.QUEUED if row.role != JobRole.PARENT:
                row.cancel_requested = True
                move(session, row, JobState.CANCELLED)
                if row.role == JobRole.CHILD:
                    end_child(session, row)
            case JobState.QUEUED | JobState.RUNNING:
                if not row.cancel_requested:
                    row.cancel_requested = True
                    tell(session, row, "Cancellation was requested.")
                if row.role == JobRole.PARENT:
                    cancel_children(session, row)
            case JobState.CANCELLED:
                pass
            case JobState.SUCCEEDED | JobState.FAILED:
                detail = f"Job {job_id} has ended: its state is {row.state}."
                raise ConflictError(detail, slug="job-final")
        session.flush()
        return to_job(row)

    @writing
    def resume(
        self,
        session: Session,
        project: str,
        job_id: str,
        *,
        max_queued: int | None = None,
        max_bytes: int | None = None,
    ) -> Job:
        """Queue a cancelled or failed job again; it continues from its newest checkpoint.

        A parent continues with its children; a child is resumed with its parent alone. Limits are as of `submit`.

        Raises:
            ConflictError: `job-not-resumable`: it is in another state, or a child, or a dataset of it has other types now.
            LimitError: as many jobs of the project wait already, or it would store too much.
        """
        row = find(session, project, job_id, lock=True)
        if row.state not in RESUMABLE_STATES or row.role == JobRole.CHILD:
            detail = f"Job {job_id} is {row.state}; only a cancelled or failed job can be resumed."
            if row.parent_id is not None:
                detail = f"Job {job_id} belongs to job {row.parent_id}; resume that one."
            raise ConflictError(detail, slug="job-not-resumable")
        _pin_again(session, row)
        requeue(session, row)
        if row.role == JobRole.PARENT:
            resume_children(session, row)
        session.flush()
        _check_limits(session, row, max_queued=max_queued, max_bytes=max_bytes)
        return to_job(row)

    @writing
    def delete_result(self, session: Session, project: str, job_id: str) -> JobResult:
        """Remove the result from a job and return it; the caller must delete its file.

        Raises:
            ConflictError: `result-not-ready` or `result-deleted`: it has no file yet, or not any more.
        """
        row = find(session, project, job_id, lock=True)
        result = result_of(to_summary(row))
        row.result = None
        count_files(row)
        return result

    @writing
    def delete(self, session: Session, project: str, job_id: str) -> JobIds:
        """Delete a job that has ended, with its events and its children.

        Returns:
            Ids of the deleted jobs, whose files are the caller's to delete.

        Raises:
            ConflictError: `job-unfinished`; `job-in-use`: the version that it made exists, or it is a child.
        """
        row = find(session, project, job_id, lock=True)
        if row.state not in FINAL_STATES:
            detail = f"Job {job_id} is {row.state}; cancel it first."
            raise ConflictError(detail, slug="job-unfinished")
        if row.parent_id is not None:
            detail = f"Job {job_id} belongs to job {row.parent_id}; delete that one."
            raise ConflictError(detail, slug="job-in-use")
        version = select(ModelVersionRow.version).where(ModelVersionRow.job_id == job_id)
        number = session.scalar(version)
        if number is not None:
            made = f"version {row.model_name}:{number}, which still exists; delete that first"
            raise ConflictError(f"Job {job_id} made {made}.", slug="job-in-use")
        return delete_with_children(session, row)

    def events(self, project: str, job_id: str, *, after: int = 0, limit: int = 1000) -> Events:
        """Return events with a number above ``after``, oldest first."""
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
    ) -> EventSlice:
        """Return events as `events` does, and whether there are more, as of one moment."""
        place = _event_place(session, project, job_id)
        wanted = (
            select(JobEventRow)
            .where(JobEventRow.job_id == job_id, JobEventRow.seq > max(after, 0))
            .order_by(JobEventRow.seq)
            .limit(limit)
        )
        found = session.scalars(wanted) if after < place.last else ()
        events = [JobEvent.of_row(row, event=EventKind(row.event)) for row in found]
        reached = events[-1].seq if events else after
        return EventSlice(events, more=reached < place.last, final=place.final)

    @reading
    def spread_events(
        self, session: Session, project: str, job_id: str, kind: EventKind, *, most: int
    ) -> EventData:
        """Return the data of events of one kind, oldest first; of many, some that are spread evenly.

        There are at least two; the first and the last one are among them.
        """
        _event_place(session, project, job_id)
        seq = JobEventRow.seq
        of_kind = JobEventRow.job_id == job_id, JobEventRow.event == kind
        ends = [
            session.scalar(select(seq).where(*of_kind).order_by(order).limit(1))
            for order in (seq.asc(), seq.desc())
        ]
        first, last = (end or 0 for end in ends)
        chosen = {first + (last - first) * place // (most - 1) for place in range(most)}
        told = select(JobEventRow.data).where(*of_kind, seq.in_(sorted(chosen))).order_by(seq)
        return [*session.scalars(told)]

    @reading
    def event_places(self, session: Session, job_ids: JobIds) -> dict[str, EventPlace]:
        """Return how far the events of some jobs have come; those that are not there are left out."""
        places = {}
        query = select(JobRow.id, JobRow.state, JobRow.last_event)
        for start in range(0, len(job_ids), _IDS_A_QUERY):
            some = job_ids[start : start + _IDS_A_QUERY]
            for row in session.execute(query.where(JobRow.id.in_(some))):
                places[row.id] = EventPlace(row.last_event, row.state in FINAL_STATES)
        return places


def _event_place(session: Session, project: str, job_id: str) -> EventPlace:
    """Return how far the events of a job of a project have come."""
    # Not the whole row: it has the request, of megabytes perhaps.
    query = select(JobRow.state, JobRow.last_event)
    query = query.where(JobRow.id == job_id, JobRow.project == project)
    row = session.execute(query).one_or_none() if is_id(job_id, "job") else None
    if row is None:
        raise NotFoundError("job", job_id)
    return EventPlace(row.last_event, row.state in FINAL_STATES)


def result_of(job: JobSummary) -> JobResult:
    """Return the result file of a job.

    Raises:
        ConflictError: `result-not-ready` or `result-deleted`: there is no file yet, or not any more.
    """
    if job.result is not None:
        return job.result
    if job.state is JobState.SUCCEEDED:
        detail = f"The result of job {job.id} was deleted. The same request makes it again."
        raise ConflictError(detail, slug="result-deleted")
    raise ConflictError(f"Job {job.id} is {job.state} and has no result.", slug="result-not-ready")


def _replayed(session: Session, project: str, job_id: str) -> Submitted:
    """Return the job as an earlier request with the same key was answered: the repeated one gets that again."""
    job = to_job(find(session, project, job_id))
    accepted = replace(
        job,
        state=JobState.QUEUED,
        attempt=0,
        model_version=None if job.kind.makes_version else job.model_version,
        progress=None,
        metrics=None,
        result=None,
        error=None,
        checkpoints=[],
        cancel_requested=False,
        started_at=None,
        finished_at=None,
        lease_expires_at=None,
        not_before=None,
        run_seconds=0.0,
        last_event=1,
    )
    return Submitted(job=accepted, replayed=True)


def _pin_again(session: Session, row: JobRow) -> None:
    """Pin what a job reads that is to continue, unless a dataset has another table now."""
    reads = select(JobDatasetRow).where(JobDatasetRow.job_id == row.id)
    _pin_inputs(session, row, [one.dataset_id for one in session.scalars(reads)])
    # Read after the pin, which may have waited for a change of types.
    if session.scalar(select(exists(reads.where(JobDatasetRow.retyped).subquery()))):
        detail = f"The types of a dataset of job {row.id} were changed since; start a new job."
        raise ConflictError(detail, slug="job-not-resumable")


def _pin_inputs(
    session: Session,
    job: NewJob | JobRow,
    dataset_ids: Iterable[str],
    *,
    tables: Mapping[str, str] = MappingProxyType({}),
) -> None:
    """Keep what a job reads from being deleted until this transaction, which queues it, has ended.

    Raises:
        NotFoundError: the project has no such dataset or version.
        ConflictError: a dataset has another table than `tables` has under its id.
    """
    for dataset_id in sorted(dataset_ids):
        pin_dataset(session, job.project, dataset_id, table=tables.get(dataset_id))
    if job.model_version is not None:
        pin_version(session, job.project, job.model_name, job.model_version)


def _check_limits(
    session: Session, row: JobRow, *, max_queued: int | None, max_bytes: int | None
) -> None:
    """Refuse the job that was queued if it exceeds a limit of its project; as `Jobs.submit`."""
    own = hold_project(session, row.project).max_queued_jobs  # so that no two count the same jobs
    if row.role == JobRole.PARENT:
        check_open(session, row.project)
    if max_queued is not None:
        max_queued = max_queued if own is None else own
        mine = JobRow.project == row.project, JobRow.role.is_distinct_from(JobRole.CHILD)
        waiting = select(func.count()).where(*mine, JobRow.state == JobState.QUEUED)
        if (session.scalar(waiting) or 0) > max_queued:
            raise LimitError(
                "limit-queued-jobs", f"{max_queued} jobs wait already; try again later."
            )
    if max_bytes is not None:
        check_storage(session, row.project, max_bytes)
