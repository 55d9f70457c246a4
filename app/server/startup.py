"""The start of a process, which checks its stores, and its end."""

import asyncio
import logging
import os
import signal
from collections.abc import Callable, Iterable
from types import FrameType

from app.engine.watch import end_process
from models_store.database.database import Database
from models_store.errors import (
    BlobDiskError,
    DatabaseBusyError,
    DatabaseUnavailableError,
    StorageFullError,
    StoreError,
)
from models_store.files.blobs import Blobs
from models_store.files.store_identity import adopt
from models_store.process.endings import ending_signals
from models_store.process.traces import TRACES

log = logging.getLogger(__name__)


class Shutdown:
    """End of the process that serves the application.

    Attributes:
        stopping: Event that is set when the server begins to stop.
        draining: True from the signal to stop on, while requests are still served.
        failed: The process must be started again, and its exit status says so.
    """

    def __init__(self) -> None:
        self.stopping = asyncio.Event()
        self.draining = False
        self.failed = False

    def fail(self) -> None:
        """End the process with an exit status that says that it should be started again."""
        self.failed = True
        end_process()


class ServerShutdown(Shutdown):
    """End of a process of uvicorn's: it drains before it stops, and a stop is no failure.

    Args:
        drain_delay_s: Seconds for which the process serves on after a first signal.
    """

    def __init__(self, drain_delay_s: float) -> None:
        super().__init__()
        self._drain_delay_s = drain_delay_s

    def watch_signals(self) -> None:
        """Note the signals that uvicorn ends by, and pass them on once others know that the process stops."""
        stop = signal.getsignal(signal.SIGTERM)
        loop = asyncio.get_running_loop()

        def end(number: int, frame: FrameType | None = None) -> None:
            self.stopping.set()  # streams would never end by themselves
            if callable(stop):
                stop(number, frame)

        def begin(number: int, frame: FrameType | None) -> None:
            delay_s = 0.0 if self.draining else self._drain_delay_s
            self.draining = True
            if delay_s > 0:
                loop.call_soon_threadsafe(lambda: loop.call_later(delay_s, end, number))
            else:
                end(number, frame)

        for number in ending_signals():
            signal.signal(number, begin)

    def exit(self) -> None:
        """End the process now, without waiting for threads: a parser dies with its parent."""
        TRACES.close()
        logging.shutdown()
        os._exit(0 if self.draining and not self.failed else 1)


def check_stores(database: Database, blobs: Blobs) -> list[StoreError]:
    """Refuse what this process could never serve from; return what passes by itself.

    A server of the database or of the store that is down comes back, and requests that need it are
    answered 503 until then. A full disk can be read, and a caller who deletes something makes room.

    Raises:
        StoreError: the database's file or schema, or the blob store, is of no use.
    """
    passing: list[StoreError] = []
    try:
        database.check_revision()
        adopt(database, blobs)
    except DatabaseUnavailableError as error:
        if not database.is_server:
            raise
        passing.append(error)
    except (StorageFullError, BlobDiskError):
        pass  # as the next step tells
    try:
        blobs.ping()
    except StorageFullError as error:
        passing.append(error)
    except BlobDiskError as error:
        if not blobs.is_remote:
            raise
        passing.append(error)
    return passing


def are_away(errors: Iterable[StoreError]) -> bool:
    """Return whether the database or the store is not there, among the errors that pass by themselves."""
    return any(isinstance(error, DatabaseUnavailableError | BlobDiskError) for error in errors)


async def check_later(
    database: Database, blobs: Blobs, *, refuse: Callable[[], None], pause_s: float = 1.0
) -> None:
    """Check again until the database and the store are there; end the process if they are of no use."""
    while True:
        await asyncio.sleep(pause_s)
        try:
            passing = await asyncio.to_thread(check_stores, database, blobs)
        except DatabaseBusyError:
            continue
        except StoreError as error:
            log.error("%s", error)  # noqa: TRY400 - one clear line, the traceback adds nothing
            refuse()
            return
        if not are_away(passing):
            log.info("the database and the store are there")
            return
