import asyncio
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import pytest

from app.engine.engine import Engine, OverloadedError
from app.engine.fair_order import FairOrder
from app.limits import Threads, on_account_of

WAIT_S = 120.0


@dataclass(eq=False)
class Waiting:
    owner: str
    name: str = ""


@pytest.fixture
def engine():
    engine = Engine()
    engine.start()
    yield engine
    engine.stop()


@pytest.fixture
def account():
    threads = Threads("test", 1, each=1)

    @contextmanager
    def of(owner: str) -> Iterator[None]:
        with on_account_of(owner, threads):
            yield

    yield of
    threads.close()


def test_who_had_least_comes_first_and_one_project_in_the_order_of_asking():
    order = FairOrder()
    waiting = [Waiting("a", "1"), Waiting("a", "2"), Waiting("b", "3")]
    assert order.first(waiting).name == "1"
    order.charge("a", 1.0)
    assert order.first(waiting).name == "3"
    order.charge("b", 3.0)
    assert order.first(waiting).name == "1"


def test_time_and_not_turns_are_shared():
    order = FairOrder()
    seconds = {"slow": 7.0, "quick": 0.002}
    turns = Counter[str]()
    for _ in range(10_000):
        owner = order.first([Waiting(name) for name in seconds]).owner
        order.charge(owner, seconds[owner])
        turns[owner] += 1
    assert turns["slow"] * 7.0 == pytest.approx(turns["quick"] * 0.002, abs=7.0)


def test_who_comes_anew_has_saved_up_nothing():
    order = FairOrder()
    for _ in range(100):
        order.charge(order.first([Waiting("a")]).owner, 1.0)
    waiting = [Waiting("new"), Waiting("a")]
    turns = Counter[str]()
    for _ in range(20):
        owner = order.first(waiting).owner
        order.charge(owner, 1.0)
        turns[owner] += 1
    assert abs(turns["new"] - turns["a"]) <= 2


@pytest.mark.parametrize("size", ["small", "large"])
def test_many_slow_requests_of_a_project_delay_another_by_one_turn(engine, account, size):
    done: list[str] = []
    begun, release = threading.Event(), threading.Event()

    def compute(name: str) -> None:
        if not begun.is_set():
            begun.set()
            release.wait(WAIT_S)
        done.append(name)

    async def ask(name: str, key: int) -> None:
        with account(name):
            if size == "large":
                await engine.run(lambda _start, _stop: compute(name), rows=1)
                return

            def score(rows: np.ndarray) -> tuple[np.ndarray]:
                compute(name)
                return (rows[:, 0],)

            await engine.apply(score, np.zeros((1, 1)), np.empty((1, 1)), key=key)

    async def main() -> None:
        tasks = [asyncio.create_task(ask("a", key)) for key in range(20)]
        assert await asyncio.to_thread(begun.wait, WAIT_S)
        tasks.append(asyncio.create_task(ask("b", 20)))
        await asyncio.sleep(0)  # a task that has run once stands in the queue
        assert engine.waiting == len(tasks)
        release.set()
        await asyncio.gather(*tasks)

    asyncio.run(main())
    assert done.index("b") == 1


@pytest.mark.parametrize("rows", [1, 100])
def test_a_project_that_floods_the_engine_leaves_half_of_its_queue(account, rows):
    engine = Engine(max_waiting=16)
    release = threading.Event()

    def slow(values: np.ndarray) -> tuple[np.ndarray]:
        release.wait(WAIT_S)
        return (values[:, 0],)

    async def ask(owner: str, key: int) -> np.ndarray:
        values, results = np.ones((rows, 1)), np.empty((rows, 1))
        with account(owner):
            await engine.apply(slow, values, results, key=key)
        return results

    async def main() -> None:
        flood = [asyncio.create_task(ask("a", key)) for key in range(8)]
        await asyncio.sleep(0)
        with pytest.raises(OverloadedError):
            await ask("a", 8)
        other = asyncio.create_task(ask("b", 9))
        await asyncio.sleep(0)
        release.set()
        for results in await asyncio.gather(*flood, other):
            np.testing.assert_array_equal(results, 1)

    engine.start()
    try:
        asyncio.run(main())
    finally:
        release.set()
        engine.stop()
