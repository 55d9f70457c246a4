"""Objects that the application's lifespan makes, and that its requests share."""

import asyncio
from dataclasses import dataclass

from fastapi import Request

from app.auth.callers import Callers
from app.auth.tallies import Tallies
from app.engine.engine import Engine
from app.engine.loaded_models import LoadedModels
from app.engine.monitor import Monitor
from app.engine.reference_rows import UsualTerms
from app.engine.warming import WarmUp
from app.engine.watch import EngineWatch
from app.limits import BodyMemory, OpenBound, Threads, Turns
from app.metrics import Metrics
from app.plots.plots import Plots
from app.server.broker import Broker
from app.server.event_hub import EventHub
from app.server.job_metrics import JobMetrics
from app.server.readiness import Lookout
from app.server.startup import Shutdown
from app.settings import ApiSettings
from models_store.aliases import Aliases
from models_store.audit import AuditTrail
from models_store.computed import Usage
from models_store.database.database import Database
from models_store.files.blobs import Blobs
from models_store.jobs.jobs import Jobs
from models_store.keys import Keys
from models_store.labels import Labels
from models_store.monitoring import Monitoring
from models_store.projects import Projects
from models_store.registry import Registry
from models_store.reviews import Reviews
from models_store.webhooks.webhooks import Webhooks


@dataclass(frozen=True, eq=False, kw_only=True)
class AppState:
    """State of a running application, which is its `app.state`.

    The modules that it imports read `app.state` by attribute; all others call `state_of`, or depend on `StateDep`.
    """

    settings: ApiSettings
    metrics: Metrics
    stopping: asyncio.Event  # set when the server begins to stop
    shutdown: Shutdown
    database: Database
    blobs: Blobs
    registry: Registry
    aliases: Aliases
    jobs: Jobs
    labels: Labels
    reviews: Reviews
    webhooks: Webhooks
    monitoring: Monitoring
    keys: Keys
    projects: Projects
    usage: Usage
    tallies: Tallies
    monitor: Monitor
    broker: Broker
    callers: Callers
    audit: AuditTrail
    models: LoadedModels
    usual_terms: UsualTerms
    warm_up: WarmUp
    engine: Engine
    engine_watch: EngineWatch
    job_metrics: JobMetrics
    lookout: Lookout
    event_hub: EventHub
    plots: Plots
    threads: Threads
    # Threads that wait for processes: of uploads, of imported models, of ONNX files.
    parsers: Threads
    imports: Threads
    exports: Threads
    route_turns: Turns
    open_requests: OpenBound
    open_streams: OpenBound
    open_uploads: OpenBound
    open_exports: OpenBound
    body_memory: BodyMemory


def state_of(request: Request) -> AppState:
    """Return the state of the application that serves a request."""
    state: AppState = request.app.state
    return state
