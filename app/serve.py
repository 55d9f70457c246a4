"""The API process: its checks, its sockets, its server and its end."""

import asyncio
import logging
import math
import os
import signal
import socket
import sys
import time
from asyncio import CancelledError
from types import FrameType

import uvicorn
from fastapi import FastAPI
from pydantic import ValidationError
from uvicorn.config import STARTUP_FAILURE

from app.auth.callers import Callers
from app.auth.loopback import is_loopback
from app.connections.groups import ConnectionGroups
from app.connections.protocol import LINGERING_PART, BoundedProtocol
from app.connections.receiving.reading import IDLE_ENDS, LATE_HEADS, READS, READS_EACH
from app.fairness.pace import Pace
from app.main import create_app
from app.server.connection_shares import ConnectionShares
from app.server.garbage import GarbageCollection, freeze_heap
from app.server.limits import connections_that_fit, return_memory_early
from app.server.listener import BACKLOG, Listener, open_listeners
from app.server.processes import Processes, inherit_metrics, inherit_sockets, inherited_shares
from app.server.startup import Shutdown, check_stores
from app.settings import ApiSettings
from models_store.audit.trail import AuditTrail
from models_store.database.database import Database
from models_store.errors import BlobError, DatabaseUnavailableError, StoreError
from models_store.files.disks import FULL
from models_store.files.private_files import create_private_files
from models_store.files.stores import open_blobs
from models_store.keys import Keys, make_first_key
from models_store.process.endings import ending_signals
from models_store.process.logs import configure_logging
from models_store.process.traces import TRACES
from models_store.settings import first_error

_KEEP_ALIVE_S = 5
# Text by which uvicorn says that requests are open still after the time that they have at a stop.
_CUT_OFF = "Cancel %s running task(s), timeout graceful shutdown exceeded"
# The event loop gives the interpreter's lock away at each of its calls. Where threads compute, it
# waits as long before each of them continues: a hundred connections would wait for half a second.
_SWITCH_S = 0.0002


log = logging.getLogger(__name__)


class RefusalError(Exception):
    """Refusal to start, explained in one line."""


def main() -> None:
    """Read the settings and serve until a signal comes."""
    return_memory_early()
    sys.setswitchinterval(_SWITCH_S)
    create_private_files()
    try:
        settings = ApiSettings()
        configure_logging(settings.log_level, "api")
        logging.getLogger("app.audit").setLevel(logging.INFO)  # whatever else is logged
        logging.getLogger("uvicorn.error").addFilter(expect_cut_off)
        refuse_unusable_stores(settings)
        refuse_unusable_audit(settings)
        refuse_unsafe_address(settings)
    except ValidationError as error:
        sys.exit(f"densityd api: {first_error(error)}")
    except (RefusalError, StoreError) as error:
        sys.exit(f"densityd api: {error}")
    sockets = inherit_sockets()
    if sockets is None and settings.api_processes > 1:
        sys.exit(_run_processes(settings))
    inherit_metrics()
    TRACES.configure("api")
    freeze_heap()
    shutdown = Shutdown()
    app = create_app(settings, shutdown=shutdown, after_load=FirstLoad(), compile_first=True)
    server = Server(app, settings, shutdown, inherited_shares())
    # Of uvicorn's own two, it makes handlers itself.
    for number in ending_signals():
        signal.signal(number, server.handle_exit)
    server.run(sockets)
    # A thread may still wait for the parser of an upload that was cut off. Do not wait for it: a
    # parser dies with its parent.
    TRACES.close()
    logging.shutdown()
    os._exit(0 if server.started and not shutdown.failed else 1)


def expect_cut_off(record: logging.LogRecord) -> bool:
    """Log what a stop does to requests that take longer than they may as no error, and without a traceback."""
    cut_off = record.exc_info is not None and isinstance(record.exc_info[1], CancelledError)
    if cut_off:
        record.msg, record.args, record.exc_info = "a request was cut off", (), None
    if cut_off or record.msg == _CUT_OFF:
        record.levelno, record.levelname = logging.WARNING, "WARNING"
    return True


class FirstLoad:
    """Freeze of the heap after the first model was loaded, which imports most of all modules.

    Not after each: what belongs to requests at that moment is excluded as well, and is never
    collected if it refers to itself.
    """

    def __init__(self) -> None:
        self._loaded = False

    def __call__(self) -> None:
        """Freeze the heap, the first time."""
        if not self._loaded:
            self._loaded = True
            freeze_heap()


def _run_processes(settings: ApiSettings) -> int:
    try:
        return Processes(settings).run()
    except OSError as error:
        sys.exit(f"densityd api: cannot listen on {settings.host}:{settings.port}: {error}")


def refuse_unsafe_address(settings: ApiSettings) -> None:
    """Refuse to serve without API keys on an address that other machines reach.

    Raises:
        RefusalError: the address is not loopback, there is no key, and nobody said that this is
            meant.
        FirstKeyError: The file of the first key cannot be used.
        DatabaseError: the keys cannot be read.
    """
    needs_key = not settings.allow_anonymous and not is_loopback(settings.host)
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
        check_stores(database, open_blobs(settings.store_address))
    except BlobError as error:
        raise RefusalError(
            f"The blob store {settings.store_address.url} cannot be written."
        ) from error
    finally:
        database.dispose()


def refuse_unusable_audit(settings: ApiSettings) -> None:
    """Check that the audit trail can be written; a full disk passes, because deletion makes room.

    Raises:
        RefusalError: Changes could not be recorded.
    """
    folder = settings.audit_folder
    if folder is None:
        return
    trail = AuditTrail(folder)
    try:
        trail.open()
    except OSError as error:
        if error.errno not in FULL:
            raise RefusalError(
                f"The audit trail in {folder} cannot be written: {error.strerror or error}. Set"
                " DENSITYD_AUDIT_DIR to a folder that can, or to - for the log alone."
            ) from error
    finally:
        trail.close()


class Server(uvicorn.Server):
    """Uvicorn with the bounds of the settings, which drains before it stops.

    Streams end as soon as it stops to listen.
    """

    def __init__(
        self,
        app: FastAPI,
        settings: ApiSettings,
        shutdown: Shutdown,
        shares: ConnectionShares | None,
    ) -> None:
        """Prepare the server, one of several if there are `shares`; nothing is opened yet."""
        self._shutdown = shutdown
        self._shares = shares
        self._drain_delay_s = settings.drain_delay_s
        self._listen_until = math.inf

        class Protocol(BoundedProtocol):
            header_timeout_s = settings.header_timeout_s
            write_timeout_s = settings.write_timeout_s
            path_prefix = settings.root_path or ""
            open_connections = ConnectionGroups(connections_that_fit(settings.max_connections))
            pace = Pace(each=READS_EACH, most=READS)
            lingering = ConnectionGroups(max(1, open_connections.most // LINGERING_PART))
            idle_ends = Pace(each=IDLE_ENDS, most=IDLE_ENDS)
            late_heads = Pace(each=LATE_HEADS, most=LATE_HEADS)

            @staticmethod
            def known_key(authorization: bytes) -> str | None:
                callers: Callers = app.state.callers
                return callers.known_key(authorization)

        self._protocol_class = Protocol
        super().__init__(
            uvicorn.Config(
                app,
                host=settings.host,
                port=settings.port,
                loop="uvloop",
                http=Protocol,
                ws="none",
                lifespan="on",
                log_config=None,
                access_log=False,
                server_header=False,
                date_header=True,
                proxy_headers=False,
                backlog=BACKLOG,
                timeout_keep_alive=_KEEP_ALIVE_S,
                timeout_graceful_shutdown=settings.drain_s,  # type: ignore[arg-type]  # any number
            )
        )

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start the application, and listen."""
        await super().startup([])
        freeze_heap()  # of the application, which was made since; later that would stop requests
        if sockets is None:
            try:
                sockets = open_listeners(self.config.host, self.config.port)
            except OSError as error:
                log.error("cannot listen on %s:%d: %s", self.config.host, self.config.port, error)  # noqa: TRY400 - one line
                await self.lifespan.shutdown()
                sys.exit(STARTUP_FAILURE)
        connections = self._protocol_class.open_connections
        listener = Listener(
            sockets,
            self._protocol,
            open_connections=connections,
            known_key=self._protocol_class.known_key,
            shares=self._shares,
        )
        self.servers.append(listener)  # type: ignore[arg-type]  # of which it is closed alone
        collection = GarbageCollection(connections)
        self._collecting = asyncio.create_task(collection.run())

    def _protocol(self) -> BoundedProtocol:
        return self._protocol_class(
            config=self.config, server_state=self.server_state, app_state=self.lifespan.state
        )

    async def on_tick(self, counter: int) -> bool:
        """Return whether to stop listening: at once after a signal, or once it was told to others."""
        if time.monotonic() >= self._listen_until:
            self._stop()
        return await super().on_tick(counter)

    def handle_exit(self, sig: int, _frame: FrameType | None) -> None:
        """Drain at the first signal, and stop at the second, or when that was long enough.

        Not uvicorn's own, which raises the signal again afterwards: a stop is no failure.
        """
        self.force_exit = self.should_exit and sig == signal.SIGINT
        if self._drain_delay_s > 0 and not self._shutdown.draining:
            self._listen_until = time.monotonic() + self._drain_delay_s
        else:
            self._stop()
        self._shutdown.draining = True
        self._protocol_class.draining = True

    def _stop(self) -> None:
        """Stop, and end the streams, which would never end by themselves."""
        self._shutdown.stopping.set()
        self.should_exit = True
