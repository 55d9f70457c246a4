"""Processes that draw plots, which stay for a while with their libraries loaded."""

import asyncio
import os
import signal
from asyncio.subprocess import PIPE, Process
from contextlib import suppress

from tabular.sandbox.child_command import child_command
from tabular.sandbox.child_environment import child_environment

# A process that forks must not have threads of its own.
_ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


class PlotTooLargeError(Exception):
    """A plot that takes too much time or memory to draw."""


class DrawingProcesses:
    """Processes of `app.plots.drawing`, one for each plot that is drawn at the same time.

    To load the libraries takes longer than to draw most plots. A process therefore draws one plot
    after another, each in a fork of itself, and ends by itself when none was asked for in a minute.
    Belongs to one event loop.
    """

    def __init__(self) -> None:
        self._idle: list[Process] = []

    async def draw(self, arguments: tuple[str, ...], numbers: bytes) -> bytes:
        """Draw a plot.

        Args:
            arguments: Kind, format and theme.
            numbers: Numbers to draw, as an npz file.

        Raises:
            RuntimeError: It could not be drawn.
            PlotTooLargeError: It takes too much time or memory.
        """
        head = f"{' '.join(arguments)} {len(numbers)}\n".encode()
        while self._idle:
            process = self._idle.pop()
            if process.stdin is not None and process.stdin.is_closing():
                await _end(process)  # a write would fail, with an error of uvloop's own
                continue
            try:
                return await self._ask(process, head + numbers)
            except (OSError, EOFError):
                continue  # it ended while it was idle
        try:
            return await self._ask(await _start(), head + numbers)
        except (OSError, EOFError) as error:
            raise RuntimeError("a plot could not be drawn") from error

    async def close(self) -> None:
        """End the processes that are idle."""
        while self._idle:
            await _end(self._idle.pop())

    async def _ask(self, process: Process, request: bytes) -> bytes:
        assert process.stdin is not None  # noqa: S101  it has pipes
        assert process.stdout is not None  # noqa: S101  as above
        try:
            process.stdin.write(request)
            await process.stdin.drain()
            size = int(await process.stdout.readuntil())
            plot = await process.stdout.readexactly(max(0, size))
        except BaseException:
            await _end(process)
            raise
        self._idle.append(process)
        if size < 0:
            raise PlotTooLargeError
        if not plot:
            raise RuntimeError("a plot could not be drawn")
        return plot


async def _start() -> Process:
    return await asyncio.create_subprocess_exec(
        *child_command("app.plots.drawing"),
        stdin=PIPE,
        stdout=PIPE,
        env=child_environment(**_ONE_THREAD),
        start_new_session=True,  # its forks end with it
    )


async def _end(process: Process) -> None:
    if process.returncode is None:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    await process.communicate()  # closes its pipes
