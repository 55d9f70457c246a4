import asyncio
from contextlib import ExitStack

import pytest

from app.http import body_memory
from app.http.body_memory import BodyMemory, Share
from app.problems.problem import Problem

PROJECT = "one"


async def pieces(*sizes, until=None):
    for size in sizes:
        yield b"x" * size
        if until is not None:
            await until.wait()


async def gathered(memory, came):
    with memory.share() as share:
        return await share.gather(came)


def test_what_was_used_no_longer_counts():
    memory = BodyMemory(200).of(PROJECT)

    async def main():
        for _ in range(5):
            assert await gathered(memory, pieces(40, 0, 50)) == b"x" * 90

    asyncio.run(main())


def test_a_project_holds_no_more_than_the_disk_has_left():
    left = [100]
    memory = BodyMemory(1_000, left=lambda: left[0])
    share, second = memory.of(PROJECT).kept_share(), memory.of("two").kept_share()
    share.hold(90)
    left[0] = 60
    assert not share.may_hold(100)
    with pytest.raises(Problem) as refused:
        share.hold(95)
    assert refused.value.type.slug == "overloaded"
    assert second.may_hold(30)
    assert not second.may_hold(46)


def test_bodies_that_come_slowly_count_together_and_only_the_last_is_refused():
    memory = BodyMemory(200).of(PROJECT)

    async def main():
        go_on = asyncio.Event()
        slow = [asyncio.create_task(gathered(memory, pieces(40, until=go_on))) for _ in range(2)]
        await asyncio.sleep(0)
        with pytest.raises(Problem) as refused:
            await gathered(memory, pieces(15, 15))
        assert refused.value.type.slug == "overloaded"
        assert await gathered(memory, pieces(20)) == b"x" * 20
        go_on.set()
        assert await asyncio.gather(*slow) == [b"x" * 40] * 2

    asyncio.run(main())


def test_a_caller_who_leaves_gives_back_what_came():
    memory = BodyMemory(200).of(PROJECT)

    async def leaving():
        yield b"x" * 90
        raise ConnectionError

    async def main():
        with pytest.raises(ConnectionError):
            await gathered(memory, leaving())
        assert await gathered(memory, pieces(100)) == b"x" * 100

    asyncio.run(main())


def test_what_a_share_holds_counts_until_it_is_given_back():
    memory = BodyMemory(200).of(PROJECT)
    with memory.share() as share, memory.share() as another:
        share.hold(90)
        share.hold(30)
        another.hold(70)
        with pytest.raises(Problem) as refused:
            another.hold(71)
    assert refused.value.type.slug == "overloaded"
    with memory.share() as share:
        share.hold(100)


def refused(share, size):
    with pytest.raises(Problem) as raised:
        share.hold(size)
    share.hold(0)
    return raised.value.type.slug == "overloaded"


def test_one_project_takes_half_of_all_and_leaves_the_rest_to_others():
    memory = BodyMemory(200)
    with memory.of("one").share() as greedy, memory.of("another").share() as other:
        assert refused(greedy, 101)
        greedy.hold(100)
        assert refused(other, 51)
        other.hold(50)


@pytest.mark.parametrize("projects", [1, 2, 5])
def test_projects_that_take_all_they_get_leave_as_much_to_another(projects):
    memory = BodyMemory(600)
    with ExitStack() as stack:
        shares = [stack.enter_context(memory.of(str(i)).share()) for i in range(projects)]
        turns = [share for _ in range(600) for share in shares]
        assert all(share.may_hold(share.size + 1) or share.size for share in turns)
        each = 600 // (projects + 1)
        assert [share.size for share in shares] == [each] * projects
        assert not shares[0].may_hold(each + 1)
        with memory.of("honest").share() as share:
            share.hold(each // 2)


def test_streams_of_two_projects_leave_room_for_those_of_a_third():
    memory = BodyMemory(800)

    async def main():
        held = [await memory.of(name).room(50, part=0.75) for name in "ababab"]
        held += [await memory.of(name).room(50, part=0.75) for name in "ab"]
        waiting = asyncio.create_task(memory.of("a").room(50, part=0.75))
        third = await asyncio.wait_for(memory.of("c").room(100, part=0.75), 5)
        assert (third.size, waiting.done(), len(held)) == (100, False, 8)
        waiting.cancel()

    asyncio.run(main())


def test_of_many_who_wait_for_room_one_looks_for_it(monkeypatch):
    monkeypatch.setattr(body_memory, "_PATIENCE_S", 0.5)
    memory, looks = BodyMemory(1 << 20), 0
    has_room = memory.has_room

    def counted(*args, **kwargs):
        nonlocal looks
        looks += 1
        return has_room(*args, **kwargs)

    monkeypatch.setattr(memory, "has_room", counted)

    async def main():
        with memory.of(PROJECT).share() as share:
            share.hold(1 << 19)
            rooms = [memory.of(PROJECT).room(1) for _ in range(60)]
            refused = await asyncio.gather(*rooms, return_exceptions=True)
        assert all(isinstance(one, Problem) for one in refused)
        assert looks <= 60 + 0.5 / 0.05

    asyncio.run(main())
    assert memory.held == 0


def test_no_more_than_some_of_a_project_wait_for_room():
    memory = BodyMemory(1 << 20)

    async def main():
        with memory.of(PROJECT).share() as share:
            share.hold(1 << 19)
            waiting = [
                asyncio.create_task(memory.of(PROJECT).room(1))
                for _ in range(1 + body_memory._MOST_WAITING)
            ]
            await asyncio.sleep(0)
            with pytest.raises(Problem) as refused:
                await memory.of(PROJECT).room(1)
            assert refused.value.type.slug == "overloaded"
            await memory.of("another").room(1)
            share.hold(0)
            assert [one.size for one in await asyncio.gather(*waiting)] == [1] * len(waiting)

    asyncio.run(main())


def test_room_is_given_in_the_order_of_arrival(monkeypatch):
    memory, looks = BodyMemory(1 << 20), asyncio.Event()
    has_room, came = memory.has_room, 0

    def counted(*args, **kwargs):
        nonlocal came
        came += 1
        if came == 20:
            looks.set()
        return has_room(*args, **kwargs)

    monkeypatch.setattr(body_memory, "_LOOK_S", 0)
    monkeypatch.setattr(memory, "has_room", counted)

    async def main():
        with memory.of(PROJECT).share() as share:
            share.hold((1 << 19) - 2)
            large = asyncio.create_task(memory.of(PROJECT).room(4))
            small = asyncio.create_task(memory.of(PROJECT).room(2))
            await looks.wait()
            assert not small.done(), "it would pass over the one before it"
            share.hold(0)
            await asyncio.gather(large, small)

    asyncio.run(main())


def test_all_that_a_project_has_open_waits_for_room():
    memory = BodyMemory(1 << 20)

    async def main():
        with memory.of(PROJECT).share() as share:
            share.hold(1 << 19)
            waiting = [asyncio.create_task(memory.of(PROJECT).room(1)) for _ in range(256)]
            await asyncio.sleep(0)
            assert not any(one.done() for one in waiting)
        await asyncio.gather(*waiting)

    asyncio.run(main())


def test_who_waits_while_others_are_answered_is_not_refused():
    """The time for which they wait begins anew whenever one of the project has its turn."""
    memory = BodyMemory(1 << 20)

    def ends():
        return [limit.when() for limit in memory._patience[PROJECT]]

    async def main():
        share = memory.of(PROJECT).kept_share()
        share.hold(1 << 19)
        first, second, third = (
            asyncio.create_task(memory.of(PROJECT).room(1 << 19)) for _ in range(3)
        )
        await asyncio.sleep(0)
        before = ends()
        share.hold(0)
        held = await first
        assert min(ends()) > max(before)
        held.hold(0)
        await asyncio.gather(second)
        third.cancel()
        await asyncio.wait({third})
        assert not memory._patience

    asyncio.run(main())


def test_callers_who_hold_something_do_not_wait_for_each_other():
    memory = BodyMemory(800)

    all_hold = asyncio.Barrier(20)

    async def whole(share):
        share.hold(15)
        await all_hold.wait()
        await memory.of(PROJECT).room(5, part=0.75, share=share)
        share.hold(0)

    async def main():
        with ExitStack() as stack:
            shares = [stack.enter_context(memory.of(PROJECT).share()) for _ in range(20)]
            await asyncio.wait_for(asyncio.gather(*map(whole, shares)), 8)

    asyncio.run(main())
    assert memory.held == 0


@pytest.mark.parametrize("projects", [5, 20])
def test_a_large_response_of_a_new_project_fits_beside_those_of_many(projects, monkeypatch):
    monkeypatch.setattr(body_memory, "_PATIENCE_S", 0.1)
    memory = BodyMemory(256)

    async def main():
        names = [str(number) for number in range(projects)]
        held = [await memory.of(name).room(2, part=0.75) for name in names]
        for _ in range(16):
            waiting = [memory.of(name).room(2, part=0.75) for name in names]
            found = await asyncio.gather(*waiting, return_exceptions=True)
            held += [one for one in found if isinstance(one, Share)]
        with pytest.raises(Problem):
            await memory.of("0").room(18, part=0.75)
        return (await memory.of("new").room(18, part=0.75)).size

    assert asyncio.run(main()) == 18
