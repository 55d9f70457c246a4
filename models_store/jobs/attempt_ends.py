"""Ends of attempts inside a transaction: with a result, back to the queue, or as a failure of the job."""

from collections.abc import Callable, Mapping
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from models_store.database.base import JsonObject
from models_store.database.clock import moment
from models_store.database.schema import JobRow
from models_store.database.usage import json_bytes
from models_store.errors import FencedError
from models_store.job_states import EventKind, JobResult, JobState
from models_store.jobs.held_jobs import HeldJob, held
from models_store.jobs.live_workers import in_service
from models_store.jobs.retries import AttemptEnd, Failure, account_of, verdict, wait_s
from models_store.jobs.rows import append, fail, move, storable
from models_store.records import NewVersion, Version
from models_store.rows.versions import add_version


def finish(
    session: Session,
    job_id: str,
    attempt: int,
    metrics: dict[str, Any],
    new: NewVersion,
    columns: Mapping[str, Any],
) -> tuple[bool, Version | None]:
    """Succeed with a version, or be cancelled where that was asked for before.

    Args:
        session: Transaction to write in.
        job_id: Id of the job.
        attempt: Attempt that claimed it.
        metrics: Metrics of the job.
        new: Version to register.
        columns: Columns of the version, the fields of the version.

    Returns:
        Whether the job succeeded, and the version that this made; none when it is repeated.

    Raises:
        FencedError: The job is not this attempt's any more.
    """
    made: list[Version] = []

    def register(row: HeldJob) -> None:
        labelled = {**columns, "description": row.description, "tags": row.tags}
        version = add_version(
            session, new, labelled, project=row.project, name=row.model_name, job_id=job_id
        )
        row.model_version = version.version
        made.append(version)

    succeeded = _succeed(session, job_id, attempt, metrics, register)
    return succeeded, made[0] if made else None


def finish_bulk(
    session: Session, job_id: str, attempt: int, metrics: dict[str, Any], result: JobResult
) -> bool:
    """Succeed with a file, or be cancelled, as `finish`; return whether it succeeded."""

    def record(row: HeldJob) -> None:
        row.result = dict(result)
        if row.progress is not None:  # the last report is of a moment before the end
            row.progress = {**row.progress, "fraction": 1.0, "eta_seconds": 0.0}

    return _succeed(session, job_id, attempt, metrics, record)


def finish_child(
    session: Session,
    job_id: str,
    attempt: int,
    metrics: dict[str, Any],
    product: JsonObject | None,
    file_bytes: int,
) -> bool:
    """Succeed with what the parent uses, or be cancelled, as `finish`; return whether it succeeded."""

    def record(row: HeldJob) -> None:
        row.product = product
        row.product_bytes = json_bytes(product) + file_bytes

    return _succeed(session, job_id, attempt, metrics, record)


def _succeed(
    session: Session,
    job_id: str,
    attempt: int,
    metrics: dict[str, Any],
    record: Callable[[HeldJob], None],
) -> bool:
    """Record what an attempt has made and end its job; return False if it is cancelled instead.

    Repeated by the attempt that did so, this changes nothing: what was made may have been deleted
    since, or be the parent's by now.
    """
    try:
        with held(session, job_id, attempt) as row:
            if row.cancel_requested:
                move(session, row, JobState.CANCELLED)
                return False
            record(row)
            row.metrics = metrics
            row.checkpoints = []
            move(session, row, JobState.SUCCEEDED)
            return True
    except FencedError:
        state = select(JobRow.state).where(JobRow.id == job_id, JobRow.attempt == attempt)
        if session.scalar(state) != JobState.SUCCEEDED:
            raise
        return True


def end_attempt(
    session: Session,
    row: JobRow | HeldJob,
    failed: AttemptEnd | None,
    *,
    gives_way: bool = False,
) -> None:
    """Queue, fail or cancel a locked, running job whose attempt has ended, and record the reason.

    Args:
        session: Transaction that holds the lock.
        row: Row of the job.
        failed: Failure of the attempt; None: its worker was asked to stop, or the job gives way.
        gives_way: True if the job makes room for one of another project.
    """
    if row.cancel_requested:
        move(session, row, JobState.CANCELLED)
    elif failed is None and gives_way:
        outlook = "It continues when its project has its next turn."
        _tell(session, row, "a job of another project was waiting", outlook=outlook)
        move(session, row, JobState.QUEUED)
    elif failed is None:
        _tell(session, row, "it was asked to stop", outlook="It continues at once.")
        move(session, row, JobState.QUEUED)
    else:
        _count(session, row, failed)


def _count(session: Session, row: JobRow | HeldJob, failed: AttemptEnd) -> None:
    failure = _failure(row, failed)
    failures = [*(Failure(**one) for one in row.failures), failure]  # type: ignore[typeddict-item]  # written as one
    # A new list: a change inside the old one would not be stored.
    row.failures = [*row.failures, dict(failure)]
    working = in_service(session)
    error = verdict(failures, in_service=working)
    if error is not None:
        _tell(session, row, failed.detail, outlook="That was once too often.")
        fail(session, row, code=error["code"], detail=error["detail"])
        return
    pause_s = wait_s(failures)
    when = f"in {pause_s:g} s" if pause_s else "at once"
    _tell(session, row, failed.detail, outlook=f"It is tried again {when}{_starting_at(row)}.")
    move(session, row, JobState.QUEUED)
    if pause_s:
        row.not_before = moment(session, later_s=pause_s)
        row.failed_on = failure["worker"] if working - {failure["worker"]} else None


def _starting_at(row: JobRow | HeldJob) -> str:
    """Return where the next attempt begins, if there was progress: it may be behind what was told."""
    if row.progress is None:
        return ""
    if not row.checkpoints:
        return ", from the beginning"
    return ", from its last checkpoint; what came after that is done again"


def _failure(row: JobRow | HeldJob, failed: AttemptEnd) -> Failure:
    return Failure(
        attempt=row.attempt, worker=row.worker or "", ending=failed.ending.value, code=failed.code
    )


def _tell(session: Session, row: JobRow | HeldJob, detail: str, *, outlook: str) -> None:
    fraction = None if row.progress is None else row.progress.get("fraction")
    text = account_of(row.attempt, row.worker, detail, fraction=fraction, outlook=outlook)
    append(session, row, EventKind.MESSAGE, {"text": storable(text)})
