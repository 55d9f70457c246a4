"""The end of files that may be large.

To free the space of a gibibyte takes a third of a second, and several seconds while it is still being
written to the disk. An event loop would serve nobody meanwhile.
"""

import os
from collections.abc import Callable
from pathlib import Path
from threading import Thread
from typing import IO

_LARGE_BYTES = 16 * 1024 * 1024


def close_apart(file: IO[bytes]) -> None:
    """Close a file without a name, whose space is freed by that, in a thread."""
    _apart(file.close)


def delete_apart(file: Path) -> None:
    """Delete a file, if it is there; its name goes at once, the space of a large one in a thread.

    Raises:
        OSError: It cannot be deleted.
    """
    try:
        handle = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        file.unlink(missing_ok=True)
        return
    try:
        file.unlink(missing_ok=True)
    finally:
        if os.fstat(handle).st_size > _LARGE_BYTES:
            _apart(lambda: os.close(handle))
        else:
            os.close(handle)


def _apart(close: Callable[[], None]) -> None:
    try:
        Thread(target=close, name="closing", daemon=True).start()
    except RuntimeError:  # no more threads, or the interpreter ends
        close()
