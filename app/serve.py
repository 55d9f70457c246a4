"""The API process: its checks, its server and its end."""

import ctypes
import logging
import os
import resource
import sys
import tempfile
from pathlib import Path

import uvicorn
from fastapi import FastAPI
from prometheus_client.multiprocess import mark_process_dead
from pydantic import ValidationError

from app.auth.loopback import is_loopback
from app.main import create_app
from app.metrics import SHARED_METRICS
from app.server.http_protocol import HttpProtocol
from app.server.startup import ServerShutdown, check_stores
from app.settings import ApiSettings
from models_store.database.database import Database
from models_store.errors import BlobError, DatabaseUnavailableError, StoreError
from models_store.files.blobs import Blobs
from models_store.files.private_files import create_private_files
from models_store.keys import Keys, make_first_key
from models_store.process.logs import configure_logging
from models_store.process.traces import TRACES
from models_store.settings import first_error
from tabular.parent_death import die_with

_CONNECTIONS = 2_000  # open ones of a process; further requests get 503
# With a proxy longer than its own minute: it sends a request again that meets a closing connection only
# if that can do no harm, which it does not know of a POST.
_KEEP_ALIVE_S = {False: 5, True: 75}
# The event loop gives the interpreter's lock away at each of its calls. Where threads compute, it
# waits as long before each of them continues: a hundred connections would wait for half a second.
_SWITCH_S = 0.0002
# Memory of a large request that is given back to the system page by page costs as much to get again as
# to parse the request. Parameters of mallopt(3), of glibc alone.
_ALLOCATOR = {-1: 64 << 20, -3: 32 << 20}  # M_TRIM_THRESHOLD, M_MMAP_THRESHOLD

log = logging.getLogger(__name__)


class RefusalError(Exception):
    """Refusal to start, explained in one line."""


def main() -> None:
    """Read the settings and serve until a signal comes."""
    create_private_files()
    try:
        settings = _settings()
        refuse_unusable_stores(settings)
        refuse_unsafe_address(settings)
    except ValidationError as error:
        sys.exit(f"densityd api: {first_error(error)}")
    except (RefusalError, StoreError) as error:
        sys.exit(f"densityd api: {error}")
    if not is_loopback(settings.host) and not settings.behind_proxy:
        log.warning(
            "DENSITYD_HOST=%s is reachable from elsewhere. Slow and very many connections are the work"
            " of a reverse proxy: put one before it, and set DENSITYD_BEHIND_PROXY=true.",
            settings.host,
        )
    with tempfile.TemporaryDirectory(prefix="densityd-metrics-") as folder:
        if settings.api_processes > 1:
            os.environ[SHARED_METRICS] = folder
        uvicorn.run(
            "app.serve:application",
            factory=True,
            host=settings.host,
            port=settings.port,
            workers=settings.api_processes,
            loop="uvloop",
            http=HttpProtocol,
            ws="none",
            lifespan="on",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            limit_concurrency=_CONNECTIONS,
            timeout_keep_alive=_KEEP_ALIVE_S[settings.behind_proxy],
            timeout_graceful_shutdown=settings.drain_s,  # type: ignore[arg-type]  # any number
        )


def application() -> FastAPI:
    """Make the application of this process, the only one or one of several."""
    settings = _settings()
    if settings.api_processes > 1:
        die_with(os.getppid())
        _forget_dead(os.environ[SHARED_METRICS])
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, hard), hard))
    sys.setswitchinterval(_SWITCH_S)
    _keep_freed_memory()
    TRACES.configure("api")
    return create_app(settings, shutdown=ServerShutdown(settings.drain_delay_s), compile_first=True)


def _settings() -> ApiSettings:
    settings = ApiSettings()
    configure_logging(settings.log_level, "api")
    logging.getLogger("app.audit").setLevel(logging.INFO)  # whatever else is logged
    return settings


def _keep_freed_memory() -> None:
    """Have the allocator keep some of the memory that is freed."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        for parameter, size in _ALLOCATOR.items():
            mallopt(parameter, size)


def _forget_dead(folder: str) -> None:
    """Forget what processes had in progress that have died; their counts go on."""
    for file in Path(folder).glob("gauge_live*_*.db"):
        pid = file.stem.rpartition("_")[2]
        if not Path("/proc", pid).exists():
            mark_process_dead(pid)  # type: ignore[no-untyped-call]  # of prometheus_client


def refuse_unsafe_address(settings: ApiSettings) -> None:
    """Refuse to serve without API keys on an address that other machines reach.

    Raises:
        RefusalError: the address is not loopback, there is no key, and nobody said that this is
            meant.
        FirstKeyError: The file of the first key cannot be used.
        DatabaseError: the keys cannot be read.
    """
    signs_in = settings.oidc_issuer is not None or settings.trusted_proxies is not None
    needs_key = not (settings.allow_anonymous or signs_in or is_loopback(settings.host))
    if not needs_key and settings.first_key_file is None:
        return
    database = Database(settings.resolved_database_url)
    try:
        if settings.first_key_file is not None:
            make_first_key(database, settings.first_key_file)
        if Keys(database).exist():
            return
    except DatabaseUnavailableError:
        return  # it will be there; until then nobody is let in, and without a key nobody ever
    finally:
        database.dispose()
    if not needs_key:
        return
    raise RefusalError(
        f"DENSITYD_HOST={settings.host} is reachable from elsewhere, and there are no API keys:"
        " anybody could read and delete everything. Make one with `densityd keys create`, set"
        " DENSITYD_ALLOW_ANONYMOUS=true if that is meant, or use 127.0.0.1."
    )


def refuse_unusable_stores(settings: ApiSettings) -> None:
    """Check the database and the blob store, so that a fault is one line and not a traceback.

    Raises:
        RefusalError, StoreError: the process could not serve.
    """
    database = Database(settings.resolved_database_url)
    try:
        check_stores(database, Blobs(settings.store_address))
    except BlobError as error:
        raise RefusalError(
            f"The blob store {settings.store_address.url} cannot be written."
        ) from error
    finally:
        database.dispose()
