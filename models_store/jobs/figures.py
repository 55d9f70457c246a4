"""Figures of jobs, workers, projects, webhooks and back-ups for metrics, read from their rows."""

from dataclasses import dataclass, field
from datetime import datetime

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from models_store.database.clock import db_now
from models_store.database.database import Database, reading
from models_store.database.schema import (
    JobRow,
    ProjectRow,
    StoreRow,
    WebhookDeliveryRow,
    WebhookRow,
    WorkerRow,
)
from models_store.job_states import UNFINISHED_STATES, Accelerator, JobState
from models_store.jobs.live_workers import LIVE_S
from models_store.quotas import stored_by_project

RECENT_S = 3600.0
"""Seconds after its end for which a job counts as ended lately."""

_MOST = 10_000
_MOST_PROJECTS = 100
_FAILING_ATTEMPTS = 3
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
        failed: Number of the jobs that failed lately, by the code of the reason.
        deliveries: Number of webhook deliveries that are `failing`, to be tried again after three attempts,
            and `given_up` in the last hour.
        webhooks_disabled: Number of webhooks that were disabled.
        backed_up_at: End of the last back-up; None if there was none.
        workers: Number of workers by what they have (`gpu` or `cpu`) and whether they take jobs.
    """

    unfinished: dict[tuple[str, str, str], int] = field(default_factory=dict)
    oldest_s: dict[str, float] = field(default_factory=dict)
    expired: int = 0
    rows_per_second: dict[str, float] = field(default_factory=dict)
    ended: dict[tuple[str, str], Ended] = field(default_factory=dict)
    failed: dict[str, int] = field(default_factory=dict)
    workers: dict[tuple[str, bool], int] = field(default_factory=dict)
    deliveries: dict[str, int] = field(default_factory=dict)
    webhooks_disabled: int = 0
    backed_up_at: datetime | None = None


@dataclass(frozen=True, kw_only=True)
class Stored:
    """Bytes of a project's files, and how many it may have; None: as many as the settings say."""

    bytes: int
    max_bytes: int | None


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
        _look_at_webhooks(session, figures)
        figures.backed_up_at = session.scalar(select(StoreRow.backed_up_at))
        return figures

    @reading
    def stored(self, session: Session) -> dict[str, Stored]:
        """Return what the projects with the most bytes store, at most a hundred.

        Raises:
            DatabaseError: The database cannot be read.
        """
        sums = stored_by_project(session)
        most = sorted(sums, key=lambda project: sums[project], reverse=True)[:_MOST_PROJECTS]
        limits = select(ProjectRow.name, ProjectRow.max_bytes).where(ProjectRow.name.in_(most))
        own = {row.name: row.max_bytes for row in session.execute(limits)}
        return {name: Stored(bytes=sums[name], max_bytes=own.get(name)) for name in most}


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
    columns = (
        JobRow.created_at,
        JobRow.started_at,
        JobRow.run_seconds,
        JobRow.attempt,
        JobRow.error,
    )
    query = (
        select(JobRow.state, JobRow.kind, *columns)
        .where(JobRow.finished_at > db_now(-RECENT_S))
        .order_by(JobRow.finished_at.desc())
        .limit(_MOST)
    )
    for state, kind, created, started, run_s, attempts, error in session.execute(query):
        if state == JobState.FAILED and error is not None:
            code = str(error.get("code"))
            figures.failed[code] = figures.failed.get(code, 0) + 1
        ended = figures.ended.setdefault((state, kind), Ended())
        ended.jobs += 1
        ended.attempts += attempts
        ended.run_seconds += run_s
        if started is not None:
            ended.wait_seconds += max(0.0, (started - created).total_seconds())


def _look_at_webhooks(session: Session, figures: Figures) -> None:
    failing = (
        WebhookDeliveryRow.ended_at.is_(None),
        WebhookDeliveryRow.attempts >= _FAILING_ATTEMPTS,
    )
    given_up = (
        WebhookDeliveryRow.ended_at > db_now(-RECENT_S),
        WebhookDeliveryRow.delivered.is_(False),
    )
    for name, condition in (("failing", failing), ("given_up", given_up)):
        number = select(func.count()).select_from(WebhookDeliveryRow).where(*condition)
        figures.deliveries[name] = session.scalar(number) or 0
    disabled = select(func.count()).select_from(WebhookRow)
    figures.webhooks_disabled = (
        session.scalar(disabled.where(WebhookRow.disabled_at.is_not(None))) or 0
    )
