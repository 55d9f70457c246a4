"""Answers that are made while they are sent."""

import asyncio
from collections.abc import AsyncGenerator

import numpy as np
import pytest
from starlette.requests import ClientDisconnect, Request
from starlette.types import Message

from app.rows.codecs import BY_MEDIA_TYPE, Codec
from app.rows.respond import respond_streamed
from app.rows.response_table import Chunk, Part, ResponseTable

LEAVES_AFTER = 3


@pytest.mark.parametrize("codec", BY_MEDIA_TYPE.values(), ids=lambda codec: codec.format.value)
def test_work_ends_within_a_chunk_of_the_callers_leaving(codec: Codec) -> None:
    """Also where a format gathers many chunks before it makes anything of them."""
    made = 0
    left = asyncio.Event()

    async def chunks() -> AsyncGenerator[Chunk, None]:
        nonlocal made
        while True:
            made += 1
            if made == LEAVES_AFTER:
                left.set()
            await asyncio.sleep(0)
            yield Chunk(np.ones((10, 2)))

    async def receive() -> Message:
        await left.wait()
        return {"type": "http.disconnect"}

    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    request = Request({"type": "http", "method": "POST", "headers": []})
    answer = ResponseTable(
        columns=["a", "b"],
        parts=[Part("rows", 0, 2)],
        rows=10_000,
        dtype=np.dtype(np.float64),
        members={},
    )
    response = respond_streamed(request, codec, answer, chunks, headers={})

    with pytest.raises(ClientDisconnect):
        asyncio.run(response(dict(request.scope), receive, send))

    assert made <= LEAVES_AFTER + 2
    assert all(message["body"] for message in sent[1:])
