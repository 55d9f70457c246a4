"""Limits of the process: open files, of which each connection is one, and freed memory."""

import ctypes
import logging
import resource
import sys
from pathlib import Path

import pyarrow as pa  # type: ignore[import-untyped] # it ships no type information

_FILES_EACH = 3  # of a connection: itself, and at most two files of what its caller reads slowly
ARRIVALS_PART = 0.5
"""Connections that were accepted and wait to begin, as a part of the largest number of connections."""
_SPARE = 256  # files of the database, of uploads and parsers, and listening sockets
# Numbers of the options in glibc's malloc.h.
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8
# A request of ten thousand rows takes a few blocks of a megabyte or two: having the kernel clear
# them anew for each request takes more than a tenth of its time.
_KEPT_BYTES = 8 * 1024 * 1024
_LARGE_BYTES = 2 * 1024 * 1024
_ARENAS = 2

log = logging.getLogger(__name__)


def connections_that_fit(wanted: int) -> int:
    """Raise this process's limit of open files as far as needed, and return what it then allows.

    Args:
        wanted: Number of connections to allow; the result is at most this.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    unlimited = resource.RLIM_INFINITY
    files_each = _FILES_EACH + ARRIVALS_PART
    needed = int(files_each * wanted) + _SPARE
    if soft != unlimited and soft < needed:
        soft = needed if hard == unlimited else min(needed, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    if soft == unlimited or soft >= needed:
        return wanted
    fit = max(1, int((soft - _SPARE) / files_each))
    log.warning("the limit of %d open files leaves room for %d connections only", soft, fit)
    return fit


def return_memory_early() -> None:
    """Have the C library map large blocks by themselves, and share heaps between threads.

    Otherwise glibc takes the first large request body as a sign that such blocks are common, and
    keeps them in one heap for each thread. Call it before there are threads.
    """
    if sys.platform != "linux":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_MMAP_THRESHOLD, _LARGE_BYTES)
        mallopt(_TRIM_THRESHOLD, _KEPT_BYTES)
        mallopt(_ARENA_MAX, _ARENAS)


def resident_bytes() -> int:
    """Return the memory that this process has, in bytes; 0 where the system does not say."""
    try:
        pages = Path("/proc/self/statm").read_text(encoding="ascii").split()[1]
    except OSError:
        return 0
    return int(pages) * resource.getpagesize()


def return_memory() -> None:
    """Give memory back to the system that Arrow and the C library keep between blocks in use."""
    pa.default_memory_pool().release_unused()
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)
