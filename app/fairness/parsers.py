"""Processes that read files, of which small ones do not wait for large ones."""

from functools import partial
from typing import NotRequired, Protocol, TypedDict, TypeVar, Unpack

from app.fairness.turns import Threads
from tabular.errors import TableError

BRIEF_FILE_BYTES = 1 << 20
"""Largest file that is tried for a moment where all parsers are busy."""

_BRIEF_PROCESSOR_S = 3.0
_BRIEF_S = 30.0  # by the clock, where others use the processors, too
_BRIEF_MEMORY_BYTES = 256 << 20

_Result_co = TypeVar("_Result_co", covariant=True)


class Limits(TypedDict):
    """Limits of a process that reads a file, as the functions that start one take them."""

    memory_bytes: int
    timeout_s: float
    processor_s: NotRequired[float]


class Read(Protocol[_Result_co]):
    """Function that reads a file in a process with limits, and may be called again after `dataset-too-large`."""

    def __call__(self, **limits: Unpack[Limits]) -> _Result_co:
        """Read the file."""
        ...


class Parsers:
    """Threads that wait for processes that read files, shared fairly by projects.

    A file may be read for minutes, and as many projects as there are processes can have all of them: then a
    small file is tried in a further one, for a moment, before it waits as the others do.

    Args:
        at_once: Number of processes, but for that one.
        memory_bytes: Most private memory of a process.
        timeout_s: Most seconds of a process.
    """

    def __init__(self, at_once: int, *, memory_bytes: int, timeout_s: float) -> None:
        self._threads = Threads("parsers", at_once, each=max(1, at_once - 1))
        self._brief = Threads("brief parsers", 1, each=1)
        self._limits: Limits = {"memory_bytes": memory_bytes, "timeout_s": timeout_s}
        self._brief_limits: Limits = {
            "memory_bytes": min(memory_bytes, _BRIEF_MEMORY_BYTES),
            "timeout_s": min(timeout_s, _BRIEF_S),
            "processor_s": min(timeout_s, _BRIEF_PROCESSOR_S),
        }

    async def run(self, owner: str, read: Read[_Result_co], *, size: int) -> _Result_co:
        """Call `read` in a thread, when it is the owner's turn.

        Args:
            owner: Project that the file belongs to.
            read: Function that reads the file.
            size: Bytes of the file.
        """
        if size <= BRIEF_FILE_BYTES and not self._threads.is_free(owner):
            try:
                return await self._brief.run(owner, partial(read, **self._brief_limits))
            except TableError as error:
                if error.slug != "dataset-too-large":
                    raise
        return await self._threads.run(owner, partial(read, **self._limits))

    def close(self) -> None:
        """Accept no more calls, and do not wait for running ones."""
        self._threads.close()
        self._brief.close()
