"""Columns that do not fit, and a thread that fails or does not end."""

import asyncio
import threading
from collections.abc import Coroutine

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from app.engine.batches import EngineError, ResultShapeError
from app.engine.engine import Engine, OverloadedError, Terms
from app.metrics import EngineMetrics

SHAPES = {
    "one column": (lambda rows: (rows[:, 0],), 1),
    "one column of shape (n, 1)": (lambda rows: (rows[:, :1],), 1),
    "rows in one array": (lambda rows: (rows,), 3),
    "rows and a column": (lambda rows: (rows, rows[:, 0]), 4),
    "columns": (lambda rows: (rows[:, 0], rows[:, 2]), 2),
}


WRONG = {
    "too many columns": lambda rows: (rows,),
    "too few rows": lambda rows: (rows[1:, 0],),
    "three dimensions": lambda rows: (rows[:, None, :],),
    "no number a row": lambda _rows: (np.float64(1.0),),
    "no columns": lambda _rows: (),
}


@pytest.mark.parametrize("n", [1, 63, 64, 65, 255, 256, 257, 5000])
@pytest.mark.parametrize("shape", SHAPES)
def test_columns_of_every_shape_are_written_by_every_way(shape, n):
    """A batch, turns, and the event loop once the function is known to be quick."""
    function, width = SHAPES[shape]
    rows = np.random.default_rng(n).normal(size=(n, 3))
    engine = Engine()
    engine.start()

    async def main() -> None:
        for _ in range(5):
            results = np.full((n, width), np.nan)
            await asyncio.wait_for(engine.apply(function, rows, results, key=shape), 120)
            np.testing.assert_array_equal(results, np.column_stack(function(rows)))

    try:
        asyncio.run(main())
    finally:
        engine.stop()


@pytest.mark.parametrize("n", [1, 64, 65, 1000])
@pytest.mark.parametrize("wrong", WRONG)
def test_columns_that_do_not_fit_fail_their_request_alone(engine, wrong, n):
    async def main() -> None:
        for _ in range(3):
            bad = engine.apply(WRONG[wrong], np.ones((n, 3)), np.empty((n, 1)), key=wrong)
            with pytest.raises((ResultShapeError, ValueError, IndexError)):
                await asyncio.wait_for(bad, 120)
        results = np.empty((n, 1))
        good = engine.apply(lambda rows: (rows[:, 0],), np.ones((n, 3)), results, key="good")
        await asyncio.wait_for(good, 120)
        assert (results == 1).all()
        assert engine.alive
        assert engine.waiting == 0

    asyncio.run(main())


class FailingGauge:
    """A gauge of a metrics folder that cannot be written."""

    def set(self, _value: float) -> None:
        if threading.current_thread().name == "engine":
            raise OSError


@pytest.mark.parametrize("n", [1, 65])
def test_the_engine_goes_on_whatever_is_raised_in_its_thread(n):
    metrics = EngineMetrics(CollectorRegistry())
    metrics.waiting = FailingGauge()  # type: ignore[assignment]  # it fails
    engine = Engine(metrics=metrics)
    engine.start()

    def end_thread(_rows: np.ndarray) -> tuple[np.ndarray]:
        raise SystemExit

    async def main() -> None:
        for _ in range(2):
            ending = engine.apply(end_thread, np.ones((n, 1)), np.empty((n, 1)), key="ends")
            with pytest.raises(EngineError):
                await asyncio.wait_for(ending, 120)
            results = np.empty((n, 1))
            good = engine.apply(lambda rows: (rows[:, 0],), np.ones((n, 1)), results, key=0)
            await asyncio.wait_for(good, 120)
        assert engine.alive

    try:
        asyncio.run(main())
    finally:
        engine.stop()


@pytest.mark.parametrize("n", [1, 65])
@pytest.mark.parametrize("dead", [True, False], ids=["dead", "busy"])
def test_what_waits_is_refused_in_time_whatever_the_thread_does(dead, n):
    engine = Engine(max_wait_s=0.1)
    release = threading.Event()

    async def main() -> None:
        tasks = []
        if not dead:
            engine.start()
            began = threading.Event()

            def block(_start: int, _stop: int) -> None:
                began.set()
                release.wait(120)

            busy = engine.run(block, rows=1)
            tasks.append(asyncio.create_task(busy))
            await asyncio.to_thread(began.wait, 120)
        late = engine.apply(lambda rows: (rows[:, 0],), np.ones((n, 1)), np.empty((n, 1)), key=0)
        with pytest.raises(OverloadedError):
            await asyncio.wait_for(late, 120)
        release.set()
        await asyncio.gather(*tasks)

    asyncio.run(main())
    engine.stop()


def run(main: Coroutine[None, None, None], engine: Engine, release: threading.Event) -> None:
    """Run a test beside an engine, whose thread is released at the end in every case."""
    engine.start()
    try:
        asyncio.run(main)
    finally:
        release.set()
        engine.stop()


@pytest.mark.parametrize("n", [1, 65])
@pytest.mark.parametrize("leaves", [True, False], ids=["left", "refused"])
def test_who_waits_no_longer_keeps_no_place_from_others(leaves, n):
    engine = Engine(max_waiting=6, max_waiting_bytes=100 * n)
    began, release = threading.Event(), threading.Event()

    def block(_start: int, _stop: int) -> None:
        began.set()
        release.wait(120)

    def ask(key: int, terms: Terms) -> asyncio.Task[None]:
        rows, results = np.ones((n, 1)), np.empty((n, 1))
        asked = engine.apply(lambda some: (some[:, 0],), rows, results, key=key, terms=terms)
        return asyncio.create_task(asked)

    async def main() -> None:
        busy = asyncio.create_task(engine.run(block, rows=1))
        assert await asyncio.to_thread(began.wait, 120)
        for key in range(20):
            gone = ask(key, Terms(max_wait_s=None if leaves else 0.001))
            if leaves:
                await asyncio.sleep(0)
                gone.cancel()
            await asyncio.gather(gone, return_exceptions=True)
        assert engine.waiting == 1
        late = ask(0, Terms())
        await asyncio.sleep(0)
        release.set()
        await asyncio.gather(busy, late)
        assert engine.waiting == 0

    run(main(), engine, release)


@pytest.mark.parametrize("n", [1, 64, 65, 1000])
def test_the_rows_of_a_turn_are_bounded_by_memory(n):
    engine = Engine()
    engine.start()
    turns: list[int] = []

    def wide(rows: np.ndarray) -> tuple[np.ndarray]:
        turns.append(len(rows))
        return (rows[:, 0],)

    async def main() -> None:
        terms = Terms(row_bytes=16 * 2**20)
        requests = [(np.full((n, 1), float(k)), np.empty((n, 1))) for k in range(3)]
        await asyncio.gather(
            *(engine.apply(wide, rows, results, key=0, terms=terms) for rows, results in requests)
        )
        assert all((rows == results).all() for rows, results in requests)

    asyncio.run(main())
    engine.stop()
    assert sum(turns) == 3 * n
    assert max(turns) <= 8
