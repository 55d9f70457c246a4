"""Bound on what waits in memory of bodies on their way, of which there may be thousands."""

import asyncio
from types import SimpleNamespace
from typing import Any

from app.connections.receiving.fast_bodies import FastBodies
from app.connections.unfinished import UNFINISHED, UnfinishedBodies
from app.connections.unread import BoundedReads

MIB = 1024 * 1024


class Cycle:
    """Request whose body nobody reads."""

    def __init__(self):
        self.body, self.response_complete, self.is_paused = b"", False, False
        self.message_event = asyncio.Event()
        self.flow = SimpleNamespace(pause_reading=self.pause)

    def pause(self):
        self.is_paused = True


def test_all_pieces_of_bodies_on_their_way_have_a_bound_together():
    known = UnfinishedBodies()
    assert known.piece_bytes(100_000) == 100_000
    sizes = list[int]()
    for number in range(1, 1_001):
        known.begin(number)
        known.begin(number)
        sizes.append(number * known.piece_bytes())
    assert max(sizes) <= 8 * MIB
    for number in range(1, 2_001):
        known.end(number)
    assert known.piece_bytes() == 512 * 1024


def test_little_of_hundreds_of_fast_bodies_that_nobody_reads_is_kept():
    async def main() -> int:
        loop = asyncio.get_running_loop()
        bodies: list[tuple[Any, Cycle]] = [(FastBodies(loop), Cycle()) for _ in range(500)]
        reads = BoundedReads(asyncio.Protocol())
        came = 0
        try:
            while paused := [body for body in bodies if not body[1].is_paused]:
                for kept, cycle in paused:
                    size = len(reads.get_buffer(-1))
                    kept.add(bytes(size))
                    kept.end_read(cycle)
                    came += size
        finally:
            for kept, _ in bodies:
                kept.drop()
                kept.end()
        return came

    assert asyncio.run(main()) <= 32 * MIB
    assert UNFINISHED.piece_bytes(100_000) == 100_000


def test_a_body_that_ended_counts_no_longer():
    async def main() -> None:
        body: Any = FastBodies(asyncio.get_running_loop())
        body.add(b"x")
        body.end_read(Cycle())
        others = [object() for _ in range(10_000)]
        for other in others:
            UNFINISHED.begin(other)
        little = UNFINISHED.piece_bytes()
        for other in others:
            UNFINISHED.end(other)
        assert little < UNFINISHED.piece_bytes()
        body.end()

    asyncio.run(main())
    assert UNFINISHED.piece_bytes() == 512 * 1024
