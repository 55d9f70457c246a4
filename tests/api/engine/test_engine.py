"""The engine: batches, turns, the event loop, shares of projects, refusals, and functions that fail."""

import asyncio
import contextlib
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from app.engine.engine import Engine, OverloadedError, ResultShapeError, Speed, Terms
from app.engine.fair_order import FairOrder
from app.limits import NOBODY, Threads, charge_to
from app.metrics import EngineMetrics

pytestmark = pytest.mark.anyio

WAIT_S = 120.0


@pytest.fixture
def make_engine() -> Iterator[Callable[..., Engine]]:
    """Engines that run, and end with the test."""
    made: list[Engine] = []

    def make(**options: Any) -> Engine:
        made.append(Engine(**options))
        made[-1].start()
        return made[-1]

    yield make
    for engine in made:
        engine.stop()


@pytest.fixture
def engine(make_engine: Callable[..., Engine]) -> Engine:
    return make_engine()


class Doubling:
    """A function that notes who computed it, and how many rows at a time."""

    def __init__(self, seconds: float = 0.0, row_s: float = 0.0) -> None:
        self.seconds, self.row_s = seconds, row_s
        self.spent = 0.0
        self.threads: list[str] = []
        self.rows: list[int] = []

    def __call__(self, rows: np.ndarray) -> tuple[np.ndarray]:
        self.threads.append(threading.current_thread().name)
        self.rows.append(len(rows))
        seconds = self.seconds + self.row_s * len(rows)
        self.spent += seconds
        until = time.thread_time() + seconds
        while time.thread_time() < until:
            pass
        return (2 * rows[:, 0],)


class Gate:
    """A function that begins, and waits until it is opened."""

    def __init__(self) -> None:
        self.begun, self.opened = threading.Event(), threading.Event()

    def __call__(self, rows: np.ndarray | None = None) -> tuple[np.ndarray]:
        self.begun.set()
        self.opened.wait(WAIT_S)
        return (np.empty(0) if rows is None else 2 * rows[:, 0],)

    async def wait(self) -> None:
        assert await asyncio.to_thread(self.begun.wait, WAIT_S)


@pytest.fixture
def gate() -> Iterator[Gate]:
    gate = Gate()
    yield gate
    gate.opened.set()


async def doubled(
    engine: Engine, function: Any, n: int = 1, key: Any = "double", value: float = 1.0, **how: Any
) -> None:
    """Ask for the doubles of rows, and look at them."""
    rows, results = np.full((n, 1), float(value)), np.empty((n, 1))
    await engine.apply(function, rows, results, key=key, **how)
    np.testing.assert_array_equal(results, 2 * rows)


async def make_known(engine: Engine, function: Doubling, key: Any = "double") -> None:
    """Ask until the engine has learnt that the function is quick."""
    for _ in range(200):
        await doubled(engine, function, key=key)
        if function.threads[-1] == "MainThread":
            break
        await asyncio.sleep(0.01)
    function.threads.clear()
    function.rows.clear()


# turns and batches


def test_every_row_of_a_large_request_is_computed_once_and_off_the_event_loop(engine):
    function = Doubling()
    asyncio.run(doubled(engine, function, 10_000))
    assert sum(function.rows) == 10_000
    assert set(function.threads) == {"engine"}


@pytest.mark.parametrize("key", ["same", "other"])
async def test_a_small_request_waits_for_a_turn_of_a_large_one_and_not_for_its_end(engine, key):
    large = Doubling(row_s=0.00002)
    task = asyncio.create_task(doubled(engine, large, 10**7, key="same"))  # minutes
    await asyncio.sleep(0.1)
    await doubled(engine, large, key=key)
    assert not task.done()
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    seen = len(large.rows)
    for _ in range(2):  # the first may overtake the end of the turn that was under way
        await engine.run(lambda: None)
    assert len(large.rows) <= seen + 1
    assert engine.waiting == 0


async def test_what_comes_while_the_engine_computes_is_computed_together_unless_it_was_left(
    engine, gate
):
    function = Doubling()
    first = asyncio.create_task(engine.run(gate))
    await gate.wait()
    works = [asyncio.create_task(doubled(engine, function, value=k)) for k in range(3)]
    await asyncio.sleep(0)
    works[1].cancel()
    await asyncio.sleep(0)
    gate.opened.set()
    await asyncio.gather(first, works[0], works[2])
    assert function.rows == [2]


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


@pytest.mark.parametrize("n", [1, 64, 65, 1000])
async def test_the_rows_of_a_turn_are_bounded_by_memory(engine, n):
    function, terms = Doubling(), Terms(most_rows=4, first_rows=4, small_rows=4)
    await asyncio.gather(*(doubled(engine, function, n, terms=terms) for _ in range(3)))
    assert sum(function.rows) == 3 * n
    assert max(function.rows) <= 4


@pytest.mark.parametrize(("fixed_s", "row_s", "most"), [(0.02, 1e-5, 4096), (0.02, 1e-3, 20)])
def test_small_requests_do_not_shorten_the_turns_of_large_ones(fixed_s, row_s, most):
    speed = Speed()
    for rows in (5, 1):
        speed.learn(rows, fixed_s + row_s * rows)
    for _ in range(12):
        speed.learn(speed.least_rows, fixed_s + row_s * speed.least_rows)
    assert most / 4 <= speed.least_rows <= most


# the event loop


async def test_what_is_known_to_be_quick_is_computed_on_the_event_loop_together(engine):
    function = Doubling()
    await doubled(engine, function)
    assert function.threads == ["engine"]
    await make_known(engine, function)
    await asyncio.gather(*(doubled(engine, function) for _ in range(4)))  # learns
    await asyncio.gather(*(doubled(engine, function, value=k) for k in range(16)))
    left = asyncio.create_task(doubled(engine, function))
    await asyncio.sleep(0)
    left.cancel()
    await asyncio.wait({left})
    assert set(function.threads) == {"MainThread"}
    assert max(function.rows) == 16
    assert engine.waiting == 0


async def test_what_is_or_gets_slow_leaves_the_event_loop(engine):
    slow, changing = Doubling(0.005), Doubling()
    for _ in range(3):
        await doubled(engine, slow, key="slow")
    await make_known(engine, changing)
    changing.seconds = 0.005
    for _ in range(12):
        await doubled(engine, changing)
    assert slow.threads == ["engine"] * 3
    assert changing.threads[-1] == "engine"


# projects

Account = Callable[[str], contextlib.AbstractContextManager[None]]


@pytest.fixture
def account() -> Iterator[Account]:
    threads = Threads("test", 1, each=1)

    @contextlib.contextmanager
    def charged(owner: str) -> Iterator[None]:
        charge_to(owner, threads)
        yield
        charge_to(NOBODY, threads)

    yield charged
    threads.close()


@dataclass(eq=False)
class Waiting:
    owner: str
    name: str = ""


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
    turns = Counter[str]()
    for _ in range(20):
        owner = order.first([Waiting("new"), Waiting("a")]).owner
        order.charge(owner, 1.0)
        turns[owner] += 1
    assert abs(turns["new"] - turns["a"]) <= 2


@pytest.mark.parametrize("rows", [1, 100])
async def test_many_requests_of_a_project_delay_another_by_one_and_leave_half_of_the_queue(
    make_engine, gate, account, rows
):
    engine = make_engine(max_waiting=16)
    done: list[str] = []

    async def ask(owner: str, key: int) -> None:
        def function(some: np.ndarray) -> Any:
            done.append(owner)
            return gate(some)

        with account(owner):
            await doubled(engine, function, rows, key=key)

    flood = [asyncio.create_task(ask("a", key)) for key in range(8)]
    await gate.wait()
    with pytest.raises(OverloadedError):
        await ask("a", 8)
    other = asyncio.create_task(ask("b", 9))
    await asyncio.sleep(0)
    gate.opened.set()
    await asyncio.gather(*flood, other)
    assert done.index("b") == 1


async def test_many_quick_functions_of_a_project_do_not_keep_that_of_another_waiting(
    engine, account
):
    computed: list[tuple[str, int]] = []

    async def score(owner: str, key: tuple[str, int]) -> None:
        def function(rows: np.ndarray) -> tuple[np.ndarray]:
            computed.append(key)
            return (2 * rows[:, 0],)

        with account(owner):
            await doubled(engine, function, key=key)

    mine = [("many", number) for number in range(16)]
    for key in [*mine, ("one", 0)]:
        await make_known(engine, Doubling(), key)
    await asyncio.gather(*(score("many", key) for key in mine), score("one", ("one", 0)))
    assert computed[1] == ("one", 0)
    assert sorted(computed) == [*mine, ("one", 0)]


# refusals


async def test_a_full_queue_refuses_but_lets_what_was_begun_go_on(make_engine, gate):
    engine = make_engine(max_waiting=6)
    waiting = [asyncio.create_task(engine.run(gate)) for _ in range(3)]
    await gate.wait()
    with pytest.raises(OverloadedError):
        await engine.run(lambda: None)
    begun = asyncio.create_task(engine.run(lambda: None, admitted=True))
    await asyncio.sleep(0)
    gate.opened.set()
    await asyncio.gather(*waiting, begun)
    await engine.run(lambda: None)


@pytest.mark.parametrize("n", [1, 65])
async def test_who_waited_too_long_is_refused_and_keeps_no_place_from_others(engine, gate, n):
    busy = asyncio.create_task(engine.run(gate))
    await gate.wait()
    for key in range(10):
        with pytest.raises(OverloadedError):
            await doubled(engine, Doubling(), n, key=key, max_wait_s=0.01)
        gone = asyncio.create_task(doubled(engine, Doubling(), n, key=key))
        await asyncio.sleep(0)
        gone.cancel()
        await asyncio.wait({gone})
    assert engine.waiting == 1
    late = asyncio.create_task(doubled(engine, Doubling(), n))
    await asyncio.sleep(0)
    gate.opened.set()
    await asyncio.gather(busy, late)


def test_what_waits_for_a_thread_that_has_ended_is_refused_in_time():
    engine = Engine(max_wait_s=0.1)  # its thread was not started
    with pytest.raises(OverloadedError):
        asyncio.run(asyncio.wait_for(engine.run(lambda: None), WAIT_S))


def test_stopping_refuses_what_waits_and_what_comes(engine, gate):
    async def main() -> None:
        slow = asyncio.create_task(engine.run(gate))
        await gate.wait()
        waiting = asyncio.create_task(engine.run(lambda: None))
        await asyncio.sleep(0)
        stopping = asyncio.create_task(asyncio.to_thread(engine.stop))
        await asyncio.sleep(0.1)
        gate.opened.set()
        await stopping
        results = await asyncio.gather(slow, waiting, return_exceptions=True)
        assert results[0] is None
        assert isinstance(results[1], OverloadedError)
        with pytest.raises(OverloadedError):
            await engine.run(lambda: None)

    asyncio.run(main())


# functions that fail

SHAPES: dict[str, tuple[Callable[[np.ndarray], tuple[np.ndarray, ...]], int]] = {
    "one column of shape (n, 1)": (lambda rows: (rows[:, :1],), 1),
    "rows and a column": (lambda rows: (rows, rows[:, 0]), 4),
    "columns": (lambda rows: (rows[:, 0], rows[:, 2]), 2),
}
WRONG: dict[str, Callable[[np.ndarray], tuple[Any, ...]]] = {
    "too many columns": lambda rows: (rows,),
    "too few rows": lambda rows: (rows[1:, 0],),
    "no number a row": lambda _rows: (np.float64(1.0),),
    "no columns": lambda _rows: (),
}


@pytest.mark.parametrize("shape", SHAPES)
async def test_columns_of_every_shape_are_written_by_every_way(engine, shape):
    """A batch, turns, and the event loop once the function is known to be quick."""
    function, width = SHAPES[shape]
    for n in (1, 64, 65, 257, 5000):
        rows = np.random.default_rng(n).normal(size=(n, 3))
        for _ in range(3):
            results = np.full((n, width), np.nan)
            await asyncio.wait_for(engine.apply(function, rows, results, key=shape), WAIT_S)
            np.testing.assert_array_equal(results, np.column_stack(function(rows)))


@pytest.mark.parametrize("n", [1, 65])
@pytest.mark.parametrize("wrong", WRONG)
async def test_columns_that_do_not_fit_fail_their_request_alone(engine, wrong, n):
    for _ in range(3):
        bad = engine.apply(WRONG[wrong], np.ones((n, 3)), np.empty((n, 1)), key=wrong)
        with pytest.raises((ResultShapeError, ValueError, IndexError)):
            await asyncio.wait_for(bad, WAIT_S)
    await asyncio.wait_for(doubled(engine, Doubling(), n), WAIT_S)
    assert engine.alive
    assert engine.waiting == 0


@pytest.mark.parametrize("where", ["thread", "event loop"])
def test_a_request_at_fault_does_not_harm_those_it_was_computed_with(engine, gate, where):
    def fails_on_zero(rows: np.ndarray) -> tuple[np.ndarray]:
        if (rows == 0).any():
            raise ZeroDivisionError
        return (2 * rows[:, 0],)

    async def main() -> None:
        busy = asyncio.create_task(engine.run(gate))
        await gate.wait()
        if where == "event loop":
            gate.opened.set()
            await make_known(engine, Doubling())
        asked = [asyncio.create_task(doubled(engine, fails_on_zero, value=v)) for v in (1, 0, 3)]
        await asyncio.sleep(0)
        gate.opened.set()
        outcomes = await asyncio.gather(busy, *asked, return_exceptions=True)
        assert [type(one) for one in outcomes] == [
            type(None),
            type(None),
            ZeroDivisionError,
            type(None),
        ]

    asyncio.run(main())


class FailingGauge:
    """A gauge of a metrics folder that cannot be written."""

    def set(self, _value: float) -> None:
        if threading.current_thread().name == "engine":
            raise OSError


@pytest.mark.parametrize("n", [1, 65])
async def test_the_engine_goes_on_where_its_own_work_fails(make_engine, n):
    metrics = EngineMetrics(CollectorRegistry())
    metrics.waiting = FailingGauge()  # type: ignore[assignment]  # it fails
    engine = make_engine(metrics=metrics)
    for key in range(3):
        await asyncio.wait_for(doubled(engine, Doubling(), n, key=key), WAIT_S)
    assert engine.alive
    assert engine.waiting == 0
