"""An engine that stands still or has ended, alone and in real processes."""

import asyncio
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from app.engine.engine import QUICK_ROWS, Engine
from app.engine.watch import EngineWatch
from tests.api.conftest import add_model, listening
from tests.support.waiting import until, wait_until

pytestmark = pytest.mark.anyio
ROWS = {"rows": [[170.0, 70.0, 40.0]] * 2 * QUICK_ROWS}  # are not computed on the event loop
# A fault in the API process: its engine breaks down, once, when a file is there.
BROKEN = """
import sys
if sys.orig_argv[-2:] == ["-m", "app"]:
    import time
    from pathlib import Path
    from app.engine.engine import Engine
    folder, apply = Path(__file__).parent, Engine.apply

    async def breaks_down(engine, *args, **options):
        for kind, fault in (("stands", lambda: time.sleep(1000)), ("ends", sys.exit)):
            try:
                (folder / kind).unlink()
            except FileNotFoundError:
                continue
            await engine.run(fault)
        return await apply(engine, *args, **options)

    Engine.apply = breaks_down
"""


async def test_an_engine_that_stands_still_is_told_and_then_given_up():
    engine = Engine()
    engine.start()
    watch = EngineWatch(engine, stall_s=1)
    ended: list[str | None] = []
    release = [threading.Event(), threading.Event()]

    async def stand(until_set: threading.Event) -> None:
        await engine.run(lambda: until_set.wait(120))

    watching = asyncio.create_task(watch.run(end=lambda: ended.append(watch.fault)))
    first = asyncio.create_task(stand(release[0]))
    await until(lambda: watch.fault is not None)
    release[0].set()
    await first
    await until(lambda: watch.fault is None)  # it continues, and so does the process
    assert ended == []

    second = asyncio.create_task(stand(release[1]))
    await until(lambda: ended != [])
    release[1].set()
    await asyncio.gather(second, watching)
    engine.stop()
    assert "for 1 s" in str(ended)


def test_an_engine_that_has_ended_is_given_up_at_once():
    engine = Engine()  # its thread was not started
    watch = EngineWatch(engine, stall_s=60)
    ended: list[str | None] = []
    asyncio.run(asyncio.wait_for(watch.run(end=lambda: ended.append(watch.fault)), 120))
    assert ended == ["The thread that computes has ended."]


async def test_work_that_goes_on_and_an_idle_engine_are_no_fault():
    engine = Engine()
    engine.start()
    watch = EngineWatch(engine, stall_s=0.5)
    watching = asyncio.create_task(watch.run(end=lambda: None))
    await asyncio.sleep(1.5)
    for _ in range(150):
        await engine.run(lambda: time.sleep(0.01))
    assert watch.fault is None
    assert not watching.done()
    watching.cancel()
    engine.stop()


class Api:
    """An API process, or several below a parent, with the model `people` and a fault to come."""

    def __init__(self, folder: Path, process: "subprocess.Popen[bytes]", url: str) -> None:
        self._folder, self.process, self.url = folder, process, url

    def break_down(self, kind: str) -> None:
        """Have the engine of one process end or stand still when it is asked next."""
        (self._folder / kind).touch()

    def score(self) -> int | None:
        """The status of a score; None where the connection broke."""
        try:
            url = f"{self.url}/v1/models/people/log_prob"
            return httpx.post(url, json=ROWS, timeout=60).status_code
        except httpx.TransportError:
            return None

    def wait_until_scored(self) -> None:
        wait_until(lambda: self.score() == 200, "scores do not come back")


UP = ("-c", "from densityd.cli import main; main()", "up", "--verbose")


@contextmanager
def broken_api(folder: Path, *command: str, **variables: str) -> Iterator[Api]:
    add_model(folder)
    code = folder / "code"
    code.mkdir()
    (code / "sitecustomize.py").write_text(BROKEN)
    with listening(folder, *command, PYTHONPATH=str(code), **variables) as (url, process):
        api = Api(code, process, url)
        api.wait_until_scored()
        yield api


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_process_whose_engine_has_ended_is_started_again(data_dir):
    told = "api ended with status 1; it starts again"
    with broken_api(data_dir, *UP) as api:
        wait_until(lambda: "Ctrl-C" in (data_dir / "log").read_text())
        api.break_down("ends")
        log = data_dir / "log"
        wait_until(lambda: api.score() and told in log.read_text(), "the process continues")
        assert "The thread that computes has ended." in log.read_text()
        api.wait_until_scored()
        assert api.process.poll() is None


@pytest.mark.slow
def test_a_process_whose_engine_stands_still_is_unready_and_then_ends(data_dir):
    with broken_api(data_dir, DENSITYD_TEST_ENGINE_STALL_S="2") as api:
        api.break_down("stands")
        asked = threading.Thread(target=api.score)
        asked.start()
        wait_until(lambda: httpx.get(f"{api.url}/readyz", timeout=60).status_code != 200)
        ready = httpx.get(f"{api.url}/readyz", timeout=60)
        assert ready.json()["checks"]["engine"]["ok"] is False
        assert ready.json()["checks"]["store"]["ok"] is True
        assert api.process.wait(120) == 1
        asked.join()
    log = (data_dir / "log").read_text()
    assert "Nothing was computed for 2 s." in log
    assert "time.sleep(1000)" in log  # where it stood
