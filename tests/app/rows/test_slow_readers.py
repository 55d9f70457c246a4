"""Memory that answers take whose callers read slowly."""

import asyncio
import gc
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, aclosing
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from starlette.requests import Request

from app.fairness.turns import in_thread
from app.http import body_memory
from app.http.body_memory import BodyMemory
from app.http.streaming import StreamedResponse
from app.problems.problem import Problem
from app.rows import respond
from app.rows.codecs import BY_MEDIA_TYPE, Codec
from app.rows.respond import respond_streamed
from app.rows.response_table import Chunk, Part, ResponseTable

ROWS, CHUNKS = 4096, 25
EACH = 2 << 20


def pieces_of(codec: Codec, memory: BodyMemory, project: str) -> AsyncGenerator[Any, None]:
    """The body of an answer of many rows."""
    names = [f"x{place}" for place in range(8)]
    table = ResponseTable(
        columns=names,
        parts=[Part("rows", 0, 8)],
        rows=ROWS * CHUNKS,
        dtype=np.dtype(np.float64),
        members={},
    )

    async def chunks() -> AsyncGenerator[Chunk, None]:
        for _ in range(CHUNKS):
            yield Chunk(np.full((ROWS, 8), 1 / 3))

    state = SimpleNamespace(body_memory=memory)
    caller = SimpleNamespace(project=project)
    scope: dict[str, Any] = {"app": SimpleNamespace(state=state), "state": {"caller": caller}}
    request = Request({"type": "http", "method": "GET", "headers": [], **scope})
    response = respond_streamed(request, codec, table, chunks, headers={})
    assert isinstance(response, StreamedResponse)
    return response._pieces


@pytest.mark.parametrize("codec", BY_MEDIA_TYPE.values(), ids=lambda codec: codec.format.value)
def test_what_answers_hold_counts_while_their_callers_read(codec, monkeypatch):
    """Others wait, for a while; other projects and bodies have room."""
    monkeypatch.setattr(body_memory, "_PATIENCE_S", 0.1)
    memory = BodyMemory(1 << 30)

    async def main() -> None:
        async with AsyncExitStack() as stack:
            slow = await stack.enter_async_context(aclosing(pieces_of(codec, memory, "one")))
            await anext(slow)
            each = memory.held
            assert each >= EACH
            with memory.of("one").share() as others:
                others.hold((384 << 20) - each)
                refused = pieces_of(codec, memory, "one")
                with pytest.raises(Problem) as raised:
                    await anext(refused)
                assert raised.value.type.slug == "overloaded"
                with memory.of("one").share() as body:
                    body.hold(100 << 20)
                async with aclosing(pieces_of(codec, memory, "two")) as another:
                    assert b"".join([piece async for piece in another])
                await slow.aclose()
                async with aclosing(pieces_of(codec, memory, "one")) as next_one:
                    await anext(next_one)

    asyncio.run(main())
    gc.collect()
    assert memory.held == 0


@pytest.mark.parametrize("codec", BY_MEDIA_TYPE.values(), ids=lambda codec: codec.format.value)
def test_a_chunk_of_a_few_columns_takes_one_turn_in_a_thread(codec, monkeypatch):
    turns = 0

    async def counted(function, *args):
        nonlocal turns
        turns += 1
        return await in_thread(function, *args)

    monkeypatch.setattr(respond, "in_thread", counted)

    async def main() -> list[int]:
        return [len(piece) async for piece in pieces_of(codec, BodyMemory(1 << 30), "one")]

    assert max(asyncio.run(main())) < 8 << 20
    assert turns <= CHUNKS + 5
