import asyncio
import threading
import time

import pytest

from app.engine import Engine, OverloadedError


@pytest.fixture
def engine():
    engine = Engine(max_waiting=3, max_waiting_bytes=1000, max_wait_s=30.0)
    engine.start()
    yield engine
    engine.stop()


def test_every_row_is_computed_once_and_off_the_event_loop(engine):
    done: list[int] = []
    threads = set()

    def compute(start: int, stop: int) -> None:
        done.extend(range(start, stop))
        threads.add(threading.current_thread().name)

    asyncio.run(engine.run(compute, rows=10_000))
    assert done == list(range(10_000))
    assert threads == {"engine"}


def test_a_small_request_does_not_wait_for_the_whole_of_a_large_one(engine):
    async def main() -> tuple[float, float]:
        def slow(start: int, stop: int) -> None:
            time.sleep(0.00002 * (stop - start))

        began = time.monotonic()
        large = asyncio.create_task(engine.run(slow, rows=25_000))
        await asyncio.sleep(0.05)
        asked = time.monotonic()
        await engine.run(lambda _start, _stop: None, rows=1)
        small_s = time.monotonic() - asked
        await large
        return small_s, time.monotonic() - began

    small_s, large_s = asyncio.run(main())
    assert large_s > 0.4
    assert small_s < large_s / 4


def test_fault_097_a_caller_who_leaves_stops_the_work_at_the_next_chunk(engine):
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


def test_fault_096_a_full_queue_refuses_but_lets_what_was_begun_go_on(blocked):
    engine, release = blocked

    async def main() -> None:
        waiting = [
            asyncio.create_task(engine.run(lambda _start, _stop: release.wait(5), rows=1))
            for _ in range(3)
        ]
        await asyncio.sleep(0.05)
        with pytest.raises(OverloadedError):
            await engine.run(lambda _start, _stop: None, rows=1)
        begun = asyncio.create_task(engine.run(lambda _start, _stop: None, rows=1, admitted=True))
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
            engine.run(lambda _start, _stop: release.wait(5), rows=1, size_bytes=5000)
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

    async def main() -> None:
        slow = asyncio.create_task(engine.run(lambda _start, _stop: time.sleep(0.2), rows=1))
        await asyncio.sleep(0.02)
        late, begun = await asyncio.gather(
            engine.run(lambda _start, _stop: None, rows=1),
            engine.run(lambda _start, _stop: None, rows=1, admitted=True),
            return_exceptions=True,
        )
        await slow
        assert isinstance(late, OverloadedError)
        assert begun is None

    try:
        asyncio.run(main())
    finally:
        engine.stop()


def test_stopping_refuses_what_waits_and_what_comes():
    engine = Engine()
    engine.start()

    async def main() -> None:
        slow = asyncio.create_task(engine.run(lambda _start, _stop: time.sleep(0.1), rows=1))
        waiting = asyncio.create_task(engine.run(lambda _start, _stop: None, rows=1))
        await asyncio.sleep(0.02)
        await asyncio.to_thread(engine.stop)
        results = await asyncio.gather(slow, waiting, return_exceptions=True)
        assert results[0] is None
        assert isinstance(results[1], OverloadedError)
        with pytest.raises(OverloadedError):
            await engine.run(lambda _start, _stop: None, rows=1)

    asyncio.run(main())
