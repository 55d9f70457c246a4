"""Logs: one JSON object a line on standard error, with the ids of the request, job and trace."""

import asyncio
import logging
import math
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from datetime import UTC, datetime
from json import dumps
from json.encoder import encode_basestring_ascii as _quoted
from types import TracebackType

REQUEST_ID: ContextVar[str | None] = ContextVar("request_id", default=None)
"""The HTTP request that all this is about, in the API and in the worker of its job."""

JOB_ID: ContextVar[str | None] = ContextVar("job_id", default=None)
"""The job that is being worked on."""

TRACEPARENT: ContextVar[str | None] = ContextVar("traceparent", default=None)
"""The W3C trace context of the present span, or of the caller's while no traces are made."""

log = logging.getLogger(__name__)

# They log what the service logs itself, or what nobody reads.
_QUIET = ("alembic", "amqp", "asyncio", "celery", "httpcore", "httpx", "kombu", "multipart")
_QUIET_BELOW_ERROR = ("uvicorn.access",)
_OWN_HANDLERS = ("uvicorn", "uvicorn.error", "uvicorn.access", "celery", "celery.task")
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {
    "asctime",
    "color_message",
    "message",
    "taskName",
}


@contextmanager
def log_context(
    *, request_id: str | None = None, job_id: str | None = None, traceparent: str | None = None
) -> Iterator[None]:
    """Add ids to every line that is logged inside, in this thread or task."""
    request_token = REQUEST_ID.set(request_id)
    job_token = JOB_ID.set(job_id)
    trace_token = TRACEPARENT.set(traceparent)
    try:
        yield
    finally:
        TRACEPARENT.reset(trace_token)
        JOB_ID.reset(job_token)
        REQUEST_ID.reset(request_token)


def configure_logging(level: str, process: str) -> None:
    """Send every log line of this process to standard error as JSON; called once, at its entry.

    Args:
        level: the lowest level that is logged.
        process: the name of the process in each line, such as ``api``.
    """
    handler = JsonHandler(process)
    root = logging.getLogger()
    for old in list(root.handlers):
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(level)
    for name in _OWN_HANDLERS:
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True
    for name in _QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)
    for name in _QUIET_BELOW_ERROR:
        logging.getLogger(name).setLevel(logging.ERROR)
    # What no line says need not be found out for each: the caller's place in the code, and where
    # it runs.
    logging._srcfile = None
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    logging.captureWarnings(capture=True)
    sys.excepthook = _log_uncaught
    threading.excepthook = _log_uncaught_in_thread


class JsonFormatter(logging.Formatter):
    """Writes a record as one JSON object on one line, whatever its message holds."""

    def __init__(self, process: str) -> None:
        super().__init__()
        self._process = process

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        made_at = datetime.fromtimestamp(record.created, UTC)
        fields: dict[str, object] = {
            "time": f"{made_at:%Y-%m-%dT%H:%M:%S}.{int(record.msecs):03d}Z",
            "level": record.levelname,
            "process": self._process,
            "logger": record.name,
            "message": record.getMessage(),
            "request_id": REQUEST_ID.get(),
            "job_id": JOB_ID.get(),
        }
        if (place := TRACEPARENT.get()) is not None:
            _, fields["trace_id"], fields["span_id"], _ = place.split("-", 3)
        if record.exc_info:
            fields["exception"] = self.formatException(record.exc_info)
        if record.stack_info:
            fields["stack"] = record.stack_info
        for name in sorted(vars(record).keys() - _STANDARD - fields.keys()):
            fields[name] = _scalar(vars(record)[name])
        # ASCII: no line separator and no terminal escape of a message reaches the stream.
        return dumps({name: value for name, value in fields.items() if value is not None})


class JsonHandler(logging.StreamHandler):  # type: ignore[type-arg]  # of any text stream
    """Handler that writes JSON lines to standard error, some of them later and together."""

    def __init__(self, process: str) -> None:
        super().__init__()
        self.process = process
        self.setFormatter(JsonFormatter(process))
        self._waiting: list[str] = []

    def write_soon(self, line: str) -> bool:
        """Keep a whole line until the next flush; return whether it is the first that waits."""
        self._waiting.append(line)
        return len(self._waiting) == 1

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record, behind the lines that wait."""
        self._write_waiting()
        super().emit(record)

    def flush(self) -> None:
        """Write the lines that wait."""
        with self.lock or nullcontext():
            self._write_waiting()
            super().flush()

    def _write_waiting(self) -> None:
        count = len(self._waiting)  # the event loop may add one meanwhile, behind these
        if count:
            self.stream.write("".join(self._waiting[:count]))
            del self._waiting[:count]


class AccessLog:
    """Log of requests, which takes no record of `logging` where nobody but the JSON lines would see it.

    Lines of one turn of the event loop are written together.

    Args:
        logger: Logger whose lines they are.
    """

    def __init__(self, logger: logging.Logger) -> None:
        self._logger = logger
        self._root = logging.getLogger()
        self._second, self._stamp = 0, ""

    def write(self, level: int, message: str, fields: Mapping[str, str | None]) -> None:
        """Log a request, with further fields; call this in an event loop.

        Args:
            fields: Fields in the order of their names.
        """
        if not self._logger.isEnabledFor(level):
            return
        handlers = self._root.handlers
        handler = handlers[0] if len(handlers) == 1 and not self._logger.handlers else None
        if not isinstance(handler, JsonHandler):
            self._logger.log(level, "%s", message, extra=dict(fields))
            return
        now = time.time()
        second = int(now)
        if second != self._second:
            self._second, self._stamp = second, time.strftime("%FT%T", time.gmtime(second))
        trace = ""
        if (place := TRACEPARENT.get()) is not None:
            _, trace_id, span_id, _ = place.split("-", 3)
            trace = f', "trace_id": "{trace_id}", "span_id": "{span_id}"'
        rest = "".join(
            [f', "{name}": {_quoted(text)}' for name, text in fields.items() if text is not None]
        )
        line = (
            f'{{"time": "{self._stamp}.{int(1000 * (now - second)):03d}Z",'
            f' "level": "{logging.getLevelName(level)}", "process": "{handler.process}",'
            f' "logger": "{self._logger.name}", "message": {_quoted(message)},'
            f' "request_id": "{REQUEST_ID.get()}"{trace}{rest}}}\n'
        )
        if handler.write_soon(line):
            asyncio.get_running_loop().call_soon(handler.flush)


def _scalar(value: object) -> object:
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value if isinstance(value, str | int | float | None) else str(value)


def _log_uncaught(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    if issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, error, trace)
        return
    log.critical("an error ended the process", exc_info=(kind, error, trace))


def _log_uncaught_in_thread(hook: threading.ExceptHookArgs) -> None:
    if hook.exc_value is None or issubclass(hook.exc_type, SystemExit):
        return
    log.critical(
        "an error ended a thread", exc_info=(hook.exc_type, hook.exc_value, hook.exc_traceback)
    )
