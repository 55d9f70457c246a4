"""Rows that take much longer than those before them: a turn of the engine's thread stops nobody for as long again."""

import asyncio
import time
from collections.abc import Callable

import pytest

from app.engine.batches import Pace
from app.engine.engine import Engine
from app.engine.hard_turns import HardTurns
from app.fairness.turns import Threads, on_account_of

EASY_S, HARD_S = 1e-6, 5e-5


def spending(row_s: float, turns: list[int]) -> Callable[[int, int], None]:
    """Return a computation that takes so much of the processor for each row, and notes its turns."""

    def compute(start: int, stop: int) -> None:
        turns.append(stop - start)
        until = time.thread_time() + row_s * (stop - start)
        while time.thread_time() < until:
            pass

    return compute


def test_hard_rows_after_easy_ones_have_one_long_turn() -> None:
    engine = Engine()
    engine.start()
    threads = Threads("test", 1, each=1)
    hard: list[int] = []
    others: list[int] = []

    async def run(owner: str, row_s: float, rows: int, turns: list[int]) -> None:
        with on_account_of(owner, threads):
            await engine.run(spending(row_s, turns), rows=rows, key=owner)

    async def main() -> None:
        await run("mine", EASY_S, 40_000, [])
        await run("mine", HARD_S, 4_000, hard)
        hard.clear()
        await run("mine", EASY_S, 40_000, [])
        await run("mine", HARD_S, 4_000, hard)
        await run("other", EASY_S, 40_000, others)

    asyncio.run(main())
    engine.stop()
    threads.close()
    assert max(hard) <= 1_000
    assert max(others) >= 4_000


def test_a_price_is_kept_for_a_while() -> None:
    now = 0.0
    turns = HardTurns(clock=lambda: now)
    turns.learn("mine", 0.2, longer=5.0, price=30.0)
    turns.learn("mine", 0.02, longer=5.0, price=20.0)
    turns.learn("slow", 0.2, longer=2.0, price=30.0)
    turns.learn("quick", 0.01, longer=9.0, price=9.0)
    assert [turns.price(owner) for owner in ("mine", "slow", "quick")] == [30.0, 1.0, 1.0]
    now = 41.0
    assert turns.price("mine") == 1.0


@pytest.mark.parametrize("fixed_s", [0.0, 0.02])
def test_fixed_costs_are_not_hard_rows(fixed_s: float) -> None:
    pace = Pace()
    assert pace.longer(64, 1.0) == 0.0
    for rows in (256, 1, 8192, 25):
        seconds = fixed_s + 1e-4 * rows
        assert pace.longer(rows, seconds) <= 1.0 + 1e-9
        pace.learn(rows, seconds)
    assert pace.longer(25, 5 * (fixed_s + 25e-4)) == pytest.approx(5.0)
