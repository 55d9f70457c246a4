"""Child process that draws plots from numbers on standard input to standard output."""

import gc
import io
import os
import resource
import select
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable
from functools import partial
from typing import IO

import matplotlib as mpl
import matplotlib.backends.backend_agg
import numpy as np
from matplotlib.figure import Figure

from app.plots import columns, figures
from app.plots.style import Arrays, use_theme

_IDLE_S = 60.0
# Of the fork that draws one plot; the largest ones take 5 s and 100 MiB.
_MOST_BYTES, _MOST_S = 1 << 30, 50
_TOO_MUCH, _OVER = -1, 3

_DRAWN: dict[str, Callable[[Arrays], Figure]] = {
    "learning-curve": figures.learning_curve,
    "marginals": columns.marginals,
    "pairs": columns.pairs,
    "density": figures.density,
    "noise": figures.noise,
    "images": figures.images,
}


def draw(kind: str, numbers: Arrays) -> Figure:
    """Draw the plot of a kind, and say on it what is left out."""
    note = str(numbers.pop("note", ""))
    figure = _DRAWN[kind](numbers)
    if note:
        title = "\n".join(filter(None, [figure.get_suptitle(), note]))
        figure.suptitle(title, fontsize="small", wrap=True)
    return figure


def main() -> None:
    """Draw one plot after another, until standard input ends or is silent for a while.

    A request is a line with the kind, the format of the file, the theme and the number of bytes that
    follow, the numbers as an npz file. The response is a line with a number of bytes, then the
    file; there are none of a plot that cannot be drawn, and -1 of one that takes too much time or memory.
    """
    mpl.rcParams["svg.hashsalt"] = "densityd"  # equal numbers, equal plots
    gc.collect()
    gc.freeze()  # so that forks share the memory of what is loaded
    given, answers = sys.stdin.buffer, sys.stdout.buffer
    while select.select([given], [], [], _IDLE_S)[0] and (line := given.readline()):
        kind, file_format, theme, size = line.decode().split()
        plot = _in_fork(partial(_draw_file, kind, file_format, theme, given.read(int(size))))
        answers.write(b"%d\n" % _TOO_MUCH if plot is None else b"%d\n%b" % (len(plot), plot))
        answers.flush()


def _draw_file(kind: str, file_format: str, theme: str, numbers: bytes, file: IO[bytes]) -> None:
    use_theme(theme)
    with np.load(io.BytesIO(numbers), allow_pickle=False) as arrays:
        figure = draw(kind, dict(arrays))
    metadata = {"Date": None} if file_format == "svg" else None
    figure.savefig(file, format=file_format, dpi=110, metadata=metadata)


def _in_fork(write: Callable[[IO[bytes]], None]) -> bytes | None:
    """Return what a function writes in a fork of this process.

    Nothing if it fails, None if it takes too much memory or processor time.
    """
    with tempfile.TemporaryFile() as file:
        child = os.fork()
        if child == 0:
            status = 1
            try:
                resource.setrlimit(resource.RLIMIT_DATA, (_MOST_BYTES, _MOST_BYTES))
                resource.setrlimit(resource.RLIMIT_CPU, (_MOST_S, _MOST_S + 1))
                write(file)
                file.flush()
                status = 0
            except MemoryError:
                status = _OVER
            except BaseException:  # noqa: BLE001  the process ends here
                traceback.print_exc()
            finally:
                os._exit(status)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if status in (_OVER, -signal.SIGXCPU, -signal.SIGKILL):
            return None
        file.seek(0)
        return file.read() if status == 0 else b""


if __name__ == "__main__":
    main()
