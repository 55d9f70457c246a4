"""Routes of liveness, readiness and metrics."""

import asyncio
from typing import Literal

from fastapi import APIRouter, Response
from pydantic import BaseModel, Field

from app.dependencies import StateDep
from app.metrics import METRICS_MEDIA_TYPE
from app.server.readiness import Finding, Level

router = APIRouter(tags=["operations"])

_STATUSES: dict[Level, Literal["ok", "degraded", "unavailable"]] = {
    Level.OK: "ok",
    Level.DEGRADED: "degraded",
    Level.UNUSABLE: "unavailable",
}


class Liveness(BaseModel):
    """Liveness of the process."""

    status: Literal["ok"] = Field(default="ok", description="The process answers.")


class Check(BaseModel):
    """State of a dependency of the service."""

    ok: bool = Field(description="True if the dependency can be used.")
    detail: str = Field(description="Result of the check, in words.")


class Readiness(BaseModel):
    """Readiness of the service; when `degraded` it serves, but a dependency is missing.

    A process that is `draining` serves, and is about to stop.
    """

    status: Literal["ok", "degraded", "draining", "unavailable"] = Field(
        description="State of the service."
    )
    checks: dict[str, Check] = Field(description="States of the dependencies by their names.")


@router.get(
    "/livez",
    operation_id="get_liveness",
    summary="Check liveness",
    response_description="The process is alive.",
)
async def get_liveness() -> Liveness:
    """Respond as long as the event loop of the process runs; nothing else is checked."""
    return Liveness()


@router.get(
    "/readyz",
    operation_id="get_readiness",
    summary="Check readiness",
    response_description="Requests are served; `degraded` if a dependency is missing.",
    responses={
        503: {
            "model": Readiness,
            "description": "The database, the store or the engine is unusable, or the process stops.",
        }
    },
)
async def get_readiness(response: Response, state: StateDep) -> Readiness:
    """Return the state of the database, its schema, the blob store, the engine and the broker.

    A background thread checks them, every 15 seconds by default and every second after a failure;
    the response is the result of the last check. Without the broker the service is `degraded`: jobs
    start up to 1.5 seconds later. With a full disk it is `degraded` too: reading and scoring work. A database server that went away
    leaves it `degraded` for some minutes, while models and keys in use are served from memory. If
    another dependency fails, or while kernels are compiled and models loaded after the start, it is
    `unavailable`, with status 503. A process that is about to stop is `draining`, with status 503.
    """
    found = dict(state.lookout.found())
    unusable = state.engine_watch.fault or state.warm_up.waits_for
    if unusable is not None:
        found["engine"] = Finding(Level.UNUSABLE, unusable)
    else:
        found["engine"] = Finding(Level.OK)
    worst = max(finding.level for finding in found.values())
    if worst is Level.UNUSABLE:
        response.status_code = 503
    checks = {
        name: Check(ok=finding.level is Level.OK, detail=finding.detail)
        for name, finding in found.items()
    }
    if state.shutdown.draining:
        response.status_code = 503
        return Readiness(status="draining", checks=checks)
    return Readiness(status=_STATUSES[worst], checks=checks)


@router.get(
    "/metrics",
    operation_id="get_metrics",
    summary="Metrics for Prometheus",
    response_class=Response,
    responses={
        200: {
            "description": "Metrics in the text format of Prometheus.",
            "content": {"text/plain": {"schema": {"type": "string"}}},
        }
    },
)
async def get_metrics(state: StateDep) -> Response:
    """Return the metrics of this process in the text format of Prometheus.

    Those of jobs and workers come from the database, and are the same from every process.
    """
    of_jobs = await asyncio.to_thread(state.job_metrics.render)
    found = state.metrics.render() + of_jobs + state.monitor.render()
    return Response(found, media_type=METRICS_MEDIA_TYPE)
