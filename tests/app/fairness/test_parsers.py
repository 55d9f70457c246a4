"""Processes that read files: small files beside large ones."""

import asyncio
import threading

import pytest

from app.fairness.parsers import BRIEF_FILE_BYTES, Parsers
from tabular.errors import SandboxLimitError, TableError

MEMORY_BYTES = 1 << 30
TIMEOUT_S = 600.0
ALL = {"memory_bytes": MEMORY_BYTES, "timeout_s": TIMEOUT_S}


@pytest.fixture
def parsers():
    parsers = Parsers(3, memory_bytes=MEMORY_BYTES, timeout_s=TIMEOUT_S)
    yield parsers
    parsers.close()


async def settled():
    """Let everything continue that can."""
    for _ in range(20):
        await asyncio.sleep(0)


def test_a_file_has_all_time_and_memory_while_there_is_a_parser(parsers):
    def read(**limits):
        return limits

    found = asyncio.run(parsers.run("a", read, size=1))
    assert found == ALL


@pytest.mark.parametrize("slug", ["dataset-parse", "dataset-too-large"])
def test_a_small_file_does_not_wait_for_the_large_ones_of_several_projects(parsers, slug):
    async def main():
        go_on = threading.Event()
        tried = []

        def read_for_minutes(**_limits):
            return go_on.wait(60)

        def read(**_limits):
            return "read"

        def read_damaged(**limits):
            tried.append(limits)
            if slug == "dataset-too-large":
                raise SandboxLimitError("It takes longer.")
            raise TableError(slug, "It is damaged.")

        theirs = [
            asyncio.create_task(parsers.run(owner, read_for_minutes, size=BRIEF_FILE_BYTES + 1))
            for owner in "aabb"
        ]
        await settled()
        large = asyncio.create_task(parsers.run("c", read, size=BRIEF_FILE_BYTES + 1))
        assert await asyncio.wait_for(parsers.run("c", read, size=BRIEF_FILE_BYTES), 30) == "read"
        slow = asyncio.create_task(parsers.run("c", read_damaged, size=1))
        await asyncio.wait({slow}, timeout=0 if slug == "dataset-too-large" else 30)
        await parsers.run("d", read, size=1)  # behind the short try of the one before
        assert not large.done()
        assert slow.done() == (slug == "dataset-parse")
        [limits] = tried
        assert limits["memory_bytes"] < MEMORY_BYTES
        assert limits["processor_s"] < limits["timeout_s"] < TIMEOUT_S
        go_on.set()
        assert all(await asyncio.gather(*theirs))
        with pytest.raises(TableError):
            await slow
        assert tried[1:] == [ALL] * (slug == "dataset-too-large")
        assert await large == "read"

    asyncio.run(main())


def test_what_takes_longer_than_it_may_is_not_tried_again_where_a_parser_was_free(parsers):
    tried = []

    def read(*, timeout_s, **_limits):
        tried.append(timeout_s)
        raise SandboxLimitError("It takes longer.")

    with pytest.raises(TableError):
        asyncio.run(parsers.run("a", read, size=1))
    assert tried == [TIMEOUT_S]
