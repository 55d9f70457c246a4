"""Everything that callers asked and were answered, with the times, as one history."""

import json
import math
import threading
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Call:
    """One call of one caller.

    Attributes:
        caller: Name of the caller, who makes one call at a time.
        action: Name of what was asked, such as ``get_job``.
        target: Identity of what it was asked about: an id, an alias, an idempotency key.
        asked: Further arguments that the checks need.
        begun: Seconds at which the request was sent, by the one clock of the history.
        ended: Seconds at which the answer was there, or known to be lost.
        status: HTTP status; None: the answer was lost.
        said: Parts of the answer that the checks need.
    """

    caller: str
    action: str
    target: str
    begun: float
    ended: float
    asked: Mapping[str, Any] = field(default_factory=dict)
    status: int | None = None
    said: Mapping[str, Any] = field(default_factory=dict)

    @property
    def done(self) -> bool:
        """Return true if the answer says that it was done."""
        return self.status is not None and self.status < 400

    @property
    def refused(self) -> bool:
        """Return true if the answer says that it was not done."""
        return self.status is not None and 400 <= self.status < 500

    @property
    def unsure(self) -> bool:
        """Return true if it may have been done or not: the answer was lost, or is a 5xx."""
        return not self.done and not self.refused

    @property
    def until(self) -> float:
        """Return the last moment at which it may have taken effect.

        What was lost on its way back may still have been on its way there.
        """
        return math.inf if self.unsure else self.ended

    def before(self, other: "Call") -> bool:
        """Return true if this call had ended when the other began."""
        return self.ended < other.begun

    def __str__(self) -> str:
        """Return who asked what, when, and what came of it."""
        said = "no answer" if self.status is None else str(self.status)
        return (
            f"{self.caller}'s {self.action} {self.target} of {self.begun:.3f} to {self.ended:.3f}"
            f" s ({said})"
        )


class History:
    """Calls as they end, in memory and in a file; for any number of threads."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.calls: list[Call] = []
        self._began = time.monotonic()
        self._lock = threading.Lock()
        self._file = path.open("a", encoding="utf-8")

    def now(self) -> float:
        """Return the seconds since the history began."""
        return time.monotonic() - self._began

    def add(self, call: Call) -> None:
        """Append a call that has ended."""
        with self._lock:
            self.calls.append(call)
            self._file.write(json.dumps(asdict(call)) + "\n")
            self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def read_history(lines: Iterable[str]) -> list[Call]:
    """Return the calls of a history file, to check them once more."""
    return [Call(**json.loads(line)) for line in lines]
