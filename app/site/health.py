"""Signs of life: is the process alive, can it serve, how has it been."""

from typing import Literal

from fastapi import APIRouter, Response

from app.datasets.views import Check, Liveness, Readiness
from app.dependencies import StateDep
from app.metrics import METRICS_MEDIA_TYPE
from app.server.readiness import Finding, Level

router = APIRouter(tags=["operations"])

_NO_BROKER = "The broker cannot be reached; jobs are accepted and wait."
_STATUSES: dict[Level, Literal["ok", "degraded", "unavailable"]] = {
    Level.OK: "ok",
    Level.DEGRADED: "degraded",
    Level.UNUSABLE: "unavailable",
}


@router.get(
    "/livez",
    operation_id="get_liveness",
    summary="Is the process alive?",
    response_description="It is.",
)
async def get_liveness() -> Liveness:
    """Answers as long as the process runs its event loop; looks at nothing else."""
    return Liveness()


@router.get(
    "/readyz",
    operation_id="get_readiness",
    summary="Can requests be served?",
    response_description="They can; `degraded` says that something else is amiss.",
    responses={
        503: {
            "model": Readiness,
            "description": "The database, the store or the engine is unusable.",
        }
    },
)
async def get_readiness(response: Response, state: StateDep) -> Readiness:
    """The database, its schema, the blob store, the engine of scores and the job broker.

    They are looked at in the background, every 15 seconds unless the service is set otherwise, and
    each second while something is amiss: the answer is what the last look found, and costs nothing.
    Without the broker the service is `degraded` but serves: jobs are accepted all the same and
    start when it is back. With a full disk it is `degraded`, too: reading and scoring work. When
    the others cannot be used it is `unavailable`, with status 503.
    """
    found = dict(state.lookout.found())
    if state.engine_watch.fault is not None:
        found["engine"] = Finding(Level.UNUSABLE, state.engine_watch.fault)
    else:
        found["engine"] = Finding(Level.OK)
    if state.queue.broker_up:
        found["broker"] = Finding(Level.OK)
    else:
        found["broker"] = Finding(Level.DEGRADED, _NO_BROKER)
    worst = max(finding.level for finding in found.values())
    if worst is Level.UNUSABLE:
        response.status_code = 503
    checks = {
        name: Check(ok=finding.level is Level.OK, detail=finding.detail)
        for name, finding in found.items()
    }
    return Readiness(status=_STATUSES[worst], checks=checks)


@router.get(
    "/metrics",
    operation_id="get_metrics",
    summary="Metrics for Prometheus",
    response_class=Response,
    responses={
        200: {
            "description": "The metrics.",
            "content": {"text/plain": {"schema": {"type": "string"}}},
        }
    },
)
async def get_metrics(state: StateDep) -> Response:
    """Metrics of this process in Prometheus's text format."""
    return Response(state.metrics.render(), media_type=METRICS_MEDIA_TYPE)
