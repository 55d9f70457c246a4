"""``python -m densityd.service.launch PARENT COMMAND...``: run a command that dies with its parent."""

import os
import signal
import sys

from tabular.parent_death import die_with


def main() -> None:
    """Tie this process to its parent, then become the command."""
    parent_pid, *command = sys.argv[1:]
    die_with(int(parent_pid))
    signal.pthread_sigmask(signal.SIG_SETMASK, ())  # the parent takes them where it waits
    os.execv(command[0], command)  # noqa: S606 - the command is our own


if __name__ == "__main__":
    main()
