"""Threads of Arrow, in which Python is called."""

import ctypes
import threading

_known = threading.local()


def keep_state_of_thread() -> None:
    """Have Python keep what it knows of this thread from one call to the next.

    Of a thread that it did not start, Python makes that anew for each call: six microseconds, which Arrow
    takes for each row with too few values. Arrow starts a few such threads, and none of them ends.
    """
    if not hasattr(_known, "is_kept"):
        ctypes.pythonapi.PyGILState_Ensure()  # and never released
        _known.is_kept = True
