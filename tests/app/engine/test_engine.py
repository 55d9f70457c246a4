import asyncio
import contextlib
import threading
import time
from collections.abc import Callable

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

from app.engine.batches import Pace
from app.engine.engine import Engine, OverloadedError, Terms


def compute_for(seconds: float) -> None:
    until = time.thread_time() + seconds
    while time.thread_time() < until:
        pass


def test_every_row_is_computed_once_and_off_the_event_loop(engine):
    done: list[int] = []
    threads = set()

    def compute(start: int, stop: int) -> None:
        done.extend(range(start, stop))
        threads.add(threading.current_thread().name)

    asyncio.run(engine.run(compute, rows=10_000))
    assert done == list(range(10_000))
    assert threads == {"engine"}


@pytest.mark.long
def test_a_small_request_does_not_wait_for_the_whole_of_a_large_one(engine):
    done: list[str] = []

    async def main() -> None:
        started = threading.Event()

        def slow(start: int, stop: int) -> None:
            started.set()
            compute_for(0.00002 * (stop - start))

        async def run(name: str, compute: Callable[[int, int], None], rows: int) -> None:
            await engine.run(compute, rows=rows)
            done.append(name)

        large = asyncio.create_task(run("large", slow, 25_000))
        await asyncio.to_thread(started.wait)
        await run("small", lambda _start, _stop: None, 1)
        await large

    asyncio.run(main())
    assert done == ["small", "large"]


def test_a_caller_who_leaves_stops_the_work_at_the_next_chunk(engine):
    chunks: list[int] = []

    async def main() -> None:
        def compute(start: int, _stop: int) -> None:
            chunks.append(start)
            time.sleep(0.02)

        task = asyncio.create_task(engine.run(compute, rows=10**9))
        await asyncio.sleep(0.1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        seen = len(chunks)
        # The first may overtake the end of the chunk that was under way, the second may not.
        for _ in range(2):
            await engine.run(lambda _start, _stop: None, rows=1)
        assert len(chunks) <= seen + 1
        assert engine.waiting == 0

    asyncio.run(main())


def test_an_error_reaches_its_own_caller_alone(engine):
    async def main() -> None:
        def fail(_start: int, _stop: int) -> None:
            raise ZeroDivisionError

        results = await asyncio.gather(
            engine.run(fail, rows=1),
            engine.run(lambda _start, _stop: None, rows=1),
            return_exceptions=True,
        )
        assert isinstance(results[0], ZeroDivisionError)
        assert results[1] is None

    asyncio.run(main())


@pytest.fixture
def blocked(engine):
    """The engine, busy until the event is set."""
    release = threading.Event()
    yield engine, release
    release.set()


def test_a_full_queue_refuses_but_lets_what_was_begun_go_on(blocked):
    engine, release = blocked

    async def main() -> None:
        waiting = [
            asyncio.create_task(engine.run(lambda _start, _stop: release.wait(120), rows=1))
            for _ in range(3)
        ]
        await asyncio.sleep(0.05)
        with pytest.raises(OverloadedError):
            await engine.run(lambda _start, _stop: None, rows=1)
        begun = asyncio.create_task(
            engine.run(lambda _start, _stop: None, rows=1, terms=Terms(admitted=True))
        )
        await asyncio.sleep(0)
        release.set()
        await asyncio.gather(*waiting, begun)
        await engine.run(lambda _start, _stop: None, rows=1)

    asyncio.run(main())


def test_the_memory_of_waiting_requests_is_bounded(blocked):
    engine, release = blocked

    async def main() -> None:
        # One request alone may be as large as its route allows.
        first = asyncio.create_task(
            engine.run(lambda _start, _stop: release.wait(120), rows=1, size_bytes=5000)
        )
        await asyncio.sleep(0.05)
        with pytest.raises(OverloadedError):
            await engine.run(lambda _start, _stop: None, rows=1, size_bytes=1)
        release.set()
        await first

    asyncio.run(main())


def test_a_request_that_waited_too_long_is_refused_unless_it_was_begun():
    engine = Engine(max_wait_s=0.05)
    engine.start()
    began, release = threading.Event(), threading.Event()

    def block(_start: int, _stop: int) -> None:
        began.set()
        release.wait(120)

    async def main() -> None:
        admitted = Terms(admitted=True)
        slow = asyncio.create_task(engine.run(block, rows=1, terms=admitted))
        await asyncio.to_thread(began.wait, 120)
        begun = asyncio.create_task(engine.run(lambda _start, _stop: None, rows=1, terms=admitted))
        with pytest.raises(OverloadedError):
            await engine.run(lambda _start, _stop: None, rows=1)
        release.set()
        await asyncio.gather(slow, begun)

    try:
        asyncio.run(main())
    finally:
        engine.stop()


def test_stopping_refuses_what_waits_and_what_comes():
    engine = Engine()
    engine.start()
    began, release = threading.Event(), threading.Event()

    def block(_start: int, _stop: int) -> None:
        began.set()
        release.wait(120)

    async def main() -> None:
        slow = asyncio.create_task(engine.run(block, rows=1))
        await asyncio.to_thread(began.wait, 120)
        waiting = asyncio.create_task(engine.run(lambda _start, _stop: None, rows=1))
        await asyncio.sleep(0)
        stopping = asyncio.create_task(asyncio.to_thread(engine.stop))
        while not engine._stopping:  # noqa: ASYNC110 - it tells nobody
            await asyncio.sleep(0.01)
        release.set()
        await stopping
        results = await asyncio.gather(slow, waiting, return_exceptions=True)
        assert results[0] is None
        assert isinstance(results[1], OverloadedError)
        with pytest.raises(OverloadedError):
            await engine.run(lambda _start, _stop: None, rows=1)

    asyncio.run(main())


@hypothesis.settings(max_examples=25, deadline=None)
@hypothesis.given(st.data())
def test_answers_never_mix(data):
    """Random requests at once: each row's result is that of its own function and its own numbers."""
    sizes = st.sampled_from([1, 1, 1, 2, 5, 64, 65, 300])
    asked = data.draw(
        st.lists(st.tuples(sizes, st.integers(1, 3), st.booleans(), st.booleans()), max_size=30)
    )
    engine = Engine(max_waiting=1000)
    engine.start()

    async def request(index: int, n: int, factor: int, single: bool, leaves: bool) -> None:
        dtype = np.float32 if single else np.float64
        rows = np.arange(2 * n, dtype=dtype).reshape(n, 2) + 1000 * index
        results = np.full((n, 2), np.nan)

        def function(some: np.ndarray) -> tuple[np.ndarray, ...]:
            return some[:, 0] * factor, some[:, 1] + factor

        work = asyncio.ensure_future(engine.apply(function, rows, results, key=factor))
        if leaves:
            await asyncio.sleep(0)
            work.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await work
            return
        await work
        expected = np.column_stack([rows[:, 0] * factor, rows[:, 1] + factor])
        np.testing.assert_array_equal(results, expected)

    async def main() -> None:
        await asyncio.gather(*(request(index, *one) for index, one in enumerate(asked)))
        for _ in range(100):  # those that were left are still taken off the queue
            if engine.waiting == 0:
                break
            await asyncio.sleep(0.01)
        assert engine.waiting == 0

    try:
        asyncio.run(main())
    finally:
        engine.stop()


def test_what_comes_while_the_engine_computes_is_computed_together(blocked):
    engine, release = blocked
    batches: list[int] = []

    def double(rows: np.ndarray) -> tuple[np.ndarray]:
        batches.append(len(rows))
        return (rows[:, 0] * 2,)

    async def main() -> None:
        first = asyncio.create_task(engine.run(lambda _start, _stop: release.wait(120), rows=1))
        await asyncio.sleep(0.05)
        results = [np.empty((1, 1)) for _ in range(2)]
        works = [
            asyncio.create_task(engine.apply(double, np.full((1, 1), k), result, key="double"))
            for k, result in enumerate(results)
        ]
        await asyncio.sleep(0)
        release.set()
        await asyncio.gather(first, *works)
        assert [float(result[0, 0]) for result in results] == [0.0, 2.0]

    asyncio.run(main())
    assert batches == [2]


def test_a_request_at_fault_does_not_harm_those_it_was_computed_with(blocked):
    engine, release = blocked

    def divide(rows: np.ndarray) -> tuple[np.ndarray]:
        if (rows == 0).any():
            raise ZeroDivisionError
        return (1 / rows[:, 0],)

    async def main() -> None:
        first = asyncio.create_task(engine.run(lambda _start, _stop: release.wait(120), rows=1))
        await asyncio.sleep(0.05)
        good, bad = np.empty((1, 1)), np.empty((1, 1))
        works = [
            asyncio.create_task(engine.apply(divide, np.full((1, 1), 4.0), good, key="divide")),
            asyncio.create_task(engine.apply(divide, np.zeros((1, 1)), bad, key="divide")),
        ]
        await asyncio.sleep(0)
        release.set()
        outcomes = await asyncio.gather(first, *works, return_exceptions=True)
        assert outcomes[:2] == [None, None]
        assert isinstance(outcomes[2], ZeroDivisionError)
        assert good[0, 0] == 0.25

    asyncio.run(main())


def test_small_requests_take_turns_with_a_large_one():
    engine = Engine()
    engine.start()

    async def main() -> None:
        began = threading.Event()

        def slow(rows: np.ndarray) -> tuple[np.ndarray]:
            began.set()
            compute_for(0.00002 * len(rows))
            return (rows[:, 0],)

        many = np.zeros((10**7, 1))  # minutes, but for its end
        large = asyncio.create_task(engine.apply(slow, many, np.empty((10**7, 1)), key="a"))
        await asyncio.to_thread(began.wait, 120)
        await engine.apply(slow, np.zeros((1, 1)), np.empty((1, 1)), key="b")
        assert not large.done()
        large.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await large

    try:
        asyncio.run(main())
    finally:
        engine.stop()


def test_a_caller_may_wait_less_than_others(blocked):
    engine, release = blocked
    began = threading.Event()

    def block(_start: int, _stop: int) -> None:
        began.set()
        release.wait(120)

    async def main() -> None:
        first = asyncio.create_task(engine.run(block, rows=1))
        await asyncio.to_thread(began.wait, 120)
        rows, results = np.zeros((1, 1)), np.empty((1, 1))
        hasty = asyncio.create_task(
            engine.apply(
                lambda some: (some[:, 0],), rows, results, key=0, terms=Terms(max_wait_s=0.01)
            )
        )
        with pytest.raises(OverloadedError):
            await hasty
        release.set()
        await first

    asyncio.run(main())


@pytest.mark.long
@pytest.mark.parametrize("n", [1, 16, 70])
def test_functions_of_many_passes_begin_with_few_rows(n):
    """Bound first turns and batches where each row stands for a hundred of the flow."""
    engine = Engine()
    engine.start()
    turns: list[int] = []

    def explained(rows: np.ndarray) -> tuple[np.ndarray]:
        turns.append(len(rows))
        compute_for(0.01 * len(rows))
        return (rows[:, 0],)

    async def main() -> None:
        terms = Terms(passes=100)
        requests = [(np.full((n, 1), float(k)), np.empty((n, 1))) for k in range(3)]
        await asyncio.gather(
            *(engine.apply(explained, *request, key=0, terms=terms) for request in requests)
        )
        assert all((rows == results).all() for rows, results in requests)

    asyncio.run(main())
    engine.stop()
    assert max(turns) <= 3


@pytest.mark.parametrize(
    ("fixed_s", "row_s", "most_s"), [(0.02, 0.00001, 0.7), (0.0, 0.0001, 0.2), (0.004, 0.0001, 0.4)]
)
def test_turns_are_no_shorter_than_pays(fixed_s, row_s, most_s):
    """A function that takes its time however few the rows are is not called for each of them."""
    engine = Engine()
    engine.start()
    spent = 0.0

    def function(rows: np.ndarray) -> tuple[np.ndarray]:
        nonlocal spent
        compute_for(fixed_s + row_s * len(rows))
        spent += fixed_s + row_s * len(rows)
        return (rows[:, 0],)

    async def main() -> None:
        rows, results = np.zeros((1000, 1)), np.empty((1000, 1))
        await engine.apply(function, rows, results, key="first")  # whose speed is not known yet
        nonlocal spent
        spent = 0.0
        await engine.apply(function, rows, results, key="first")

    try:
        asyncio.run(main())
    finally:
        engine.stop()
    assert spent < most_s


@pytest.mark.parametrize(("fixed_s", "row_s", "most"), [(0.02, 1e-5, 4096), (0.02, 1e-3, 20)])
def test_small_requests_do_not_shorten_the_turns_of_large_ones(fixed_s, row_s, most):
    pace = Pace()
    for rows in (5, 1):
        pace.learn(rows, fixed_s + row_s * rows)
    for _ in range(12):
        pace.learn(pace.least_rows, fixed_s + row_s * pace.least_rows)
    assert most / 4 <= pace.least_rows <= most
