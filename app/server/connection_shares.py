"""Open connections of each API process of a machine, by which they share new ones evenly."""

import mmap
import sys
import time
from collections.abc import Sequence

_ROW = 2  # numbers: connections, and when that was written in ns; 0 of a process that takes none
_BYTES = 8  # of a number
_TOLERATED = (
    1 / 16
)  # beyond the mean: among many connections, processes need not wait for each other


class ConnectionShares:
    """Numbers of open connections of the API processes of a machine, in memory that they share.

    Each process has a row and writes nowhere else, so that nothing is locked. The row of a process
    that died stays until another process finds it silent, or the next one with the row clears it.

    Args:
        memory: Descriptor of the memory that holds the rows.
        index: Row of this process.
    """

    def __init__(self, memory: int, *, index: int) -> None:
        self._numbers = memoryview(mmap.mmap(memory, 0)).cast("q")
        self._mine = _ROW * index
        self._others = [at for at in range(0, len(self._numbers), _ROW) if at != self._mine]
        self._silent_since = 0
        self.leave()

    @staticmethod
    def size(processes: int) -> int:
        """Return the bytes of this many processes; where all are zero, none takes connections yet."""
        return _BYTES * _ROW * processes

    def tell(self, connections: int) -> None:
        """Tell the others how many connections are open, and that this process takes more."""
        self._numbers[self._mine] = connections
        self._numbers[self._mine + 1] = time.monotonic_ns()

    def leave(self) -> None:
        """Tell the others that this process takes no connections until it says how many are open."""
        self._numbers[self._mine + 1] = 0

    def ignore_silent(self, since_ns: int) -> None:
        """Leave out, until they say something, processes that have said nothing for some time.

        Args:
            since_ns: Beginning of that time, by the monotonic clock.
        """
        self._silent_since = since_ns

    def room(self) -> int:
        """Return how many connections this process may take before it must look again."""
        numbers = self._numbers
        others = [numbers[at] for at in self._others if numbers[at + 1] > self._silent_since]
        return room_beside(others, numbers[self._mine])


def room_beside(others: Sequence[int], mine: int) -> int:
    """Return how many connections a process may take: while it has no more than the mean of all.

    The process with the fewest may always take one, so that never all wait for each other.

    Args:
        others: Numbers of open connections of the other processes that take some.
        mine: Number of open connections of this process.
    """
    if not others:
        return sys.maxsize
    # It may take one while mine <= (1 + tolerated) * (mine + those of others) / processes.
    weight = 1 + _TOLERATED
    most = int(weight * sum(others) / (len(others) + 1 - weight))
    return max(0, most + 1 - mine)
