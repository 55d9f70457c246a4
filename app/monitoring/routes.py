"""Route of the rows that a version scored."""

from datetime import UTC, datetime, timedelta
from functools import reduce
from typing import Annotated, Literal

from fastapi import APIRouter, Query
from pydantic import AwareDatetime

from app.dependencies import ProjectDep, StateDep
from app.engine.held_out_rows import HeldOutRows
from app.engine.monitor import held_out_counts
from app.limits import FairRoute, in_thread
from app.monitoring.views import MonitoringView, RankBucketView, column_view, counts_members
from app.problems.problem import FieldError, Problem, problem_responses
from app.scoring.routes import Ref
from app.state import AppState
from models_store.counts import Counts, added
from models_store.records import Version

Bucket = Literal["hour", "day"]
_WEEK = timedelta(days=7)

router = APIRouter(prefix="/v1/models", tags=["models"], route_class=FairRoute)


@router.get(
    "/{ref}/monitoring",
    operation_id="get_monitoring",
    summary="Watch the rows that a version scores",
    responses=problem_responses("not-found", "score-unavailable"),
)
async def get_monitoring(
    ref: Ref,
    project: ProjectDep,
    state: StateDep,
    since: Annotated[
        AwareDatetime | None,
        Query(
            description="Time that lies in the first hour or day; the default is seven days before `until`."
        ),
    ] = None,
    until: Annotated[
        AwareDatetime | None,
        Query(description="Time before which the last one begins; the default is now."),
    ] = None,
    bucket: Annotated[Bucket, Query(description="Length of the buckets, in UTC.")] = "day",
) -> MonitoringView:
    """Count the rows that a version scored, by their ranks, and tell whether they have drifted.

    `score`, `log_prob` and scoring jobs are counted, by the hour, for 90 days; no rows are kept. Rows have
    drifted if their ranks differ from those of held-out rows, or the values of a column from those of
    the version's dataset, by more than chance explains: undrifted rows are hardly ever said to have
    drifted, once in a thousand looks. Counts of other processes of the service come a minute later.
    """
    version = await state.models.resolve(project, ref)
    HeldOutRows.of(version)
    until = datetime.now(UTC) if until is None else until.astimezone(UTC)
    since = _start(until - _WEEK if since is None else since.astimezone(UTC), bucket)
    if since >= until:
        error = FieldError("It must be later than `since`.", parameter="until")
        raise Problem("validation", errors=[error])
    await state.monitor.flush()
    return await in_thread(_view, state, version, since, until, bucket)


def _view(
    state: AppState, version: Version, since: datetime, until: datetime, bucket: Bucket
) -> MonitoringView:
    hours = state.monitoring.of_version(
        version.project, version.name, version.version, since=since, until=until
    )
    buckets: dict[datetime, Counts] = {}
    for hour, counts in hours.items():
        start = _start(hour, bucket)
        buckets[start] = added(buckets.get(start, {}), counts)
    whole: Counts = reduce(added, buckets.values(), {})
    held_out, bins = HeldOutRows.of(version), state.monitor.bins(version)
    drift = state.monitor.drift(version, whole) if whole else None
    expected = held_out_counts(held_out)
    columns = [] if drift is None or bins is None else drift.columns.items()
    views = []
    for start, counts in buckets.items():
        own = state.monitor.drift(version, counts)
        members = counts_members(counts, own)
        views.append(RankBucketView(start=start, drifted_columns=own.drifted, **members))
    return MonitoringView(
        model=version.ref,
        since=since,
        until=until,
        expected=[count / held_out.rows for count in expected],
        columns=[
            column_view(
                name,
                at,
                drifted=drift is not None and name in drift.drifted,
                counts=whole["columns"][name],
                reference=bins.reference[name] if bins is not None else [],
            )
            for name, at in sorted(columns, key=lambda item: -item[1].statistic)
        ],
        buckets=views,
        **held_out.members,
        **counts_members(whole, drift),
    )


def _start(time: datetime, bucket: Bucket) -> datetime:
    """Return the begin of the hour or day that a time lies in."""
    hour = time.replace(minute=0, second=0, microsecond=0)
    return hour if bucket == "hour" else hour.replace(hour=0)
