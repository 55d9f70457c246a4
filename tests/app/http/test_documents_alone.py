import asyncio
import threading
import weakref

import pytest

from app.fairness.turns import NOBODY, Threads, on_account_of
from app.rows.body import in_thread_if_large

WAIT_S = 30.0


def most_at_once(threads: Threads, owners: list[str]) -> tuple[int, list[str]]:
    """Decode a large body for each owner; how many at most at a time, and in which order."""
    lock, begun, release = threading.Lock(), threading.Event(), threading.Event()
    now, most, order = 0, 0, []

    def decode(_body: bytes, owner: str) -> None:
        nonlocal now, most
        with lock:
            now, most = now + 1, max(most, now + 1)
            order.append(owner)
        begun.set()
        release.wait(WAIT_S)
        with lock:
            now -= 1

    async def ask(owner: str) -> None:
        with on_account_of(owner, threads):
            await in_thread_if_large(decode, b" " * (1 << 20), owner)

    async def main() -> None:
        tasks = [asyncio.create_task(ask(owner)) for owner in owners]
        assert await asyncio.to_thread(begun.wait, WAIT_S)
        # Whatever else would begin has a thread by now: each is asked before this one's turn.
        with on_account_of(NOBODY, threads):
            await threads.run(NOBODY, lambda: None)
        release.set()
        await asyncio.gather(*tasks)

    asyncio.run(main())
    return most, order


@pytest.fixture
def threads():
    made = Threads("test", 6, each=6, alone=Threads("alone", 1, each=1))
    yield made
    made.close()


@pytest.mark.fault(231)
def test_large_bodies_are_decoded_one_at_a_time_by_project(threads):
    most, order = most_at_once(threads, ["a"] * 5 + ["b"])
    assert most == 1
    assert order.index("b") <= 2


@pytest.mark.fault(231)
def test_the_service_has_one_thread_for_documents(client):
    threads = client.app.state.threads
    assert threads.alone is not threads


class Document:
    """What a parser makes."""


@pytest.mark.fault(231)
def test_the_error_about_a_document_does_not_keep_the_document(threads):
    made: list[weakref.ref[Document]] = []

    def decode(_body: bytes) -> None:
        document = Document()
        made.append(weakref.ref(document))
        raise ValueError("its rows have another width")

    async def main() -> ValueError:
        with on_account_of("a", threads), pytest.raises(ValueError, match="width") as raised:
            await in_thread_if_large(decode, b" " * (1 << 20))
        return raised.value

    error = asyncio.run(main())
    assert made[0]() is None, error
