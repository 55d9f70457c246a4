"""Signs of life: is the process alive, can it serve, how has it been."""

import asyncio
from collections.abc import Callable
from functools import partial

from fastapi import APIRouter, Request, Response

from app.dependencies import BlobsDep, DatabaseDep, EngineWatchDep, QueueDep
from app.metrics import METRICS_MEDIA_TYPE, Metrics
from app.schemas import Check, Liveness, Readiness
from models_store.database import Database
from models_store.errors import SchemaMismatchError, StoreError
from models_store.revisions import head_revision

router = APIRouter(tags=["operations"])

_CHECK_TIMEOUT_S = 2.0


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
async def get_readiness(
    response: Response,
    database: DatabaseDep,
    blobs: BlobsDep,
    engine: EngineWatchDep,
    queue: QueueDep,
) -> Readiness:
    """Checks the database, its schema, the blob store, the engine of scores and the job broker.

    Without the broker the service is `degraded` but serves: jobs are accepted all the same and
    start when it is back. Without the others it is `unavailable`, with status 503.
    """
    checks = {
        "database": _check(database.ping),
        "schema": _check(partial(_check_schema, database)),
        "store": _check(blobs.ping),
    }
    found = dict(zip(checks, await asyncio.gather(*checks.values()), strict=True))
    found["engine"] = Check(ok=engine.fault is None, detail=engine.fault or "ok")
    usable = all(check.ok for check in found.values())
    found["broker"] = (
        Check(ok=True, detail="ok")
        if queue.broker_up
        else Check(ok=False, detail="The broker cannot be reached; jobs are accepted and wait.")
    )
    if not usable:
        response.status_code = 503
        return Readiness(status="unavailable", checks=found)
    return Readiness(status="ok" if queue.broker_up else "degraded", checks=found)


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
async def get_metrics(request: Request) -> Response:
    """Metrics of this process in Prometheus's text format."""
    metrics: Metrics = request.app.state.metrics
    return Response(metrics.render(), media_type=METRICS_MEDIA_TYPE)


def _check_schema(database: Database) -> None:
    found = database.revision()
    if found != head_revision():
        raise SchemaMismatchError(found=found, expected=head_revision())


async def _check(action: Callable[[], None]) -> Check:
    try:
        async with asyncio.timeout(_CHECK_TIMEOUT_S):
            await asyncio.to_thread(action)
    except StoreError as error:
        return Check(ok=False, detail=str(error))
    except TimeoutError:
        return Check(ok=False, detail=f"No answer within {_CHECK_TIMEOUT_S:g} s.")
    return Check(ok=True, detail="ok")
