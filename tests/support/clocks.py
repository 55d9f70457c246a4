"""A clock that stands still until a test moves it."""

import time
from typing import Any


class Clock:
    """Stands in a module's place of ``time``, whose other functions it leaves as they are.

    Attributes:
        now: Seconds that ``monotonic`` returns.
    """

    def __init__(self) -> None:
        self.now = time.monotonic()

    def monotonic(self) -> float:
        return self.now

    def __getattr__(self, name: str) -> Any:
        return getattr(time, name)
