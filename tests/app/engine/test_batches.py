import asyncio
import threading
import time

import numpy as np
import pytest

from app.engine.engine import Engine
from app.limits import Threads, on_account_of


@pytest.fixture
def engine():
    engine = Engine()
    engine.start()
    yield engine
    engine.stop()


class Doubling:
    """A function that notes who computed it, and how many rows at a time."""

    def __init__(self, seconds=0.0):
        self.seconds = seconds
        self.threads = []
        self.rows = []

    def __call__(self, rows):
        self.threads.append(threading.current_thread().name)
        self.rows.append(len(rows))
        until = time.thread_time() + self.seconds
        while time.thread_time() < until:
            pass
        return (2 * rows[:, 0],)


async def doubled(engine, function, value, key="double"):
    results = np.empty((1, 1))
    await engine.apply(function, np.full((1, 1), value), results, key=key)
    return float(results[0, 0])


async def make_known(engine, function, key="double"):
    """Until the engine has learnt that the function is quick."""
    for _ in range(200):
        await doubled(engine, function, 0.0, key)
        if function.threads[-1] == "MainThread":
            break
        await asyncio.sleep(0.01)
    function.threads.clear()
    function.rows.clear()


def test_what_is_known_to_be_quick_is_computed_on_the_event_loop(engine):
    function = Doubling()

    async def main():
        await doubled(engine, function, 1.0)
        first = function.threads[0]
        await make_known(engine, function)
        for value in (0.0, 1.0, 2.0):
            assert await doubled(engine, function, value) == 2 * value
        return first

    assert asyncio.run(main()) == "engine"
    assert function.threads == ["MainThread"] * 3


def test_what_comes_in_one_turn_is_computed_together(engine):
    function = Doubling()

    async def main():
        await make_known(engine, function)
        await asyncio.gather(*(doubled(engine, function, 1.0) for _ in range(4)))  # learns
        results = await asyncio.gather(*(doubled(engine, function, k) for k in range(16)))
        assert results == [2.0 * k for k in range(16)]

    asyncio.run(main())
    assert max(function.rows) == 16


def test_what_is_slow_stays_off_the_event_loop(engine):
    function = Doubling(seconds=0.005)

    async def main():
        for value in range(3):
            assert await doubled(engine, function, value) == 2 * value

    asyncio.run(main())
    assert function.threads == ["engine"] * 3


def test_what_gets_slow_leaves_the_event_loop(engine):
    function = Doubling()

    async def main():
        await make_known(engine, function)
        function.seconds = 0.005
        for value in map(float, range(12)):
            assert await doubled(engine, function, value) == 2 * value

    asyncio.run(main())
    assert function.threads[-1] == "engine"


def test_an_error_harms_neither_the_others_nor_the_event_loop(engine):
    def fails_on_zero(rows):
        if (rows == 0).any():
            raise ZeroDivisionError
        return (2 * rows[:, 0],)

    async def main():
        for _ in range(2):
            await doubled(engine, fails_on_zero, 1.0)
        outcomes = await asyncio.gather(
            *(doubled(engine, fails_on_zero, value) for value in (1.0, 0.0, 3.0)),
            return_exceptions=True,
        )
        assert (outcomes[0], outcomes[2]) == (2.0, 6.0)
        assert isinstance(outcomes[1], ZeroDivisionError)
        assert engine.waiting == 0

    asyncio.run(main())


def test_a_caller_who_leaves_costs_nothing(engine):
    function = Doubling()

    async def main():
        await make_known(engine, function)
        task = asyncio.create_task(doubled(engine, function, 1.0))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await doubled(engine, function, 2.0) == 4.0
        assert engine.waiting == 0

    asyncio.run(main())
    assert function.rows == [1]


def test_many_functions_of_a_project_do_not_keep_that_of_another_waiting(engine):
    computed = []
    threads = Threads("test", 1, each=1)

    async def score(owner, key):
        def function(rows):
            computed.append(key)
            return (rows[:, 0],)

        with on_account_of(owner, threads):
            await engine.apply(function, np.zeros((1, 1)), np.empty((1, 1)), key=key)

    async def main():
        mine = [("many", number) for number in range(16)]
        for key in [*mine, ("one", 0)]:
            await make_known(engine, Doubling(), key)
        await asyncio.gather(*(score("many", key) for key in mine), score("one", ("one", 0)))
        assert computed[1] == ("one", 0)
        assert sorted(computed) == [*mine, ("one", 0)]

    asyncio.run(main())
    threads.close()
