import asyncio
import tracemalloc

from hypothesis import given, strategies as st

from app.http.body_memory import BodyMemory
from app.http.pieces import Pieces

PIECES = st.lists(st.binary(max_size=40) | st.integers(1020, 1030).map(bytes))


@given(first=st.binary(max_size=40), pieces=PIECES)
def test_all_bytes_are_returned_in_their_order_once(first, pieces):
    kept = Pieces(first)
    for piece in pieces:
        kept.add(piece)
    whole = first + b"".join(pieces)
    assert kept.size == len(whole)
    taken = kept.take()
    assert (taken, type(taken)) == (whole, bytes)
    assert (kept.size, kept.take()) == (0, b"")


def test_one_large_piece_is_not_copied():
    body = bytes(5_000)
    kept = Pieces(body)
    kept.add(b"")
    assert kept.take() is body


def test_a_body_in_the_smallest_pieces_takes_no_more_than_it_counts():
    size = 200_000
    memory = BodyMemory(10 * size)
    at_end = list[int]()

    async def pieces():
        for number in range(size):
            yield bytes([number % 256])
        at_end.append(tracemalloc.get_traced_memory()[0] - before)

    async def gathered():
        with memory.of("one").share() as share:
            body = await share.gather(pieces())
            assert memory.held == len(body) == size

    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        asyncio.run(gathered())
    finally:
        tracemalloc.stop()
    assert at_end[0] < 1.5 * size
