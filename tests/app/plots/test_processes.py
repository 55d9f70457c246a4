"""Processes that draw: used again, replaced when they end, ended with what they draw."""

import asyncio
import io
import os
import subprocess
import sys

import numpy as np
import pytest
import uvloop

from app.plots.processes import DrawingProcesses, PlotTooLargeError

PNG = b"\x89PNG\r\n\x1a\n"
LIGHT, DARK = ("noise", "png", "light"), ("noise", "png", "dark")


def numbers(count=50):
    noise = np.random.default_rng(0).normal(size=(count, 1))
    normal = np.linspace(-2, 2, count)
    buffer = io.BytesIO()
    np.savez(buffer, names=np.array(["a"]), noise=noise, normal=normal)
    return buffer.getvalue()


def test_one_process_draws_plots_that_know_nothing_of_each_other_and_is_replaced_when_it_ends():
    async def main():
        processes = DrawingProcesses()
        light = await processes.draw(LIGHT, numbers())
        assert light.startswith(PNG)
        [first] = processes._idle
        with pytest.raises(RuntimeError, match="could not be drawn"):
            await processes.draw(LIGHT, b"no numbers")
        dark = await processes.draw(DARK, numbers())
        assert dark != light
        assert await processes.draw(LIGHT, numbers()) == light
        assert processes._idle == [first]
        first.kill()
        await first.wait()
        assert await processes.draw(LIGHT, numbers()) == light
        [second] = processes._idle
        assert second.pid != first.pid
        await processes.close()
        assert second.returncode is not None
        assert processes._idle == []

    asyncio.run(main())


def test_a_process_that_ended_while_it_was_idle_is_replaced_on_the_loop_of_the_service():
    async def main():
        processes = DrawingProcesses()
        await processes.draw(LIGHT, numbers())
        [first] = processes._idle
        first.kill()
        await first.wait()
        assert (await processes.draw(LIGHT, numbers())).startswith(PNG)
        await processes.close()

    uvloop.run(main())


def test_plots_give_way_to_the_service():
    async def main():
        processes = DrawingProcesses()
        await processes.draw(LIGHT, numbers())
        [process] = processes._idle
        niceness = os.getpriority(os.PRIO_PROCESS, process.pid)
        await processes.close()
        assert niceness == min(os.getpriority(os.PRIO_PROCESS, 0) + 5, 19)

    asyncio.run(main())


@pytest.mark.long
def test_a_caller_who_leaves_ends_the_process():
    async def main():
        processes = DrawingProcesses()
        await processes.draw(LIGHT, numbers())
        [process] = processes._idle
        drawing = asyncio.create_task(processes.draw(LIGHT, numbers(100_000)))
        await asyncio.sleep(0)
        assert processes._idle == []  # it has been asked
        drawing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await drawing
        assert process.returncode == -9
        assert processes._idle == []

    asyncio.run(main())


@pytest.mark.long
@pytest.mark.parametrize("silent", [True, False])
def test_a_process_ends_by_itself_when_nothing_is_asked(silent):
    code = (
        f"from app.plots import drawing; drawing._IDLE_S = {0.01 if silent else 60}; drawing.main()"
    )
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as process:  # noqa: S603  our own
        assert process.stdin is not None
        if not silent:
            process.stdin.close()  # the service has ended
        assert process.wait(60) == 0


LIMITS = """
import sys
from app.plots import drawing

def spin(file):
    while True:
        pass

def fill(file):
    bytearray(3 << 30)

drawing._MOST_S = 1
sys.stdout.write(repr([drawing._in_fork(work) for work in (fill, spin, lambda file: file.write(b"x"))]))
"""


@pytest.mark.long
def test_a_plot_that_takes_too_much_memory_or_time_ends_and_no_other():
    command = [sys.executable, "-P", "-c", LIMITS]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True)  # noqa: S603  our own
    assert done.stdout == b"[None, None, b'x']"


def test_a_process_that_says_that_a_plot_is_too_large_draws_the_next_one(monkeypatch):
    code = "import sys; [print(-1, flush=True) for line in sys.stdin]"

    async def start():
        command = (sys.executable, "-I", "-S", "-c", code)
        pipe = subprocess.PIPE
        return await asyncio.create_subprocess_exec(
            *command, stdin=pipe, stdout=pipe, start_new_session=True
        )

    monkeypatch.setattr("app.plots.processes._start", start)

    async def main():
        processes = DrawingProcesses()
        for _ in range(2):
            with pytest.raises(PlotTooLargeError):
                await processes.draw(LIGHT, b"")
        assert len(processes._idle) == 1
        await processes.close()

    asyncio.run(main())
