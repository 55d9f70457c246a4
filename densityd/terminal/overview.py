"""The overview of a project that ``densityd top`` draws: its jobs and models."""

from collections.abc import Iterable
from datetime import UTC, datetime
from itertools import islice
from typing import TYPE_CHECKING

from rich.console import Group
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from densityd.terminal.console import make_printable

if TYPE_CHECKING:
    from densityd.client import Client, JobSummary, Model

_ENDED = ("succeeded", "failed", "cancelled")
_STYLES = {"running": "cyan", "succeeded": "green", "failed": "red", "cancelled": "yellow"}
_BAR_WIDTH = 16
_MOST_ROWS = 12
_MINUTE_S, _HOUR_S, _DAY_S = 60, 3600, 86_400


def draw_overview(client: "Client") -> Group:
    """Return the unfinished jobs, the latest that ended, and the newest models."""
    jobs = list(islice(client.jobs.list(), 100))
    unfinished = [job for job in jobs if not job.final]
    ended = [job for job in jobs if job.final][: _MOST_ROWS // 2]
    models = list(islice(client.models.list(), _MOST_ROWS))
    counts = client.usage().jobs
    summary = "  ".join(
        f"{counts.get(state, 0)} {state}" for state in ("running", "queued", *_ENDED)
    )
    return Group(
        Text(f"jobs of project {client.me().project}: {summary}", style="bold"),
        _jobs([*unfinished[:_MOST_ROWS], *ended]),
        Text(""),
        _models(models),
    )


def _jobs(jobs: "Iterable[JobSummary]") -> Table:
    table = _table("KIND", "STATE", "MODEL", "PROGRESS", "LEFT", "CREATED", "JOB")
    for job in jobs:
        progress = None if job.final else job.progress
        table.add_row(
            job.kind,
            Text(job.state, style=_STYLES.get(job.state, "")),
            make_printable(job.ref or job.model.name or ""),
            ProgressBar(completed=100 * progress.fraction, width=_BAR_WIDTH) if progress else "",
            _duration(progress.eta_seconds) if progress and progress.eta_seconds else "",
            _age(job.created_at),
            Text(job.id, no_wrap=True, overflow="ellipsis"),
        )
    return table


def _models(models: "Iterable[Model]") -> Table:
    table = _table("MODEL", "NEWEST", "ALIASES", "NATS A ROW", "CREATED")
    for model in models:
        metrics = {} if model.latest is None else model.latest.metrics
        likelihood = metrics.get("best_robust_validation_log_likelihood")
        aliases = ", ".join(f"{alias} {version}" for alias, version in model.aliases.items())
        table.add_row(
            model.name,
            str(model.latest_version),
            make_printable(aliases),
            f"{likelihood:.3f}" if isinstance(likelihood, float) else "",
            _age(model.created_at),
        )
    return table


def _table(*header: str) -> Table:
    table = Table(*header, box=None, pad_edge=False, header_style="dim")
    for column in table.columns:
        column.no_wrap = column.header != "JOB"  # which a narrow terminal shortens first
    return table


def _age(moment: datetime) -> str:
    return f"{_duration((datetime.now(UTC) - moment).total_seconds())} ago"


def _duration(seconds: float) -> str:
    """Return a duration in its largest unit, such as `4 min`."""
    for length, unit in ((_DAY_S, "d"), (_HOUR_S, "h"), (_MINUTE_S, "min")):
        if seconds >= length:
            return f"{seconds / length:.0f} {unit}"
    return f"{max(seconds, 0):.0f} s"
