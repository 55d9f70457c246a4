"""Figures of jobs, workers, projects, webhooks and back-ups for metrics, read from their rows."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from models_store.database.clock import db_now
from models_store.database.database import Rows, reading
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


@dataclass(frozen=True)
class Figure:
    """Metric of a moment: its name behind ``densityd_``, its help, and its values by tuples of those of its labels."""

    name: str
    text: str
    labels: tuple[str, ...]
    values: Mapping[Any, float]


class JobFigures(Rows):
    """Figures of all projects."""

    @reading
    def read(self, session: Session) -> list[Figure]:
        """Return the figures of now, in time that does not depend on how many jobs there ever were.

        Raises:
            DatabaseError: The database cannot be read.
        """
        now = session.scalars(select(db_now())).one()
        return [
            *_unfinished(session, now),
            *_running(session, now),
            *_ended(session),
            _workers(session),
            *_webhooks(session),
            *_backup(session),
        ]

    @reading
    def stored(self, session: Session, *, max_bytes: int) -> list[Figure]:
        """Return what the projects store that store most; it adds up the sizes of all files.

        Args:
            max_bytes: Bytes that a project may store that has no limit of its own.
        """
        sums = stored_by_project(session)
        most = sorted(sums, key=lambda project: sums[project], reverse=True)[:_MOST_PROJECTS]
        limits = select(ProjectRow.name, ProjectRow.max_bytes).where(ProjectRow.name.in_(most))
        own = {name: limit for name, limit in session.execute(limits) if limit is not None}
        return [
            Figure(
                "project_stored_bytes",
                "Bytes of the files of the hundred largest projects.",
                ("project",),
                {(name,): sums[name] for name in most},
            ),
            Figure(
                "project_max_bytes",
                "Bytes that these projects may store.",
                ("project",),
                {(name,): own.get(name, max_bytes) for name in most},
            ),
        ]


def _unfinished(session: Session, now: datetime) -> Iterator[Figure]:
    query = (
        select(JobRow.state, JobRow.kind, _WANTED, func.count(), func.min(JobRow.queued_at))
        .where(JobRow.state.in_(UNFINISHED_STATES))
        .group_by(JobRow.state, JobRow.kind, _WANTED)
    )
    counts: dict[tuple[str, ...], float] = {}
    oldest_s: dict[tuple[str, ...], float] = {}
    for state, kind, wanted, count, oldest in session.execute(query):
        counts[state, kind, wanted] = count
        if state == JobState.QUEUED:
            age_s = max(0.0, (now - oldest).total_seconds())
            oldest_s[wanted,] = max(age_s, oldest_s.get((wanted,), 0.0))
    yield Figure("jobs", "Jobs that wait or run.", ("state", "kind", "accelerator"), counts)
    yield Figure(
        "jobs_oldest_waiting_seconds",
        "Age of the oldest job that waits.",
        ("accelerator",),
        oldest_s,
    )


def _running(session: Session, now: datetime) -> Iterator[Figure]:
    query = select(JobRow.kind, JobRow.lease_expires_at, JobRow.metrics)
    expired, rates = 0, defaultdict[tuple[str], float](float)
    for kind, lease, metrics in session.execute(
        query.where(JobRow.state == JobState.RUNNING).limit(_MOST)
    ):
        expired += lease is not None and lease <= now
        rate = (metrics or {}).get("rows_per_second")
        if isinstance(rate, int | float):
            rates[kind,] += rate
    yield Figure("jobs_lease_expired", "Running jobs whose worker went silent.", (), {(): expired})
    yield Figure(
        "jobs_rows_per_second", "Rows that running jobs compute in a second.", ("kind",), rates
    )


def _ended(session: Session) -> Iterator[Figure]:
    columns = JobRow.created_at, JobRow.started_at, JobRow.run_seconds, JobRow.attempt, JobRow.error
    query = (
        select(JobRow.state, JobRow.kind, *columns)
        .where(JobRow.finished_at > db_now(-RECENT_S))
        .order_by(JobRow.finished_at.desc())
        .limit(_MOST)
    )
    failed = Counter[tuple[str, ...]]()
    sums: dict[tuple[str, ...], tuple[float, ...]] = {}
    for state, kind, created, started, run_s, attempts, error in session.execute(query):
        if state == JobState.FAILED and error is not None:
            failed[str(error.get("code")),] += 1
        wait_s = 0.0 if started is None else max(0.0, (started - created).total_seconds())
        one, known = (1, attempts, wait_s, run_s), sums.get((state, kind), (0, 0, 0, 0))
        sums[state, kind] = tuple(map(sum, zip(known, one, strict=True)))
    for place, (name, text) in enumerate(
        (
            ("jobs", "Jobs that ended in the last hour."),
            ("attempts", "Attempts of the jobs that ended in the last hour."),
            (
                "wait_seconds",
                "Time that the jobs which ended in the last hour had waited for a worker.",
            ),
            ("run_seconds", "Time that the jobs which ended in the last hour had run for."),
        )
    ):
        values = {key: of_it[place] for key, of_it in sums.items()}
        yield Figure(f"jobs_ended_{name}", text, ("state", "kind"), values)
    yield Figure(
        "jobs_failed", "Jobs that failed in the last hour, by the reason.", ("code",), failed
    )


def _workers(session: Session) -> Figure:
    alive = select(WorkerRow.accelerator, WorkerRow.unfit).where(
        WorkerRow.seen_at > db_now(-LIVE_S)
    )
    counts = Counter[tuple[str, ...]](
        ("gpu" if accelerator else "cpu", str(unfit is None).lower())
        for accelerator, unfit in session.execute(alive)
    )
    text = "Workers that gave a sign of life in the last minute."
    return Figure("workers", text, ("device", "takes_jobs"), counts)


def _webhooks(session: Session) -> Iterator[Figure]:
    failing = (
        WebhookDeliveryRow.ended_at.is_(None),
        WebhookDeliveryRow.attempts >= _FAILING_ATTEMPTS,
    )
    given_up = (
        WebhookDeliveryRow.ended_at > db_now(-RECENT_S),
        WebhookDeliveryRow.delivered.is_(False),
    )
    number = select(func.count()).select_from(WebhookDeliveryRow)
    counts = {
        (name,): session.scalar(number.where(*condition)) or 0
        for name, condition in (("failing", failing), ("given_up", given_up))
    }
    yield Figure(
        "webhook_deliveries",
        "Deliveries that three attempts failed at, and those given up in the last hour.",
        ("state",),
        counts,
    )
    disabled = select(func.count()).where(WebhookRow.disabled_at.is_not(None))
    yield Figure("webhooks_disabled", "Disabled webhooks.", (), {(): session.scalar(disabled) or 0})


def _backup(session: Session) -> Iterator[Figure]:
    ended_at = session.scalar(select(StoreRow.backed_up_at))
    if ended_at is not None:
        text = "End of the last back-up that lacked nothing, in seconds since 1970."
        yield Figure("backup_timestamp_seconds", text, (), {(): ended_at.timestamp()})
