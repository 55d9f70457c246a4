"""Bounds on lines of one kind, so that nobody can push all others out of the log."""

import logging
import math
from collections.abc import Iterator
from dataclasses import dataclass

LIMITED = "limited"
"""Attribute of a record: a name of its kind. Warnings and errors are of a kind by themselves."""

_WINDOW_S = 10.0
_MAX_LINES = 20
_MAX_TRACEBACKS = 3
_MAX_KINDS = 200
_OTHERS = "of many kinds"
# Each of its lines is one change, which is to be found.
_UNLIMITED = "app.audit"

_Kind = str | tuple[object, object]

log = logging.getLogger(__name__)


@dataclass
class _Window:
    name: str
    until: float
    passed: int = 0
    left_out: int = 0


class LineLimits:
    """Lets this many lines of a kind pass in ten seconds, and counts the others; for one thread at a time.

    Args:
        max_lines: Number of lines of one kind.
        max_tracebacks: Number of lines with a traceback that end at the same place in the code.
    """

    def __init__(
        self, *, max_lines: int = _MAX_LINES, max_tracebacks: int = _MAX_TRACEBACKS
    ) -> None:
        self._max_lines = max_lines
        self._max_tracebacks = max_tracebacks
        self._windows: dict[_Kind, _Window] = {}
        self._due = math.inf

    def passing(self, record: logging.LogRecord) -> Iterator[logging.LogRecord]:
        """Yield what is to be written now: counts of lines left out that are due, and the record."""
        if record.created >= self._due:
            yield from self.left_out(before=record.created)
        if self._passes(record):
            yield record

    def left_out(self, *, before: float = math.inf) -> Iterator[logging.LogRecord]:
        """Yield one line for each kind of which lines were left out, and begin to count anew.

        Args:
            before: Seconds since the epoch; only windows that ended by then.
        """
        for kind, window in list(self._windows.items()):
            if window.until <= before:
                del self._windows[kind]
                if window.left_out:
                    yield logging.makeLogRecord(
                        {
                            "name": log.name,
                            "levelno": logging.WARNING,
                            "levelname": "WARNING",
                            "msg": "%d lines more were left out within %g s: %s",
                            "args": (window.left_out, _WINDOW_S, window.name),
                        }
                    )
        self._due = min((window.until for window in self._windows.values()), default=math.inf)

    def _passes(self, record: logging.LogRecord) -> bool:
        kind = _kind(record)
        if kind is None:
            return True
        if kind not in self._windows and len(self._windows) >= _MAX_KINDS:
            kind = _OTHERS
        window = self._windows.get(kind)
        if window is None:
            window = self._windows[kind] = _Window(_name(kind), record.created + _WINDOW_S)
            self._due = min(self._due, window.until)
        if window.passed < (self._max_tracebacks if record.exc_info else self._max_lines):
            window.passed += 1
            return True
        window.left_out += 1
        return False


def _kind(record: logging.LogRecord) -> _Kind | None:
    given: str | None = getattr(record, LIMITED, None)
    if given is not None:
        return given
    if record.levelno < logging.WARNING or record.name == _UNLIMITED:
        return None
    if record.exc_info and record.exc_info[0] is not None:
        trace = record.exc_info[2]
        while trace is not None and trace.tb_next is not None:
            trace = trace.tb_next
        where = None if trace is None else (trace.tb_frame.f_code.co_filename, trace.tb_lineno)
        return record.exc_info[0].__name__, where
    return record.name, record.msg if isinstance(record.msg, str) else type(record.msg)


def _name(kind: _Kind) -> str:
    return kind if isinstance(kind, str) else " ".join(map(str, kind))  # a pair otherwise
