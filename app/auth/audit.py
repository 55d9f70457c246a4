"""Audit log: a record of each change, on the disk before its response is sent."""

import asyncio
import logging
import math
import re
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

from prometheus_client import Counter
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope as AsgiScope, Send

from app.auth.callers import Caller
from app.engine.engine import OverloadedError
from app.problems.problem import Problem, problem_of, problem_of_lack
from models_store.audit.commits import Commits, noting_commits
from models_store.audit.trail import AuditTrail
from models_store.errors import StoreError
from models_store.files.disks import FULL
from tabular.errors import TablesError

log = logging.getLogger("app.audit")

_CANCEL = re.compile(r"/v1/jobs/[^/]+/cancel\Z")
_MAX_PATH = 200
_CANCELLED = 499
_FAILED = 500
# A change is answered after this time at the latest, even if its record is not on the disk.
_PATIENCE_S = 10.0
_MAX_UNWRITTEN = 10_000
_AGAIN_S = 1.0

# Errors that refuse a request before it changed anything.
_REFUSALS = (Problem, StoreError, TablesError, OverloadedError, ClientDisconnect)

Record = Mapping[str, Any]


class AuditLog:
    """Writer of the audit records of one process; belongs to one event loop.

    Records that come while the disk is busy are written together, with one fsync. A record that
    cannot be written is logged as an error at once, kept, and written as soon as that is possible.

    Args:
        trail: Files to append to; None for the log of the process alone.
        failures: Counter of the records that were not on the disk when their change was answered.
    """

    def __init__(self, trail: AuditTrail | None, *, failures: Counter) -> None:
        self._trail = trail
        self._failures = failures
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="audit")
        self._waiting: list[Record] = []
        self._turn: asyncio.Future[None] | None = None
        self._next_turn: asyncio.Future[None] | None = None
        self._unwritten: list[Record] = []
        self._dropped = 0
        self._error: Exception | None = None
        self._writing: asyncio.Task[None] | None = None
        self._again_at = -math.inf

    async def start(self) -> None:
        """Open the trail; where that fails, changes are refused until it can be opened."""
        if self._trail is not None:
            await self._settled(self._soon())

    async def require(self) -> None:
        """Refuse changes while they cannot be recorded.

        Raises:
            Problem: `storage-full` or `storage-unavailable`.
        """
        if self._error is None:
            return
        await self._settled(self._soon())
        if self._error is not None:
            raise _refusal(self._error) from self._error

    def fault(self) -> str | None:
        """Return why changes are refused, None if they are not; beside that it is tried again, now and then."""
        if self._error is None:
            return None
        now = time.monotonic()
        if now >= self._again_at:  # anybody asks, and all that is unwritten is written
            self._again_at = now + _AGAIN_S
            self._soon()
        return _refusal(self._error).detail

    def note(self, record: Record) -> "asyncio.Future[None]":
        """Log a record and return a future that ends once it was written, or could not be."""
        what = record["audit"], record["resource"], record["status"]
        log.info("%s %s answered %d", *what, extra=_fields(record))
        if self._trail is None:
            done = asyncio.get_running_loop().create_future()
            done.set_result(None)
            return done
        self._waiting.append(record)
        return self._soon()

    async def add(self, record: Record) -> None:
        """Log a record and wait until it is on the disk, or known not to get there."""
        written = self.note(record)
        if not await self._settled(written):
            self._failures.inc()
            _log_unwritten([record], "it is not on the disk yet")

    async def close(self) -> None:
        """Write the records that wait, and close the trail."""
        if self._writing is not None:
            await asyncio.wait([self._writing], timeout=_PATIENCE_S)
        if self._trail is not None and (self._writing is None or self._writing.done()):
            await asyncio.get_running_loop().run_in_executor(self._executor, self._trail.close)
        self._executor.shutdown(wait=False)

    async def _settled(self, written: "asyncio.Future[None]") -> bool:
        done, _ = await asyncio.wait([written], timeout=_PATIENCE_S)
        if not done:
            self._error = TimeoutError(f"no answer of the disk within {_PATIENCE_S:g} s")
        return bool(done)

    def _soon(self) -> "asyncio.Future[None]":
        """Return a future that ends when the records that wait now are written."""
        if self._next_turn is None:
            self._next_turn = asyncio.get_running_loop().create_future()
        turn = self._next_turn
        if self._writing is None or self._writing.done():
            self._writing = asyncio.create_task(self._write())
        return turn

    async def _write(self) -> None:
        while self._trail is not None and self._next_turn is not None:
            turn, self._next_turn = self._next_turn, None
            records, self._waiting = self._waiting, []
            await self._write_together(self._trail, records)
            turn.set_result(None)

    async def _write_together(self, trail: AuditTrail, records: list[Record]) -> None:
        batch = [*self._left_out(), *self._unwritten, *records]
        loop = asyncio.get_running_loop()
        try:
            await loop.run_in_executor(self._executor, trail.append, batch)
        except Exception as error:  # noqa: BLE001  whatever it is, changes wait for this
            self._error = error
            self._failures.inc(len(records))
            _log_unwritten(records, str(error))
            self._keep(records)
        else:
            self._error = None
            self._unwritten, self._dropped = [], 0

    def _left_out(self) -> Sequence[Record]:
        if not self._dropped:
            return ()
        return [{"time": _now(), "audit": "left_out", "lines": self._dropped}]

    def _keep(self, records: Sequence[Record]) -> None:
        self._unwritten += records
        beyond = max(0, len(self._unwritten) - _MAX_UNWRITTEN)
        del self._unwritten[:beyond]
        self._dropped += beyond


def _cancels(scope: AsgiScope) -> bool:
    """Return whether a request cancels a job; a name may be `cancel`, too."""
    return scope["method"] == "POST" and _CANCEL.search(scope["path"]) is not None


class AuditedApp:
    """Application that records each change when its response begins, unless it was refused.

    A response of 500 and more is recorded too: some of the change may have happened. So is a refusal
    after something was committed, such as that of the last part of a deletion, or of a response that has
    no room. While records cannot be written, only what makes room is served: DELETE, and the cancelling
    of jobs.
    """

    def __init__(self, app: ASGIApp, caller: Caller) -> None:
        self._app = app
        self._caller = caller
        self._begun = False

    async def __call__(self, scope: AsgiScope, receive: Receive, send: Send) -> None:
        """Serve one request.

        Raises:
            Problem: `storage-full` or `storage-unavailable`, when it could not be recorded.
        """
        audit: AuditLog = scope["app"].state.audit
        if scope["method"] != "DELETE" and not _cancels(scope):
            await audit.require()

        with noting_commits() as commits:
            try:
                await self._app(scope, receive, self._sending(audit, commits, scope, send))
            except asyncio.CancelledError:
                if not self._begun:
                    audit.note(self._record(scope, _CANCELLED))
                raise
            except Exception as error:
                # No variable of this frame may keep what it is told: the error refers to the frame.
                if not self._begun and (commits.any or not isinstance(_told(error), _REFUSALS)):
                    await audit.add(self._record(scope, _status_of(_told(error))))
                raise

    def _sending(self, audit: AuditLog, commits: Commits, scope: AsgiScope, send: Send) -> Send:
        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._begun = True
                if commits.any or not 400 <= message["status"] < 500:
                    await audit.add(self._record(scope, message["status"], message))
            await send(message)

        return sending

    def _record(self, scope: AsgiScope, status: int, answer: Message | None = None) -> Record:
        operation = getattr(scope.get("route"), "operation_id", None) or scope["method"]
        headers = dict((answer or {}).get("headers", ()))
        location = headers.get(b"location", b"").decode("latin-1")
        return {
            "time": _now(),
            "audit": operation,
            "resource": location or scope["path"][:_MAX_PATH],
            "status": status,
            "project": self._caller.project,
            "key_id": self._caller.key_id or "none",
            "request_id": scope["state"]["request_id"],
        }


def _told(error: Exception) -> Exception:
    """Return the refusal that Starlette wraps where the start of a response waited for room, or else the error."""
    return error.__cause__ if isinstance(error.__cause__, Problem) else error


def _status_of(error: Exception) -> int:
    """Return the status of the response to an error, as the access log has it."""
    if isinstance(error, ClientDisconnect):
        return _CANCELLED
    if isinstance(error, OverloadedError):
        error = Problem("overloaded")
    if isinstance(error, (StoreError, TablesError)):
        error = problem_of(error)
    problem = error if isinstance(error, Problem) else problem_of_lack(error)
    return _FAILED if problem is None else problem.status


def _refusal(error: Exception) -> Problem:
    full = isinstance(error, OSError) and error.errno in FULL
    return Problem(
        "storage-full" if full else "storage-unavailable",
        "The audit trail cannot be written; until it can, only DELETE and cancelling are served.",
    )


def _log_unwritten(records: Sequence[Record], why: str) -> None:
    for record in records:
        log.error("the audit trail lacks this record: %s", why, extra=_fields(record))


def _fields(record: Record) -> dict[str, Any]:
    return {name: value for name, value in record.items() if name != "time"}


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
