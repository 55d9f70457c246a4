"""Background checks of the dependencies of a process, whose results are ready for each request."""

import logging
import math
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from enum import IntEnum

from models_store.database.database import Database
from models_store.errors import (
    BlobDiskError,
    DatabaseBusyError,
    DatabaseError,
    DatabaseUnavailableError,
    StorageFullError,
    StoreError,
)
from models_store.files.blobs import Blobs
from models_store.files.store_identity import known_identity

log = logging.getLogger(__name__)

_AGAIN_S = 1.0  # while something is amiss


class Level(IntEnum):
    """Severity of a finding."""

    OK = 0
    DEGRADED = 1
    UNUSABLE = 2


@dataclass(frozen=True)
class Finding:
    """Finding of a look at one thing."""

    level: Level
    detail: str = "ok"


_OK = Finding(Level.OK)


class Lookout:
    """A thread that looks at the database, the store and the broker now and then.

    Args:
        database: Database, looked at by a read and by a write that changes nothing.
        blobs: Store, looked at without writing to it.
        ping: Function that returns why the broker cannot be used, or None.
        every_s: Seconds from one look to the next, while all is well.
        stale_s: Seconds without a database server for which models and keys are served from memory.
        stuck_s: Seconds after which a look should have ended: it does, unless a disk or a network file system
            hangs.

    Attributes:
        seconds: Seconds that the last look at each thing took.
    """

    def __init__(
        self,
        database: Database,
        blobs: Blobs,
        ping: Callable[[], str | None] = lambda: None,
        *,
        every_s: float,
        stale_s: float = 0.0,
        stuck_s: float = 30.0,
    ) -> None:
        self._database = database
        self._blobs = blobs
        self._ping = ping
        self._looks: dict[str, Callable[[], Finding]] = {
            "schema": self._look_at_schema,
            "database": self._look_at_database,
            "store": self._look_at_store,
            "broker": self._look_at_broker,
        }
        self._every_s = every_s
        self._stale_s = stale_s if database.is_server else 0.0
        self._stuck_s = stuck_s
        self._well_at = -math.inf
        self._identity: str | None = None
        self.seconds: dict[str, float] = {}
        self._found: Mapping[str, Finding] = {}
        self._ended_at = time.monotonic()
        self._first = threading.Event()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="lookout", daemon=True)

    def start(self, *, wait_s: float) -> None:
        """Begin to look, and wait for the first look, but not for longer than this many seconds."""
        self._thread.start()
        self._first.wait(wait_s)

    def stop(self) -> None:
        """Look no more; a look that is under way is not waited for."""
        self._stopping.set()

    def join(self, timeout_s: float) -> None:
        """Wait for the end of the look that is under way, but not for longer than this many seconds."""
        if self._thread.is_alive():
            self._thread.join(timeout_s)

    def found(self) -> Mapping[str, Finding]:
        """Return what the last look found; it takes no lock and waits for nothing."""
        age_s = time.monotonic() - self._ended_at
        if age_s > self._every_s + self._stuck_s:
            stuck = Finding(Level.UNUSABLE, f"The look at them has not ended for {age_s:.0f} s.")
            return dict.fromkeys(self._looks, stuck)
        unknown = Finding(Level.UNUSABLE, "It was not looked at yet.")
        return self._found or dict.fromkeys(self._looks, unknown)

    def usable(self) -> dict[str, bool]:
        """Return for each thing whether it can be used, as far as the last look found."""
        return {name: finding.level is Level.OK for name, finding in self.found().items()}

    def _run(self) -> None:
        while not self._stopping.is_set():
            found = {name: self._look(name, look) for name, look in self._looks.items()}
            amiss = {name: finding.level for name, finding in found.items() if finding.level}
            if amiss != {name: old.level for name, old in self._found.items() if old.level}:
                log.warning("readiness: %s", {name: found[name].detail for name in amiss} or "ok")
            self._found = found
            self._ended_at = time.monotonic()
            self._first.set()
            self._stopping.wait(min(self._every_s, _AGAIN_S) if amiss else self._every_s)

    def _look(self, name: str, look: Callable[[], Finding]) -> Finding:
        began = time.monotonic()
        try:
            return look()
        except (StorageFullError, DatabaseBusyError) as error:
            full = isinstance(error, StorageFullError)
            return Finding(Level.DEGRADED, f"{error} Reading still works." if full else str(error))
        except DatabaseUnavailableError as error:
            if time.monotonic() - self._well_at < self._stale_s:
                detail = f"{error} Models and keys that were in use are served from memory."
                return Finding(Level.DEGRADED, detail)
            return Finding(Level.UNUSABLE, str(error))
        except StoreError as error:
            return Finding(Level.UNUSABLE, str(error))
        except Exception:
            log.exception("a look at what the process depends on failed")
            return Finding(Level.UNUSABLE, "The look at it failed; the log says how.")
        finally:
            self.seconds[name] = time.monotonic() - began

    def _look_at_schema(self) -> Finding:
        self._database.check_schema()
        return _OK

    def _look_at_database(self) -> Finding:
        self._database.ping()
        self._database.try_write()
        self._well_at = time.monotonic()
        return _OK

    def _look_at_store(self) -> Finding:
        """Find out whether the store is there, has room, and is the one of the database."""
        try:
            self._blobs.look()
            with suppress(DatabaseError):  # which has a look of its own
                self._identity = self._identity or known_identity(self._database)
            if self._identity is not None:
                self._blobs.check_identity(self._identity)
        except BlobDiskError as error:
            if not self._blobs.is_remote:
                raise
            return Finding(Level.DEGRADED, str(error))  # models in memory and copies are served
        return _OK

    def _look_at_broker(self) -> Finding:
        if self._ping() is None:
            return _OK
        detail = "The broker cannot be reached; jobs start up to 1.5 seconds later."
        return Finding(Level.DEGRADED, detail)
