"""Answers that are made while they are sent."""

import asyncio
import dataclasses
import gc
import json
import threading
import weakref
from collections.abc import AsyncGenerator
from types import SimpleNamespace
from typing import Any, ClassVar, TypeVar

import numpy as np
import pytest
from starlette.requests import ClientDisconnect, Request
from starlette.types import Message

from app.fairness.turns import Threads, on_account_of
from app.http import body_memory
from app.http.body_memory import BodyMemory
from app.http.streaming import StreamedResponse
from app.problems.problem import Problem
from app.rows.codecs import BY_MEDIA_TYPE, Codec
from app.rows.encode import Encoder
from app.rows.respond import Rows, respond_opened, respond_streamed, respond_whole
from app.rows.response_table import Chunk, Part, ResponseTable
from tabular.columns import Column
from tabular.formats import TableFormat
from tabular.typed_rows import TypedRows
from tabular.writers import Encoded
from tests.waiting import wait_until

LEAVES_AFTER = 3
_Thing = TypeVar("_Thing")


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

    request = a_request()
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


NAMES = [f"{place:03d}" + "\U0001d518" * 125 for place in range(40)]
LONG = Column(name="text", type="category", levels=("short", "long" * 50_000))
MOST_BYTES = 3 * 2**20


def a_request(memory: BodyMemory | None = None) -> Request:
    """A request of the project `one`."""
    state = SimpleNamespace(body_memory=memory or BodyMemory(1 << 30))
    caller = SimpleNamespace(project="one")
    scope: dict[str, Any] = {"app": SimpleNamespace(state=state), "state": {"caller": caller}}
    return Request({"type": "http", "method": "POST", "headers": [], **scope})


def a_wide_table(columns: int, rows: int = 1) -> ResponseTable:
    names = [f"x{place}" for place in range(columns)]
    return ResponseTable(
        columns=names,
        parts=[Part("noise", 0, columns)],
        rows=rows,
        dtype=np.dtype(np.float64),
        members={},
    )


@pytest.mark.parametrize("kind", ["arrow", "parquet"])
@pytest.mark.parametrize("columns", [64, 65])
def test_many_columns_of_a_few_rows_are_encoded_in_a_thread(kind: str, columns: int) -> None:
    [codec] = [codec for codec in BY_MEDIA_TYPE.values() if codec.format.value == kind]
    encoding = []

    def watched(layout: ResponseTable) -> Encoder:
        encoder = codec.encoder(layout)
        encode = encoder.rows

        def rows(chunk: Chunk) -> Encoded:
            encoding.append(threading.current_thread())
            return encode(chunk)

        encoder.rows = rows  # type: ignore[method-assign]  # it calls what it replaces
        return encoder

    watching = dataclasses.replace(codec, encoder=watched)
    pieces = sent_pieces(watching, a_wide_table(columns), np.zeros((1, columns)))
    assert b"".join(pieces)
    assert [thread is threading.main_thread() for thread in encoding] == [columns == 64]


@pytest.mark.parametrize("kind", ["arrow", "parquet"])
@pytest.mark.parametrize("leaves", [False, True])
def test_the_encoder_of_many_columns_is_made_and_freed_in_a_thread(kind: str, leaves: bool) -> None:
    [codec] = [codec for codec in BY_MEDIA_TYPE.values() if codec.format.value == kind]
    threads = []

    def watched(layout: ResponseTable) -> Encoder:
        encoder = codec.encoder(layout)
        threads.append(threading.current_thread())
        weakref.finalize(encoder, lambda: threads.append(threading.current_thread()))
        return encoder

    watching = dataclasses.replace(codec, encoder=watched)
    chunk = Chunk(np.zeros((1, 100)))

    async def main() -> None:
        response = respond_whole(a_request(), watching, a_wide_table(100), chunk, headers={})
        assert isinstance(response, StreamedResponse)
        pieces = response._pieces
        async for _ in pieces:
            if leaves:
                await pieces.aclose()

    asyncio.run(main())
    wait_until(lambda: len(threads) == 2)  # the thread may have it for a moment longer
    assert threading.main_thread() not in threads


@pytest.mark.parametrize("codec", BY_MEDIA_TYPE.values(), ids=lambda codec: codec.format.value)
@pytest.mark.parametrize("kind", ["cells", "numbers"])
def test_cells_of_all_projects_are_encoded_one_piece_at_a_time(codec: Codec, kind: str) -> None:
    encoding: list[str] = []
    columns = [Column(name=f"x{place}", type="category", levels=("a", "b")) for place in range(50)]
    table = dataclasses.replace(
        a_wide_table(50, rows=1_000), typed=TypedRows(columns) if kind == "cells" else None
    )

    def watched(layout: ResponseTable) -> Encoder:
        encoder = codec.encoder(layout)
        encode = encoder.rows

        def rows(chunk: Chunk) -> Encoded:
            encoding.append(threading.current_thread().name.partition("_")[0])
            return encode(chunk)

        encoder.rows = rows  # type: ignore[method-assign]  # it calls what it replaces
        return encoder

    watching = dataclasses.replace(codec, encoder=watched)
    threads = Threads("requests", 6, each=2, cells=Threads("cells", 1, each=1))

    async def chunks() -> AsyncGenerator[Chunk, None]:
        yield Chunk(np.zeros((1_000, 50)))

    async def ask(project: str) -> None:
        with on_account_of(project, threads):
            made = respond_streamed(a_request(), watching, table, chunks, headers={})
            assert isinstance(made, StreamedResponse)
            assert b"".join([piece async for piece in made._pieces])

    async def main() -> None:
        await asyncio.gather(*map(ask, ["one", "two", "three"]))

    asyncio.run(main())
    threads.close()
    names_repeat = codec.format is TableFormat.NDJSON
    assert set(encoding) == {"cells" if kind == "cells" or names_repeat else "requests"}


class Divided(Chunk):
    """Rows that tell which threads divide them."""

    threads: ClassVar[list[threading.Thread]] = []

    def part(self, start: int, stop: int) -> Chunk:
        self.threads.append(threading.current_thread())
        return super().part(start, stop)


def freed_in(threads: list[threading.Thread], thing: _Thing) -> _Thing:
    """The same thing, which tells where it is freed."""
    weakref.finalize(thing, lambda: threads.append(threading.current_thread()))
    return thing


def many_cells(codec: Codec, freeing: list[threading.Thread]) -> StreamedResponse:
    """An answer of two chunks of rows with a hundred columns of cells."""
    columns = [Column(name=f"{place:03}{'x' * 5_000}", type="integer") for place in range(100)]
    table = ResponseTable(
        columns=[column.name for column in columns],
        parts=[Part("rows", 0, 100)],
        rows=20,
        dtype=np.dtype("f8"),
        members={},
        typed=freed_in(freeing, TypedRows(columns)),
    )

    async def chunks() -> AsyncGenerator[Chunk, None]:
        for _ in range(2):
            yield freed_in(freeing, Divided(np.zeros((10, 100))))

    made = respond_streamed(a_request(), codec, table, chunks, headers={})
    assert isinstance(made, StreamedResponse)
    return made


@pytest.mark.parametrize("codec", BY_MEDIA_TYPE.values(), ids=lambda codec: codec.format.value)
@pytest.mark.parametrize("leaves", [False, True])
def test_rows_of_many_cells_are_divided_and_freed_in_a_thread(codec: Codec, leaves: bool) -> None:
    """So is all that their generator refers to, such as the columns of a dataset."""
    freeing: list[threading.Thread] = []
    Divided.threads.clear()

    async def main() -> None:
        pieces = many_cells(codec, freeing)._pieces
        if leaves:
            await anext(pieces)
            await anext(pieces)
            await pieces.aclose()
        else:
            assert [piece async for piece in pieces]

    asyncio.run(main())
    wait_until(lambda: len(freeing) == (2 if leaves else 3))
    assert threading.main_thread() not in Divided.threads + freeing
    assert Divided.threads or codec.format is not TableFormat.NDJSON


def test_row_groups_that_are_gathered_count_as_bodies_in_memory(monkeypatch):
    """One that finds no room waits for those before it, not for ever."""
    monkeypatch.setattr(body_memory, "_PATIENCE_S", 0.2)
    [codec] = [codec for codec in BY_MEDIA_TYPE.values() if codec.format.value == "parquet"]
    table, memory = a_wide_table(100, rows=10_000), BodyMemory(64 << 20)
    group_bytes = 2 * 10_000 * 100 * 8

    async def chunks() -> AsyncGenerator[Chunk, None]:
        yield Chunk(np.zeros((10_000, 100)))

    async def main() -> None:
        def encoded() -> AsyncGenerator[Any, None]:
            response = respond_streamed(a_request(memory), codec, table, chunks, headers={})
            assert isinstance(response, StreamedResponse)
            return response._pieces

        first, second, third, fourth = (encoded() for _ in range(4))
        await anext(first)
        assert 0 < memory.held <= group_bytes
        used = memory.held
        with memory.of("one").share() as others:
            others.hold((24 << 20) - 2 * used)
            await anext(second)
            with pytest.raises(Problem, match="overloaded"):
                await anext(third)
            waiting = asyncio.ensure_future(anext(fourth))
            await asyncio.sleep(0)
            await first.aclose()
            await waiting
            for one in (second, fourth):
                await one.aclose()

    asyncio.run(main())
    gc.collect()
    assert memory.held == 0


def test_a_row_group_does_not_wait_for_room_when_its_caller_has_left(monkeypatch):
    monkeypatch.setattr(body_memory, "_PATIENCE_S", 1e6)
    [codec] = [codec for codec in BY_MEDIA_TYPE.values() if codec.format.value == "parquet"]
    table, memory = a_wide_table(100, rows=10_000), BodyMemory(64 << 20)
    request = a_request(memory)
    left = asyncio.Event()

    async def chunks() -> AsyncGenerator[Chunk, None]:
        yield Chunk(np.zeros((10_000, 100)))

    async def receive() -> Message:
        await left.wait()
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        assert message["type"] == "http.response.start", "there is no room for it"

    async def main() -> None:
        with memory.of("one").share() as others:
            others.hold(32 << 20)
            response = respond_streamed(request, codec, table, chunks, headers={})
            sending = asyncio.create_task(response(dict(request.scope), receive, send))
            await asyncio.sleep(0)
            left.set()
            with pytest.raises(ClientDisconnect):
                await sending

    asyncio.run(main())
    gc.collect()
    assert memory.held == 0


def test_of_those_who_wait_for_room_one_has_opened_its_rows():
    [codec] = [codec for codec in BY_MEDIA_TYPE.values() if codec.format.value == "json"]
    memory, opened = BodyMemory(64 << 20), []

    async def chunks() -> AsyncGenerator[Chunk, None]:
        yield Chunk(np.zeros((1, 100)))

    def open_rows() -> Rows:
        opened.append(1)
        return Rows(a_wide_table(100, rows=1), chunks, held_bytes=4 << 20)

    async def body() -> bytes:
        response = respond_opened(a_request(memory), codec, open_rows)
        assert isinstance(response, StreamedResponse)
        return b"".join([piece async for piece in response._pieces])

    async def main() -> set[bytes]:
        with memory.of("one").share() as others:
            others.hold(32 << 20)
            waiting = [asyncio.create_task(body()) for _ in range(8)]
            async with asyncio.timeout(30):
                while not opened:  # noqa: ASYNC110 - in a thread
                    await asyncio.sleep(0.01)
            await asyncio.sleep(0.1)
            assert len(opened) == 1
        return set(await asyncio.gather(*waiting))

    assert len(asyncio.run(main())) == 1
    assert len(opened) == 8
    gc.collect()
    assert memory.held == 0


@pytest.mark.parametrize("most", [1 << 10, 32 << 20])
def test_a_row_group_alone_always_has_room(most: int) -> None:
    [codec] = [codec for codec in BY_MEDIA_TYPE.values() if codec.format.value == "parquet"]
    table = dataclasses.replace(a_wide_table(5, rows=200_000), typed=TypedRows([LONG] * 5))
    memory = BodyMemory(most)

    async def chunks() -> AsyncGenerator[Chunk, None]:
        yield Chunk(np.zeros((1, 5)))

    async def main() -> bytes:
        response = respond_streamed(a_request(memory), codec, table, chunks, headers={})
        assert isinstance(response, StreamedResponse)
        return b"".join([piece async for piece in response._pieces])

    assert codec.encoder(table).kept_bytes > most
    assert asyncio.run(main())[:4] == b"PAR1"


def sent_pieces(codec: Codec, table: ResponseTable, values: np.ndarray) -> list[bytes]:
    """The pieces of the body of a response of one chunk."""
    sent: list[Message] = []

    async def receive() -> Message:
        await asyncio.Event().wait()
        raise AssertionError

    async def send(message: Message) -> None:
        sent.append(message)

    response = respond_whole(a_request(), codec, table, Chunk(values), headers={})
    asyncio.run(response(dict(a_request().scope), receive, send))
    return [message["body"] for message in sent[1:]]


@pytest.mark.parametrize("kind", ["json", "ndjson"])
def test_names_that_each_row_repeats_become_text_a_bounded_number_of_rows_at_a_time(
    kind: str,
) -> None:
    [codec] = [codec for codec in BY_MEDIA_TYPE.values() if codec.format.value == kind]
    values = np.arange(800 * 40, dtype=np.float64).reshape(800, 40)
    table = ResponseTable(
        columns=NAMES,
        parts=[Part("conditional", 0, 40, keys=NAMES)],
        rows=800,
        dtype=values.dtype,
        members={"order": NAMES},
    )

    pieces = sent_pieces(codec, table, values)

    assert max(map(len, pieces)) < MOST_BYTES
    text = b"".join(pieces)
    rows = json.loads(text)["conditional"] if kind == "json" else map(json.loads, text.splitlines())
    assert [list(row.values()) for row in rows] == values.tolist()


@pytest.mark.parametrize("codec", BY_MEDIA_TYPE.values(), ids=lambda codec: codec.format.value)
def test_long_levels_become_text_a_bounded_number_of_rows_at_a_time(codec: Codec) -> None:
    values = np.ones((60, 1))
    values[7] = 0
    table = ResponseTable(
        columns=["text"],
        parts=[Part("rows", 0, 1)],
        rows=60,
        dtype=values.dtype,
        members={},
        typed=TypedRows([LONG]),
    )

    pieces = sent_pieces(codec, table, values)

    assert max(map(len, pieces)) < MOST_BYTES
    if codec.format is TableFormat.CSV:
        lines = b"".join(pieces).decode().splitlines()
        assert lines == ["text", *(str(LONG.levels[int(place)]) for place in values[:, 0])]


@pytest.mark.parametrize("kind", ["json", "csv", "npy", "arrow"])
def test_an_answer_without_rows_has_its_head(kind: str) -> None:
    [codec] = [codec for codec in BY_MEDIA_TYPE.values() if codec.format.value == kind]

    none: list[Chunk] = []

    async def chunks() -> AsyncGenerator[Chunk, None]:
        for chunk in none:
            yield chunk

    async def main() -> bytes:
        table = a_wide_table(2, rows=0)
        response = respond_streamed(a_request(), codec, table, chunks, headers={})
        assert isinstance(response, StreamedResponse)
        return b"".join([piece async for piece in response._pieces])

    content = asyncio.run(main())
    encoder = codec.encoder(a_wide_table(2, rows=0))
    assert content == b"".join([encoder.start(), *encoder.end()])
