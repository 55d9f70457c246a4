"""Memory that the API processes of a machine share."""

import os
import sys
import tempfile


def make_shared(size: int) -> int:
    """Return a descriptor of memory, all zero, which lasts as long as a process has it open.

    It is no file with a name: a write to a part of one that has no room on its disk yet kills the
    process when the disk is full, and what cleans folders of old files would delete it.

    Args:
        size: Number of bytes.
    """
    if sys.platform != "linux":
        with tempfile.TemporaryFile() as file:
            file.write(bytes(size))
            file.flush()
            return os.dup(file.fileno())
    memory = os.memfd_create("densityd")
    os.ftruncate(memory, size)
    return memory
