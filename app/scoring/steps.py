"""Computations in short steps, for those that may take longer than others can wait."""

import time
from collections.abc import Iterator
from dataclasses import replace

from app.engine.engine import Engine, Terms

_TURN_S = 0.004


async def take_steps(
    engine: Engine, steps: Iterator[None], *, rows: int, size_bytes: int, terms: Terms
) -> None:
    """Take steps on the engine's thread, a few milliseconds in each turn, until there are no more.

    Args:
        engine: Engine that computes.
        steps: Steps of a computation.
        rows: Number of rows that they compute.
        size_bytes: Memory in bytes that the request holds, for the bound on the queue.
        terms: Conditions of the request.

    Raises:
        OverloadedError: The queue is full, or the request waited too long.
    """
    ended = False

    def turn(_start: int, _stop: int) -> None:
        nonlocal ended
        until = time.thread_time() + _TURN_S
        for _ in steps:
            if time.thread_time() >= until:
                return
        ended = True

    while not ended:
        await engine.run(turn, rows=1, size_bytes=size_bytes, terms=terms)
        terms = replace(terms, admitted=True)
    engine.count(rows)
