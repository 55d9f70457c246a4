"""The API process: ``python -m app``."""

import gc
import ipaddress
import logging
import os
import signal
import socket
import sys
from types import FrameType

import uvicorn
from fastapi import FastAPI
from pydantic import ValidationError

from app.allocator import return_memory_early
from app.connections import BoundedProtocol
from app.main import create_app
from app.open_files import connections_that_fit
from app.processes import Processes, inherited_sockets
from app.settings import ApiSettings
from models_store.blobs import BlobStore
from models_store.database import Database
from models_store.errors import StoreError
from models_store.logs import configure_logging

_DRAIN_S = 4  # with what follows it, an end within five seconds
_KEEP_ALIVE_S = 5
_BACKLOG = 2048


class RefusalError(Exception):
    """The process will not start, and says why in one line."""


def main() -> None:
    """Read the settings and serve until a signal comes."""
    return_memory_early()
    try:
        settings = ApiSettings()
        refuse_unsafe_address(settings)
        check_stores(settings)
    except (ValidationError, RefusalError, StoreError) as error:
        sys.exit(f"densityd api: {error}")
    configure_logging(settings.log_level, "api")
    sockets = inherited_sockets()
    if sockets is None and settings.api_processes > 1:
        sys.exit(_run_processes(settings))
    freeze_heap()
    server = Server(create_app(settings, after_load=freeze_heap), settings)
    server.run(sockets)
    # A thread may still wait for the parser of an upload that was cut off. Do not wait for it: a
    # parser dies with its parent.
    logging.shutdown()
    os._exit(0 if server.started else 1)


def freeze_heap() -> None:
    """Keep what lives as long as the process out of the garbage collector's sight.

    A full collection would walk all of it, modules and models, while every request waits.
    """
    gc.collect()
    gc.freeze()


def _run_processes(settings: ApiSettings) -> int:
    try:
        return Processes(settings).run()
    except OSError as error:
        sys.exit(f"densityd api: cannot listen on {settings.host}:{settings.port}: {error}")


def refuse_unsafe_address(settings: ApiSettings) -> None:
    """Refuse to serve strangers: there are no API keys yet.

    Raises:
        RefusalError: the address is not loopback, and nobody said that this is meant.
    """
    if settings.allow_anonymous or _is_loopback(settings.host):
        return
    raise RefusalError(
        f"DENSITYD_HOST={settings.host} is reachable from elsewhere, and this version has no API"
        " keys: anybody could read and delete everything. Set DENSITYD_ALLOW_ANONYMOUS=true if"
        " that is meant, or use 127.0.0.1."
    )


def check_stores(settings: ApiSettings) -> None:
    """Try the database and the blob store: what is wrong with them is one line, not a traceback.

    Raises:
        StoreError: the process could not serve.
    """
    database = Database(settings.resolved_database_url)
    try:
        database.check_revision()
    finally:
        database.dispose()
    BlobStore(settings.blob_root).ping()


class Server(uvicorn.Server):
    """Uvicorn with our bounds; streams learn at once that the process ends."""

    def __init__(self, app: FastAPI, settings: ApiSettings) -> None:
        """Prepare; nothing is opened yet."""
        self._app = app

        class Protocol(BoundedProtocol):
            header_timeout_s = settings.header_timeout_s
            write_timeout_s = settings.write_timeout_s
            max_connections = connections_that_fit(settings.max_connections)

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
                backlog=_BACKLOG,
                timeout_keep_alive=_KEEP_ALIVE_S,
                timeout_graceful_shutdown=_DRAIN_S,
            )
        )

    def handle_exit(self, sig: int, _frame: FrameType | None) -> None:
        """End: first the streams, which would never end by themselves."""
        self._app.state.stopping.set()
        # Not uvicorn's own, which raises the signal again afterwards: a stop is no failure.
        self.force_exit = self.should_exit and sig == signal.SIGINT
        self.should_exit = True


def _is_loopback(host: str) -> bool:
    """Whether every address that `host` stands for is this machine's own."""
    try:
        found = socket.getaddrinfo(host, None)
    except OSError:
        return False
    return all(ipaddress.ip_address(address[4][0]).is_loopback for address in found)


if __name__ == "__main__":
    main()
