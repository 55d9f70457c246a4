"""Fair shares: of threads, of parsers, of the engine's queue, and of the looks for keys."""

import asyncio
import threading
from contextlib import ExitStack

import pytest

from app.auth.callers import Callers
from app.limits import Caller, OpenBound, Threads, Turns, charge_to, in_thread
from app.problems.problem import Problem
from models_store.database.database import Database
from models_store.keys import Keys, Scope

pytestmark = pytest.mark.anyio


@pytest.fixture
def threads():
    threads = Threads("test", 3, each=2)
    yield threads
    threads.close()


async def settled():
    """Let everything continue that can."""
    for _ in range(20):
        await asyncio.sleep(0)


def test_a_key_has_a_share_of_open_requests_and_the_keys_of_a_project_two():
    bound = OpenBound("requests", 2)

    def is_held(project: str, key: str | None) -> bool:
        try:
            held.enter_context(bound.hold(Caller(project, Scope.READ, key)))
        except Problem as problem:
            return problem.type.slug != "limit-open-requests"
        return True

    for _ in range(2):  # what was held is given back
        with ExitStack() as held:
            assert [is_held("a", "key_1") for _ in range(3)] == [True, True, False]
            assert [is_held("a", key) for key in ("key_2", "key_2", "key_3")] == [True, True, False]
            assert is_held("b", "key_4")
            assert [is_held("c", None) for _ in range(17)] == [True] * 16 + [False]


async def test_turns_go_round_by_owner_and_within_one_in_the_order_of_asking():
    served = []
    turns = Turns(1, each=1)
    go_on = asyncio.Event()

    async def ask(owner, number):
        async with turns.turn(owner):
            served.append(f"{owner}{number}")
            await go_on.wait()

    asks = [ask("a", n) for n in range(4)] + [ask("b", n) for n in range(2)] + [ask("c", 0)]
    tasks = []
    for each in asks:
        tasks.append(asyncio.create_task(each))
        await settled()
    go_on.set()
    await asyncio.gather(*tasks)
    assert served == ["a0", "b0", "c0", "a1", "b1", "a2", "a3"]


async def test_one_owner_leaves_something_for_the_others():
    turns = Turns(3, each=2)
    for owner in "aab":
        await turns.take(owner)
    waiting = asyncio.create_task(turns.take("a"))
    other = asyncio.create_task(turns.take("c"))
    await settled()
    turns.give_back("b")
    await settled()
    assert other.done()
    assert not waiting.done()  # `a` has its share, though it asked before
    turns.give_back("a")
    await waiting


async def test_who_leaves_the_queue_takes_nothing_along():
    turns = Turns(1, each=1)
    await turns.take("a")
    leaving = [asyncio.create_task(turns.take("a")) for _ in range(3)]
    staying = asyncio.create_task(turns.take("a"))
    await settled()
    for task in leaving[:2]:
        task.cancel()
    await settled()
    turns.give_back("a")
    leaving[2].cancel()  # it has been given the turn by now, and cannot use it
    await staying
    turns.give_back("a")
    await asyncio.wait_for(turns.take("b"), 60)


async def test_one_project_in_all_its_threads_keeps_no_other_waiting(threads):
    go_on = threading.Event()
    theirs = [asyncio.create_task(threads.run("a", go_on.wait)) for _ in range(50)]
    await settled()
    assert await threads.run("b", lambda: "served") == "served"
    go_on.set()
    assert all(await asyncio.gather(*theirs))


async def test_a_thread_that_nobody_waits_for_counts_until_it_ends(threads):
    go_on, ended = threading.Event(), threading.Event()

    def work():
        go_on.wait()
        ended.set()

    left = [asyncio.create_task(threads.run("a", work)) for _ in range(2)]
    await settled()
    for task in left:
        task.cancel()
    third = asyncio.create_task(threads.run("a", ended.is_set))
    await settled()
    assert not third.done()
    go_on.set()
    assert await third


async def test_work_is_done_on_the_account_of_whoever_sent_the_request(threads):
    async def of_a_request() -> str:
        charge_to("a", threads)
        with pytest.raises(ZeroDivisionError):
            await in_thread(lambda: 1 // 0)
        return await in_thread(lambda: threading.current_thread().name)

    name = threading.current_thread().name
    inside = await asyncio.create_task(of_a_request())
    outside = await in_thread(lambda: threading.current_thread().name)
    assert inside.startswith("test")
    assert not outside.startswith("test")
    assert name not in (inside, outside)


async def test_keys_are_looked_for_whatever_all_other_threads_do(sqlite_url):
    database = Database(sqlite_url)
    keys = Keys(database)
    token = keys.create("p", Scope.READ).token
    loop = asyncio.get_running_loop()
    go_on = threading.Event()
    busy = [loop.run_in_executor(None, go_on.wait) for _ in range(100)]
    callers = Callers(keys, anonymous=False)
    try:
        caller = await callers.identify([f"Bearer {token}".encode()])
        assert caller.project == "p"
    finally:
        go_on.set()
        callers.close()
    await asyncio.gather(*busy)
    database.dispose()
