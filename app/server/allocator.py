"""The C library's allocator, told to give back what large requests took."""

import ctypes
import sys

# The numbers that glibc's malloc.h gives these options.
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8
# A request of ten thousand rows takes a few blocks of a megabyte or two: to have the kernel clear
# them anew for each costs it more than a tenth of its time.
_KEPT_BYTES = 4 * 1024 * 1024
_LARGE_BYTES = 2 * 1024 * 1024
_ARENAS = 2


def return_memory_early() -> None:
    """Map large blocks alone and share heaps between threads; call before there are threads.

    By itself glibc learns from the first large body that such blocks are common, and from then on
    keeps them in one heap a thread.
    """
    if sys.platform != "linux":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_MMAP_THRESHOLD, _LARGE_BYTES)
        mallopt(_TRIM_THRESHOLD, _KEPT_BYTES)
        mallopt(_ARENA_MAX, _ARENAS)
