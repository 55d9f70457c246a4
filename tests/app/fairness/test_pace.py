"""Work begins in the turn of its group, a few pieces in an iteration of the event loop."""

import asyncio
import weakref
from functools import partial

import pytest

from app.fairness.pace import Pace


def numbered(pace, begun, group, number):
    return pace.begin(group, lambda: begun.append(f"{group}{number}")) is None


def fail():
    raise ValueError


async def iterations(number):
    for _ in range(number):
        await asyncio.sleep(0)


def test_groups_take_turns_and_one_begins_in_the_order_of_arrival():
    async def main():
        pace, begun, seen = Pace(each=1, most=2), list[str](), list[list[str]]()
        now = [numbered(pace, begun, group, n) for group in "ab" for n in range(3)]
        now.append(numbered(pace, begun, "c", 0))
        assert now == [True, False, False, True, False, False, False]
        for _ in range(5):
            seen.append(list(begun))
            await iterations(1)
        return seen

    first, second, third, fourth, fifth = asyncio.run(main())
    assert first == ["a0", "b0"]
    assert second[2:] == ["a1", "b1"]
    assert third[4:] == ["c0", "a2"]
    assert fourth[6:] == ["b2"]
    assert fifth == fourth


def test_a_group_that_is_alone_has_the_whole_iteration():
    async def main():
        pace, begun = Pace(each=1, most=4), list[str]()
        numbered(pace, begun, "b", 0)
        numbered(pace, begun, "a", 0)
        pace._shared_until = 0.0  # a second later
        await iterations(1)
        return [numbered(pace, begun, "a", n) for n in range(1, 7)]

    assert asyncio.run(main()) == [True] * 4 + [False] * 2


def test_many_groups_do_not_have_more_than_an_iteration_has():
    async def main():
        pace, begun, counts = Pace(each=2, most=5), list[str](), list[int]()
        for number in range(2):
            for group in range(10):
                numbered(pace, begun, f"{group}-", number)
        for _ in range(5):
            counts.append(len(begun))
            await iterations(1)
        return counts

    assert asyncio.run(main()) == [5, 10, 15, 20, 20]


def test_who_leaves_while_waiting_is_passed_over():
    async def main():
        pace = Pace(each=1, most=1)
        _, left, stays = (asyncio.create_task(pace.turn("a")) for _ in range(3))
        await asyncio.sleep(0)
        left.cancel()
        async with asyncio.timeout(120):
            await stays
        return left.cancelled()

    assert asyncio.run(main())


def test_work_that_fails_keeps_nobody_waiting():
    async def main():
        asyncio.get_running_loop().set_exception_handler(lambda *_: None)
        pace, begun = Pace(each=1, most=1), list[str]()
        numbered(pace, begun, "a", 0)
        pace.begin("a", fail)
        numbered(pace, begun, "a", 1)
        await iterations(4)
        return begun

    assert asyncio.run(main()) == ["a0", "a1"]


def test_parts_of_a_group_take_turns():
    async def main():
        pace, begun = Pace(each=1, most=2), list[str]()
        for part, number in [("x", 0), ("x", 1), ("x", 2), ("y", 0)]:
            pace.begin("a", partial(begun.append, f"{part}{number}"), part=part)
        numbered(pace, begun, "b", 0)
        await iterations(6)
        return begun

    assert asyncio.run(main()) == ["x0", "b0", "x1", "y0", "x2"]


def test_what_was_dropped_is_not_done_counts_for_nothing_and_is_forgotten_at_once():
    async def main():
        pace, begun = Pace(each=1, most=8), list[str]()
        numbered(pace, begun, "b", 0)
        numbered(pace, begun, "a", 0)
        works = [Big() for _ in range(4)]
        waiting = [pace.begin("a", work.method) for work in works]
        known = [weakref.ref(work) for work in works]
        works.clear()
        numbered(pace, begun, "a", 1)
        for each in waiting:
            assert each is not None
            each.drop()
        freed = all(ref() is None for ref in known)
        await iterations(2)
        return begun, freed

    assert asyncio.run(main()) == (["b0", "a0", "a1"], True)


class Big:
    def method(self):
        """Fail: it was dropped."""
        raise AssertionError


@pytest.mark.parametrize("alone", [True, False])
def test_no_more_work_begins_in_an_iteration_that_has_begun_what_takes_long(alone):
    now = 0.0

    def work():
        nonlocal now
        now += 0.003

    async def main():
        pace, begun = Pace(each=2, most=64, clock=lambda: now), list[float]()
        groups = ["a"] * 10 if alone else [f"{number}" for number in range(10)]
        pace.begin(groups[0], lambda: None)
        if alone:
            pace._shared_until = 0.0  # a second later
        await iterations(1)
        for group in groups:
            pace.begin(group, work)
        for _ in range(5):
            begun.append(round(now / 0.003))
            await iterations(1)
        return begun

    assert asyncio.run(main()) == [2, 4, 6, 8, 10]


def test_the_rest_of_a_long_piece_of_work_waits_once_the_iteration_is_full():
    now, done = 0.0, 0

    async def main():
        pace, begun = Pace(each=2, most=64, clock=lambda: now), list[int]()

        def work():
            nonlocal now, done
            now, done = now + 0.003, done + 1
            if done < 6:
                pace.begin("a", work)

        pace.begin("a", lambda: None)
        pace._shared_until = 0.0  # a second later
        await iterations(1)
        pace.begin("a", work)
        for _ in range(4):
            begun.append(done)
            await iterations(1)
        return begun

    assert asyncio.run(main()) == [1, 3, 5, 6]
