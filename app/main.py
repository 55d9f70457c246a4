"""The application: settings in, an ASGI application out."""

import asyncio
import logging
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import Any

from fastapi import Depends, FastAPI
from starlette.datastructures import State
from starlette.middleware.cors import CORSMiddleware

from app.auth.audit import AuditLog
from app.auth.callers import Callers
from app.auth.key_checks import Leases
from app.auth.loopback import is_loopback
from app.auth.middleware import AccessMiddleware, Policy
from app.auth.open_requests import OpenBound
from app.auth.rates import Rates
from app.datasets import routes as datasets
from app.datasets.upload_room import UploadRoom
from app.datasets.uploads import MULTIPART_OVERHEAD_BYTES
from app.engine.engine import Engine
from app.engine.loaded_models import CacheLimits, LoadedModels
from app.engine.watch import EngineWatch, end_process
from app.fairness.fair_routes import EACH
from app.fairness.turns import Threads, Turns
from app.http.body_limits import BodyLimits, BodyMiddleware
from app.http.body_memory import BodyMemory
from app.http.head import HeadMiddleware
from app.http.unknown_parameters import known_parameters
from app.jobs import routes as jobs, starts as job_starts
from app.jobs.events import EventHub
from app.metrics import Metrics
from app.models import checkpoints, routes as models
from app.models.registration import ImportQueue
from app.plots import routes as plots
from app.plots.plots import Plots
from app.problems.problem import install_problem_handlers
from app.scoring import routes as scores
from app.scoring.raw_route import HotRoutes
from app.server.job_queue import JobQueue
from app.server.readiness import Lookout
from app.server.request_middleware import RequestMiddleware
from app.server.startup import check_later, check_stores
from app.settings import ApiSettings
from app.site import health, problem_pages as problems, routes as docs
from app.site.openapi import DESCRIPTION, TAGS, install_openapi
from models_store.audit.trail import AuditTrail
from models_store.database.database import Database
from models_store.errors import DatabaseUnavailableError
from models_store.files.blobs import BlobStore
from models_store.jobs.jobs import Jobs
from models_store.keys import Keys
from models_store.registry import Registry

_BALLAST_PAUSE_S = 5.0
_STALE_UPLOAD_S = 24 * 3600
_FIRST_LOOK_S = 2.0
_LAST_LOOK_S = 0.5
# Threads of requests, and those of one project among them.
_THREADS = 8
_THREADS_EACH = 4
DATABASE_POOL = 8
"""Connections to the database that stay open; as many again may, so that keys, events and readiness
find one while all threads of requests have theirs."""
# No cookies and no other credentials of a browser, ever: a page must have a key of its own.
_CORS: dict[str, Any] = {
    "allow_credentials": False,
    "allow_methods": ["GET", "POST", "PUT", "DELETE"],
    "allow_headers": [
        "Accept",
        "Authorization",
        "Content-Type",
        "Idempotency-Key",
        "If-Match",
        "If-None-Match",
        "Last-Event-ID",
        "Prefer",
        "Range",
        "X-Request-ID",
        "X-Request-Timeout",
    ],
    "expose_headers": [
        "Content-Range",
        "ETag",
        "Idempotent-Replayed",
        "Location",
        "Preference-Applied",
        "Retry-After",
        "X-Model",
        "X-Request-ID",
    ],
}

log = logging.getLogger(__name__)


def create_app(settings: ApiSettings, *, after_load: Callable[[], None] = lambda: None) -> FastAPI:
    """Make the application; nothing is opened before its lifespan starts.

    Args:
        settings: the limits, and where things are.
        after_load: called in a thread when a model has come into memory.
    """
    app = FastAPI(
        title="densityd",
        version=version("densityd"),
        summary="Density estimation with normalising flows.",
        description=DESCRIPTION,
        openapi_tags=TAGS,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        lifespan=_lifespan,
    )
    app.state.settings = settings
    app.state.metrics = Metrics()
    app.state.after_load = after_load
    app.state.stopping = asyncio.Event()
    app.state.refused = False
    for module in (datasets, job_starts, jobs, models, checkpoints, plots, scores):
        app.include_router(module.router, dependencies=[Depends(known_parameters)])
    for module in (problems, health, docs):
        app.include_router(module.router)
    install_problem_handlers(app)
    policy = Policy(scores.router)
    install_openapi(app, policy)
    # The last one added is the outermost.
    limits = BodyLimits(
        max_bytes=max(
            settings.max_upload_bytes + MULTIPART_OVERHEAD_BYTES, settings.max_score_bytes
        ),
        timeout_s=settings.body_timeout_s,
    )
    app.add_middleware(HotRoutes, router=scores.router)
    app.add_middleware(BodyMiddleware, limits=limits)
    app.add_middleware(HeadMiddleware)
    rates = Rates(
        rate=settings.rate_limit, burst_s=settings.rate_burst_s, processes=settings.api_processes
    )
    app.add_middleware(
        AccessMiddleware, policy=policy, rates=rates, local=not settings.allow_anonymous
    )
    app.add_middleware(RequestMiddleware, metrics=app.state.metrics)
    if settings.cors_origins is not None:
        app.add_middleware(CORSMiddleware, allow_origins=settings.cors_origins.split(","), **_CORS)
    return app


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    state = app.state
    settings: ApiSettings = state.settings
    state.database = Database(
        settings.resolved_database_url,
        pool_size=DATABASE_POOL,
        ballast_bytes=settings.ballast_bytes,
    )
    try:
        state.blobs = BlobStore(settings.blob_root)
        passing = await asyncio.to_thread(check_stores, state.database, state.blobs)
        for error in passing:
            log.warning("the start goes on: %s", error)
        away = any(isinstance(error, DatabaseUnavailableError) for error in passing)
        await asyncio.to_thread(state.blobs.sweep_staging, older_than_s=_STALE_UPLOAD_S)
        folder = settings.audit_folder
        state.audit = AuditLog(
            None if folder is None else AuditTrail(folder), failures=state.metrics.audit_failures
        )
        await state.audit.start()
        state.callers = Callers(
            Keys(state.database),
            anonymous=settings.allow_anonymous or is_loopback(settings.host),
        )
        state.registry = Registry(state.database)
        state.jobs = Jobs(state.database)
        _share_out(state, settings)
        state.models = LoadedModels(
            state.registry,
            state.blobs,
            limits=CacheLimits(settings.model_cache_bytes, settings.max_model_bytes),
            metrics=state.metrics.models,
            after_load=state.after_load,
        )
        state.engine = Engine(
            max_waiting=settings.max_waiting,
            max_wait_s=settings.max_wait_s,
            threads=settings.inference_threads,
            metrics=state.metrics.engine,
        )
        state.engine.start()
        state.engine_watch = EngineWatch(state.engine, stall_s=settings.engine_stall_s)
        state.queue = JobQueue(
            state.jobs,
            broker_url=settings.resolved_broker_url,
            celery_broker_url=settings.celery_broker_url,
        )
        state.queue.start()
        looks = [
            asyncio.create_task(_check_later(app, needed=away)),
            asyncio.create_task(state.engine_watch.run(end=lambda: _fail(app))),
            asyncio.create_task(_keep_ballast(state.database)),
            asyncio.create_task(state.event_hub.run(state.stopping)),
            asyncio.create_task(state.leases.run()),
        ]
        state.lookout = Lookout(state.database, state.blobs, every_s=settings.ready_look_s)
        await asyncio.to_thread(state.lookout.start, wait_s=_FIRST_LOOK_S)
        try:
            yield
        finally:
            state.stopping.set()
            for look in looks:
                look.cancel()
            state.lookout.stop()
            for pool in (state.callers, state.threads, state.parsers, state.imports, state.models):
                pool.close()
            await asyncio.to_thread(state.lookout.join, _LAST_LOOK_S)
            await asyncio.to_thread(state.queue.stop)
            await asyncio.to_thread(state.engine.stop)
            await state.audit.close()
    finally:
        state.database.dispose()


async def _keep_ballast(database: Database) -> None:
    while True:
        await asyncio.to_thread(database.restore_ballast)
        await asyncio.sleep(_BALLAST_PAUSE_S)


def _share_out(state: State, settings: ApiSettings) -> None:
    """Make what bounds callers, and what they share."""
    state.plots = Plots()
    state.event_hub = EventHub(state.jobs)
    state.leases = Leases(state.callers)
    state.open_requests = OpenBound("requests", settings.max_open_requests)
    state.open_streams = OpenBound("event streams", settings.max_open_streams)
    state.upload_room = UploadRoom()
    state.open_uploads = OpenBound("uploads", settings.max_open_uploads)
    state.route_turns = Turns(sys.maxsize, each=EACH)
    documents = Threads("documents", 1, each=1)
    state.threads = Threads("requests", _THREADS, each=_THREADS_EACH, alone=documents)
    parsers = settings.max_parsers
    state.parsers = Threads("parsers", parsers, each=max(1, parsers - 1))
    state.imports = ImportQueue(settings)
    state.body_memory = BodyMemory(settings.max_bodies_bytes)


async def _check_later(app: FastAPI, *, needed: bool) -> None:
    if needed:
        await check_later(app.state.database, app.state.blobs, refuse=lambda: _fail(app))


def _fail(app: FastAPI) -> None:
    """End the process with an exit status that says that it should be started again."""
    app.state.refused = True
    end_process()
