"""Application factory: an ASGI application made from settings."""

import asyncio
import logging
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import cache, partial
from importlib.metadata import version
from typing import Any

from fastapi import APIRouter, Depends, FastAPI
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.routing import BaseRoute

from app.account import routes as account
from app.auth.admission import Admission, Policy
from app.auth.callers import Callers
from app.auth.identity import Issuer, Proxy
from app.auth.loopback import is_loopback
from app.auth.rates import Rates
from app.auth.tallies import Tallies
from app.datasets import routes as datasets, upload_routes as uploads
from app.datasets.uploads import MULTIPART_OVERHEAD_BYTES
from app.engine.engine import Engine
from app.engine.kernels import are_compiled
from app.engine.loaded_models import CacheLimits, LoadedModels
from app.engine.monitor import Monitor
from app.engine.reference_rows import UsualTerms
from app.engine.warming import WarmUp, preloaded
from app.engine.watch import EngineWatch
from app.http.head import HeadMiddleware
from app.http.unknown_parameters import known_parameters
from app.inference import routes as inference
from app.inference.infer import infer_newest
from app.jobs import (
    result_routes as job_results,
    routes as jobs,
    starts as job_starts,
    target_preview,
)
from app.limits import ROUTES_EACH, BodyMemory, OpenBound, Threads, Turns
from app.metrics import Metrics
from app.models import (
    comparing,
    exports,
    imports,
    plot_routes as plots,
    retraining,
    routes as models,
)
from app.monitoring import routes as monitoring
from app.plots.plots import Plots
from app.problems.problem import install_problem_handlers
from app.root_path import RootPathMiddleware
from app.scoring import routes as scores
from app.scoring.short_way import ShortWay
from app.server.broker import Broker
from app.server.entrance import PACKING, Entrance
from app.server.event_hub import EventHub
from app.server.job_metrics import JobMetrics
from app.server.readiness import Lookout
from app.server.startup import (
    ServerShutdown,
    Shutdown,
    are_away,
    check_later,
    check_stores,
)
from app.settings import ApiSettings
from app.site import health, problem_pages as problems, routes as docs
from app.site.openapi import DESCRIPTION, TAGS, install_openapi
from app.state import AppState
from app.unusual import routes as unusual
from app.webhooks import routes as webhooks
from models_store.aliases import Aliases
from models_store.audit import AuditTrail
from models_store.computed import Usage
from models_store.database.database import SERVICE_ANSWER_S, Database
from models_store.errors import StoreError
from models_store.files.blobs import Blobs
from models_store.jobs.figures import JobFigures
from models_store.jobs.jobs import Jobs
from models_store.keys import Keys
from models_store.labels import Labels
from models_store.monitoring import Monitoring
from models_store.projects import Projects
from models_store.registry import Registry
from models_store.reviews import Reviews
from models_store.webhooks.webhooks import Webhooks
from tabular import processes

SWEEP_PAUSE_S = 3600.0
"""Seconds from one deletion of what uploads left behind to the next."""
_STALE_UPLOAD_S = 24 * 3600
_FIRST_LOOK_S = 2.0
_LAST_LOOK_S = 0.5
# Threads of requests, and those of one project among them.
_THREADS = 8
_THREADS_EACH = 2
_OPEN_EXPORTS = 4  # of a key: each has a file on the disk until its caller has read it
# No cookies and no other credentials of a browser, ever: a page must have a key of its own.
_CORS: dict[str, Any] = {
    "allow_credentials": False,
    "allow_methods": ["GET", "POST", "PUT", "PATCH", "DELETE"],
    "allow_headers": [
        "Accept",
        "Authorization",
        "Content-Type",
        "Idempotency-Key",
        "Inference-Header-Content-Length",
        "If-Match",
        "If-None-Match",
        "Last-Event-ID",
        "Range",
        "X-Project",
        "X-Request-ID",
        "X-Request-Timeout",
    ],
    "expose_headers": [
        "Content-Range",
        "ETag",
        "Idempotent-Replayed",
        "Inference-Header-Content-Length",
        "Link",
        "Location",
        "RateLimit",
        "RateLimit-Policy",
        "Retry-After",
        "X-Model",
        "X-Request-ID",
    ],
}

log = logging.getLogger(__name__)


def create_app(
    settings: ApiSettings,
    *,
    shutdown: Shutdown | None = None,
    compile_first: bool = False,
) -> FastAPI:
    """Make the application; nothing is opened before its lifespan starts.

    Args:
        settings: Limits, and where things are.
        shutdown: End of the process that serves the application.
        compile_first: True to be ready only once the kernels are compiled.
    """
    shutdown = shutdown or Shutdown()
    metrics = Metrics()
    app = FastAPI(
        title="densityd",
        version=version("densityd"),
        summary="Density estimation with normalising flows.",
        description=DESCRIPTION,
        openapi_tags=TAGS,
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        # Looked for at each request otherwise, which takes a twentieth of a score of one row.
        telemetry={"tracing": False, "metrics": False, "logs": False},
        routes=[*_routes()],
        lifespan=partial(_lifespan, settings, metrics, shutdown, compile_first),
    )
    app.include_router(docs.guide_routes(docs.GUIDE_FOLDER))
    install_problem_handlers(app)
    policy = Policy(scores.router)
    install_openapi(app, policy, root_path=settings.root_path)
    rates = Rates(
        rate=settings.rate_limit, burst_s=settings.rate_burst_s, processes=settings.api_processes
    )
    most_uploaded = settings.max_upload_bytes + MULTIPART_OVERHEAD_BYTES
    # The last one added is the outermost.
    app.add_middleware(HeadMiddleware)
    app.add_middleware(GZipMiddleware, **PACKING)
    app.add_middleware(
        Entrance,
        scorers={**ShortWay().scorers, "/v2/models/{model}/infer": infer_newest},
        admission=Admission(policy, rates, local=not settings.allow_anonymous),
        metrics=metrics,
        shutdown=shutdown,
        max_packed_bytes=max(most_uploaded, settings.max_body_bytes),
    )
    if settings.cors_origins is not None:
        app.add_middleware(CORSMiddleware, allow_origins=settings.cors_origins.split(","), **_CORS)
    if settings.root_path is not None:
        app.add_middleware(RootPathMiddleware, root_path=settings.root_path)
    return app


@cache
def _routes() -> list[BaseRoute]:
    """Return the routes of all applications of this process, whose parameters are worked out once."""
    router = APIRouter()
    for module in (
        uploads,
        datasets,
        job_starts,
        target_preview,
        jobs,
        job_results,
        models,
        comparing,
        exports,
        imports,
        plots,
        unusual,
        monitoring,
        retraining,
        scores,
        webhooks,
        account,
        inference,
    ):
        router.include_router(module.router, dependencies=[Depends(known_parameters)])
    for module in (problems, health, docs):
        router.include_router(module.router)
    return router.routes


@asynccontextmanager
async def _lifespan(
    settings: ApiSettings,
    metrics: Metrics,
    shutdown: Shutdown,
    compile_first: bool,  # noqa: FBT001 - bound by `create_app`
    app: FastAPI,
) -> AsyncIterator[None]:
    database = Database(
        settings.resolved_database_url,
        answer_s=SERVICE_ANSWER_S,
        pool_size=settings.database_pool,
    )
    try:
        blobs = Blobs(settings.store_address)
        passing = await asyncio.to_thread(check_stores, database, blobs)
        for error in passing:
            log.warning("the start continues: %s", error)
        state = _state(settings, metrics, shutdown, database, blobs)
        if compile_first:
            state.warm_up.prepare_server(compiled=are_compiled(settings.data_dir))
        app.state = state  # type: ignore[assignment]  # typed, in place of Starlette's own
        state.engine.start()
        tasks = [
            asyncio.create_task(work)
            for work in (
                state.engine_watch.run(end=shutdown.fail),
                _sweep_staging(blobs),
                state.event_hub.run(shutdown.stopping),
                state.tallies.run(),
                state.monitor.run(),
                state.warm_up.run(),
                *(
                    [check_later(database, blobs, refuse=shutdown.fail)]
                    if are_away(passing)
                    else []
                ),
            )
        ]
        await asyncio.to_thread(state.lookout.start, wait_s=_FIRST_LOOK_S)
        if isinstance(shutdown, ServerShutdown):
            shutdown.watch_signals()
        try:
            yield
        finally:
            shutdown.stopping.set()
            for task in tasks:
                task.cancel()
            await _close(state)
    finally:
        database.dispose()
    if isinstance(shutdown, ServerShutdown):
        shutdown.exit()


def _state(
    settings: ApiSettings,
    metrics: Metrics,
    shutdown: Shutdown,
    database: Database,
    blobs: Blobs,
) -> AppState:
    """Make all that requests share; nothing of it works yet."""
    registry, jobs, counts = Registry(database), Jobs(database), Monitoring(database)
    keys = Keys(database)
    signs_in = settings.oidc_issuer is not None or settings.trusted_proxies is not None
    anonymous = (settings.allow_anonymous or is_loopback(settings.host)) and not signs_in
    callers = Callers(
        keys,
        anonymous=anonymous,
        stale_s=settings.stale_s,
        issuer=_issuer(settings),
        proxy=None if settings.trusted_proxies is None else Proxy(settings.trusted_proxies),
    )
    engine = Engine(
        max_waiting=settings.max_waiting,
        max_wait_s=settings.max_wait_s,
        threads=settings.inference_threads,
        metrics=metrics.engine,
    )
    usage = Usage(database)
    tallies = Tallies(usage, keys, callers)
    engine.count = tallies.add_rows
    models = LoadedModels(
        registry,
        blobs,
        limits=CacheLimits(
            settings.model_cache_bytes, settings.max_model_bytes, stale_s=settings.stale_s
        ),
        metrics=metrics.models,
    )
    broker = Broker(settings)
    lookout = Lookout(
        database,
        blobs,
        broker.ping,
        every_s=settings.ready_look_s,
        stale_s=settings.stale_s,
    )
    return AppState(
        settings=settings,
        metrics=metrics,
        stopping=shutdown.stopping,
        shutdown=shutdown,
        database=database,
        blobs=blobs,
        registry=registry,
        aliases=Aliases(database),
        jobs=jobs,
        labels=Labels(database),
        reviews=Reviews(database),
        webhooks=Webhooks(database),
        keys=keys,
        projects=Projects(database),
        monitoring=counts,
        usage=usage,
        tallies=tallies,
        monitor=Monitor(counts, registry, blobs, metrics.ranks),
        broker=broker,
        callers=callers,
        audit=AuditTrail(database),
        models=models,
        usual_terms=UsualTerms(registry, blobs, models=models, engine=engine),
        warm_up=WarmUp(models, preloaded(settings.preload)),
        engine=engine,
        engine_watch=EngineWatch(engine, stall_s=settings.engine_stall_s),
        lookout=lookout,
        job_metrics=JobMetrics(
            JobFigures(database),
            lookout.seconds,
            found=lookout.usable,
            disks={"store": settings.blob_root, "data": settings.data_dir},
            max_bytes=settings.max_project_bytes,
        ),
        event_hub=EventHub(jobs),
        plots=Plots(),
        threads=Threads("requests", _THREADS, each=_THREADS_EACH),
        parsers=Threads("parsers", settings.max_parsers, each=max(1, settings.max_parsers - 1)),
        imports=Threads("imports", 1, each=1),
        exports=Threads("exports", 1, each=1),
        route_turns=Turns(sys.maxsize, each=ROUTES_EACH),
        open_requests=OpenBound("requests", settings.max_open_requests),
        open_streams=OpenBound("event streams", settings.max_open_streams),
        open_uploads=OpenBound("uploads", settings.max_open_uploads),
        open_exports=OpenBound("ONNX exports", _OPEN_EXPORTS),
        body_memory=BodyMemory(settings.max_bodies_bytes),
    )


def _issuer(settings: ApiSettings) -> Issuer | None:
    if settings.oidc_issuer is None or settings.oidc_audience is None:
        return None
    return Issuer(settings.oidc_issuer, audience=settings.oidc_audience, claim=settings.oidc_claim)


async def _close(state: AppState) -> None:
    """End the threads that the state holds."""
    state.lookout.stop()
    await state.tallies.write()
    with suppress(StoreError):  # a minute of counts is not worth waiting for
        await state.monitor.flush()
    files = state.parsers, state.imports, state.exports
    for pool in (state.callers, state.threads, *files, state.models):
        pool.close()
    await asyncio.to_thread(state.lookout.join, _LAST_LOOK_S)
    await asyncio.to_thread(state.broker.close)
    await asyncio.to_thread(state.engine.stop)
    await asyncio.to_thread(processes.close)


async def _sweep_staging(blobs: Blobs) -> None:
    while True:
        try:
            await asyncio.to_thread(blobs.sweep_staging, older_than_s=_STALE_UPLOAD_S)
        except OSError as error:
            log.warning("the blob store's staging folder could not be swept: %s", error)
        await asyncio.sleep(SWEEP_PAUSE_S)
