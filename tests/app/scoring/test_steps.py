"""Computations that take long, in steps between which others are computed."""

import asyncio
import threading
import time
from collections.abc import Iterator

import numpy as np
import pytest

from app.engine.engine import Engine, Terms
from app.scoring.functions import evidence_of
from app.scoring.steps import take_steps
from flows import GaussianSpec, LatentSpec, build, compile_flow


def compute_for(seconds: float) -> None:
    until = time.thread_time() + seconds
    while time.thread_time() < until:
        pass


@pytest.fixture
def engine():
    engine = Engine()
    counted: list[int] = []
    engine.count = counted.append
    engine.start()
    yield engine, counted
    engine.stop()


def test_others_are_computed_between_the_steps_of_one_row(engine):
    running, counted = engine
    taken: list[int] = []
    first, goes_on = threading.Event(), threading.Event()

    def steps() -> Iterator[None]:
        for number in range(50):
            first.set()
            goes_on.wait(60)
            compute_for(0.005)
            taken.append(number)
            yield

    async def main() -> int:
        long = asyncio.create_task(
            take_steps(running, steps(), rows=1, size_bytes=8, terms=Terms())
        )
        await asyncio.to_thread(first.wait)
        other = asyncio.create_task(running.run(lambda _start, _stop: None, rows=1))
        await asyncio.sleep(0)  # it waits in the queue
        goes_on.set()
        await other
        seen = len(taken)
        await long
        return seen

    assert asyncio.run(main()) < 50
    assert taken == list(range(50))
    assert counted == [1]


def test_the_evidence_of_a_row_has_a_step_for_each_tile_of_samples():
    flow = compile_flow(build(LatentSpec(flow=GaussianSpec()), 2, context_dim=3, seed=0))
    rows = np.random.default_rng(0).normal(size=(2, 3))
    function = evidence_of(200, 1)
    assert function.steps is not None
    results = np.empty((2, 2))
    assert len(list(function.steps(flow, rows, results))) == 2 * 4
    np.testing.assert_array_equal(results.T, function.compute(flow, rows))
