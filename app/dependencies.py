"""What routes ask for: the objects that the application's lifespan made, and the caller."""

from typing import Annotated, cast

from fastapi import Depends, Header, Request

from app.auth.open_requests import OpenBound
from app.engine.engine import Engine
from app.engine.loaded_models import LoadedModels
from app.engine.watch import EngineWatch
from app.fairness.turns import Threads
from app.server.job_queue import JobQueue
from app.server.readiness import Lookout
from app.settings import ApiSettings
from app.state import project_of, settings_of
from models_store.database.database import Database
from models_store.files.blobs import BlobStore
from models_store.jobs.jobs import Jobs
from models_store.registry import Registry


# Async although they never wait: FastAPI sends plain functions to a thread each.
async def _settings(request: Request) -> ApiSettings:
    return settings_of(request)


async def _database(request: Request) -> Database:
    return cast(Database, request.app.state.database)


async def _blobs(request: Request) -> BlobStore:
    return cast(BlobStore, request.app.state.blobs)


async def _registry(request: Request) -> Registry:
    return cast(Registry, request.app.state.registry)


async def _jobs(request: Request) -> Jobs:
    return cast(Jobs, request.app.state.jobs)


async def _queue(request: Request) -> JobQueue:
    return cast(JobQueue, request.app.state.queue)


async def _models(request: Request) -> LoadedModels:
    return cast(LoadedModels, request.app.state.models)


async def _engine(request: Request) -> Engine:
    return cast(Engine, request.app.state.engine)


async def _engine_watch(request: Request) -> EngineWatch:
    return cast(EngineWatch, request.app.state.engine_watch)


async def _lookout(request: Request) -> Lookout:
    return cast(Lookout, request.app.state.lookout)


async def _project(request: Request) -> str:
    return project_of(request)


def uploads_of(request: Request) -> tuple[OpenBound, Threads]:
    """The bound on uploads that are open, and the threads that wait for their parsers."""
    state = request.app.state
    return state.open_uploads, state.parsers


SettingsDep = Annotated[ApiSettings, Depends(_settings)]
DatabaseDep = Annotated[Database, Depends(_database)]
BlobsDep = Annotated[BlobStore, Depends(_blobs)]
RegistryDep = Annotated[Registry, Depends(_registry)]
JobsDep = Annotated[Jobs, Depends(_jobs)]
QueueDep = Annotated[JobQueue, Depends(_queue)]
EngineDep = Annotated[Engine, Depends(_engine)]
LookoutDep = Annotated[Lookout, Depends(_lookout)]
EngineWatchDep = Annotated[EngineWatch, Depends(_engine_watch)]
ModelsDep = Annotated[LoadedModels, Depends(_models)]
ProjectDep = Annotated[str, Depends(_project)]

IdempotencyKey = Annotated[
    str | None,
    Header(
        min_length=1,
        max_length=255,
        pattern=r"^[\x21-\x7e]+$",
        description="A string of your own, such as a UUID. Sent again with the same body, it gives"
        " the first answer again instead of a second thing.",
    ),
]
REPLAYED = {
    "description": "`true`: this is the answer to an earlier request with the key.",
    "schema": {"type": "string"},
}
"""The OpenAPI object of the header `Idempotent-Replayed`."""
