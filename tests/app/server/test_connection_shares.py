"""The rule by which processes share connections, and the rows by which they know of each other."""

import os
import sys
import time

import pytest
from hypothesis import given, strategies as st

from app.server.connection_shares import ConnectionShares, room_beside
from app.server.shared_memory import make_shared

COUNTS = st.lists(st.integers(0, 5_000), min_size=2, max_size=8)


@pytest.fixture
def memory():
    """That of two processes."""
    memory = make_shared(ConnectionShares.size(2))
    yield memory
    os.close(memory)


@pytest.fixture
def shares(memory):
    """Those of two processes."""
    return [ConnectionShares(memory, index=index) for index in range(2)]


def rooms(counts):
    return [
        room_beside([*counts[:index], *counts[index + 1 :]], count)
        for index, count in enumerate(counts)
    ]


@given(COUNTS)
def test_whoever_has_the_fewest_may_take_one(counts):
    assert rooms(counts)[counts.index(min(counts))] > 0


@given(COUNTS)
def test_nobody_takes_much_more_than_the_mean(counts):
    for count, room in zip(counts, rooms(counts), strict=True):
        if room:
            total = sum(counts) + room - 1  # when the last of them is taken
            assert count + room - 1 <= (1 + 1 / 16) * total / len(counts) + 1e-6
        else:
            assert count > sum(counts) / len(counts)


@given(st.integers(2, 8), st.data())
def test_in_whatever_order_they_look_the_shares_are_even(processes, data):
    counts = [0] * processes
    arrived = data.draw(st.integers(0, 60))
    while sum(counts) < arrived:
        index = data.draw(st.integers(0, processes - 1))
        counts[index] += min(rooms(counts)[index], arrived - sum(counts))
        counts[counts.index(min(counts))] += sum(counts) < arrived  # it may always
    # A process stops at a sixteenth beyond the mean, rounded up.
    assert max(counts) <= (1 + 1 / 16) * sum(counts) / processes + 1


def test_a_process_alone_takes_whatever_comes(shares):
    first, second = shares
    first.tell(1_000)
    assert first.room() == sys.maxsize
    second.tell(10)
    assert first.room() == 0
    second.leave()
    assert first.room() == sys.maxsize


def test_one_that_says_nothing_is_left_out_until_it_does(shares):
    first, second = shares
    second.tell(0)
    first.tell(5)
    assert first.room() == 0
    first.ignore_silent(time.monotonic_ns())
    assert first.room() == sys.maxsize
    second.tell(0)
    assert first.room() == 0


def test_what_one_that_was_killed_had_is_forgotten_by_its_replacement(memory, shares):
    first, second = shares
    first.tell(3)
    second.tell(100)
    assert first.room() > 16
    replacement = ConnectionShares(memory, index=1)
    assert first.room() == sys.maxsize
    replacement.tell(0)
    assert (first.room(), replacement.room()) == (0, 4)
