"""Ends of attempts without a result, inside a transaction: back to the queue, or the job's end."""

from sqlalchemy.orm import Session

from models_store.database.clock import moment
from models_store.database.schema import JobRow
from models_store.job_states import EventKind, JobState
from models_store.jobs.live_workers import in_service
from models_store.jobs.retries import AttemptEnd, Failure, account_of, verdict, wait_s
from models_store.jobs.rows import append, fail, move, storable


def end_attempt(session: Session, row: JobRow, failed: AttemptEnd | None) -> None:
    """Queue, fail or cancel a locked, running job whose attempt has ended, and record the reason.

    Args:
        session: Transaction that holds the lock.
        row: Row of the job.
        failed: Failure of the attempt; None: its worker was asked to stop.
    """
    if row.cancel_requested:
        move(session, row, JobState.CANCELLED)
    elif failed is None:
        _tell(session, row, "it was asked to stop", outlook="It continues at once.")
        move(session, row, JobState.QUEUED)
    else:
        _count(session, row, failed)


def _count(session: Session, row: JobRow, failed: AttemptEnd) -> None:
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
    _tell(session, row, failed.detail, outlook=f"It is tried again {when}.")
    move(session, row, JobState.QUEUED)
    if pause_s:
        row.not_before = moment(session, later_s=pause_s)
        row.failed_on = failure["worker"] if working - {failure["worker"]} else None


def _failure(row: JobRow, failed: AttemptEnd) -> Failure:
    return Failure(
        attempt=row.attempt, worker=row.worker or "", ending=failed.ending.value, code=failed.code
    )


def _tell(session: Session, row: JobRow, detail: str, *, outlook: str) -> None:
    fraction = None if row.progress is None else row.progress.get("fraction")
    text = account_of(row.attempt, row.worker, detail, fraction=fraction, outlook=outlook)
    append(session, row, EventKind.MESSAGE, {"text": storable(text)})
