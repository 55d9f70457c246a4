"""The command of child processes that give way to the requests which the server answers meanwhile."""

import sys

# Before anything is imported: that takes most of the time of a small file, and threads inherit it.
_GIVE_WAY = "import os, runpy, sys; os.nice(5); runpy.run_module(sys.argv[1], run_name='__main__', alter_sys=True)"


def child_command(module: str) -> list[str]:
    """Return the command that does what ``python -m module`` does, at a lower priority.

    Args:
        module: Module of ours.
    """
    return [sys.executable, "-P", "-c", _GIVE_WAY, module]
