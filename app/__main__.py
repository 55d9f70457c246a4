"""``python -m app``: the API process."""

import gc
import os
import sys

_ALLOCATOR = "PYTHONMALLOC"
_C_LIBRARY = "malloc"


def main() -> None:
    """Import the service and run it."""
    allocate_by_the_c_library()
    # Nothing of what is imported is garbage, which to find out takes a fifth of the start.
    gc.disable()
    from app.serve import main as serve  # noqa: PLC0415

    gc.enable()
    serve()


def allocate_by_the_c_library() -> None:
    """Start this process again, once, with small objects in the heap of the C library.

    Python's own allocator gives memory back by the megabyte, once nothing in it is in use: what a
    crowd of connections leaves, the value of a counter here and a string there, keeps nearly all that it
    had. The C library gives back each free page. If PYTHONMALLOC is set, its value is used instead.
    """
    if sys.platform != "linux":
        return
    if _ALLOCATOR not in os.environ:
        environment = {**os.environ, _ALLOCATOR: _C_LIBRARY}
        command = [sys.executable, *sys.orig_argv[1:]]
        os.execve(sys.executable, command, environment)  # noqa: S606 - this process
    if os.environ[_ALLOCATOR] == _C_LIBRARY:
        del os.environ[_ALLOCATOR]  # short-lived children need none of it


if __name__ == "__main__":
    main()
