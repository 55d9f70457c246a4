"""Figures of jobs and workers for metrics, read from their rows."""

from dataclasses import dataclass, field
from datetime import datetime

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from models_store.database.clock import db_now
from models_store.database.database import Database, reading
from models_store.database.schema import JobRow, WorkerRow
from models_store.job_states import UNFINISHED_STATES, Accelerator, JobState
from models_store.jobs.live_workers import LIVE_S

RECENT_S = 3600.0
"""Seconds after its end for which a job counts as ended lately."""

_MOST = 10_000
_WANTED = func.coalesce(JobRow.accelerator, Accelerator.NONE.value)


@dataclass
class Ended:
    """Jobs of a kind and a state that ended lately.

    Attributes:
        jobs: Number of jobs.
        attempts: Total number of attempts.
        wait_seconds: Sum of the seconds from submission to the first start.
        run_seconds: Sum of the seconds of running.
    """

    jobs: int = 0
    attempts: int = 0
    wait_seconds: float = 0.0
    run_seconds: float = 0.0


@dataclass(kw_only=True)
class Figures:
    """Figures of a moment.

    Attributes:
        unfinished: Number of jobs by state, kind and wanted accelerator.
        oldest_s: Age in seconds of the oldest job that waits, by wanted accelerator.
        expired: Number of running jobs whose worker went silent.
        rows_per_second: Rows a second of the running jobs, by kind.
        ended: Jobs that ended lately, by state and kind.
        workers: Number of workers by what they have (`gpu` or `cpu`) and whether they take jobs.
    """

    unfinished: dict[tuple[str, str, str], int] = field(default_factory=dict)
    oldest_s: dict[str, float] = field(default_factory=dict)
    expired: int = 0
    rows_per_second: dict[str, float] = field(default_factory=dict)
    ended: dict[tuple[str, str], Ended] = field(default_factory=dict)
    workers: dict[tuple[str, bool], int] = field(default_factory=dict)


class JobFigures:
    """Reader of the figures of all projects."""

    def __init__(self, database: Database) -> None:
        self._database = database

    @reading
    def read(self, session: Session) -> Figures:
        """Return the figures of this moment; jobs that ended long ago are not looked at.

        Raises:
            DatabaseError: The database cannot be read.
        """
        now = session.scalars(select(db_now())).one()
        figures = Figures()
        _count_unfinished(session, figures, now)
        _look_at_running(session, figures, now)
        _count_ended(session, figures)
        for accelerator, unfit in session.execute(
            select(WorkerRow.accelerator, WorkerRow.unfit).where(
                WorkerRow.seen_at > db_now(-LIVE_S)
            )
        ):
            key = ("gpu" if accelerator else "cpu", unfit is None)
            figures.workers[key] = figures.workers.get(key, 0) + 1
        return figures


def _count_unfinished(session: Session, figures: Figures, now: datetime) -> None:
    query = (
        select(JobRow.state, JobRow.kind, _WANTED, func.count(), func.min(JobRow.queued_at))
        .where(JobRow.state.in_(UNFINISHED_STATES))
        .group_by(JobRow.state, JobRow.kind, _WANTED)
    )
    for state, kind, wanted, count, oldest in session.execute(query):
        figures.unfinished[state, kind, wanted] = count
        if state == JobState.QUEUED:
            age_s = max(0.0, (now - oldest).total_seconds())
            figures.oldest_s[wanted] = max(age_s, figures.oldest_s.get(wanted, 0.0))


def _look_at_running(session: Session, figures: Figures, now: datetime) -> None:
    query = select(JobRow.kind, JobRow.lease_expires_at, JobRow.metrics)
    for kind, lease, metrics in session.execute(
        query.where(JobRow.state == JobState.RUNNING).limit(_MOST)
    ):
        figures.expired += lease is not None and lease <= now
        rate = (metrics or {}).get("rows_per_second")
        if isinstance(rate, int | float):
            figures.rows_per_second[kind] = figures.rows_per_second.get(kind, 0.0) + rate


def _count_ended(session: Session, figures: Figures) -> None:
    columns = (JobRow.created_at, JobRow.started_at, JobRow.run_seconds, JobRow.attempt)
    query = (
        select(JobRow.state, JobRow.kind, *columns)
        .where(JobRow.finished_at > db_now(-RECENT_S))
        .order_by(JobRow.finished_at.desc())
        .limit(_MOST)
    )
    for state, kind, created, started, run_s, attempts in session.execute(query):
        ended = figures.ended.setdefault((state, kind), Ended())
        ended.jobs += 1
        ended.attempts += attempts
        ended.run_seconds += run_s
        if started is not None:
            ended.wait_seconds += max(0.0, (started - created).total_seconds())
