"""Decoding a body of rows without a server."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from app.fairness.parsers import Parsers
from app.http.body_memory import BodyMemory
from app.problems.problem import Problem
from app.rows.body import RowsBody
from app.rows.codecs import CODECS
from app.rows.shape import Floats, RowsShape
from app.settings import ApiSettings
from models_store.files.local_blobs import LocalBlobs
from tabular.formats import TableFormat

NO_PARAMETERS: Mapping[str, str] = {}
_CODECS = {codec.format: codec for codec in CODECS}


def decode(
    body: bytes | Iterable[bytes], kind: TableFormat, shape: RowsShape, **parameters: str
) -> Floats:
    """The rows of a body, put together; nothing may be left on the disk.

    Where its format has a way of its own for whole bodies, or for those whose length is declared,
    that must come to the same.
    """
    pieces = [body] if isinstance(body, bytes) else body
    streamed = _outcome(lambda: _decode_stream(pieces, kind, shape, parameters))
    if isinstance(body, bytes):
        declared = _outcome(lambda: _decode_stream([body], kind, shape, parameters, len(body)))
        _check_same(declared, streamed)
        whole = _CODECS[kind].decode
        if whole is not None:
            _check_same(_outcome(lambda: whole(body, shape)), streamed)
        quick = _CODECS[kind].numbers
        numbers = None if quick is None else quick(body, shape)
        if numbers is not None:
            _check_same(numbers, streamed)
    if isinstance(streamed, Problem):
        raise streamed
    return streamed


def _check_same(rows: Floats | Problem, expected: Floats | Problem) -> None:
    if isinstance(rows, Problem) or isinstance(expected, Problem):
        assert repr(rows) == repr(expected)
    else:
        np.testing.assert_array_equal(rows, expected)


def _outcome(decoder: Callable[[], Floats]) -> Floats | Problem:
    try:
        return decoder()
    except Problem as problem:
        return problem


def _decode_stream(
    pieces: Iterable[bytes],
    kind: TableFormat,
    shape: RowsShape,
    parameters: dict[str, str],
    size: int | None = None,
) -> Floats:
    with TemporaryDirectory() as folder:
        try:
            return asyncio.run(
                decode_pieces(pieces, kind, shape, Path(folder), parameters=parameters, size=size)
            )
        finally:
            assert not [path for path in Path(folder).rglob("*") if path.is_file()]


async def decode_pieces(
    pieces: Iterable[bytes],
    kind: TableFormat,
    shape: RowsShape,
    folder: Path,
    *,
    size: int | None = None,
    memory: BodyMemory | None = None,
    parameters: Mapping[str, str] = NO_PARAMETERS,
) -> Floats:
    """The rows of a body that comes in pieces, put together; of a size that is declared, or not."""

    async def stream() -> AsyncIterator[bytes]:
        for piece in pieces:
            yield piece

    source = RowsBody(
        chunks=stream(),
        format=kind,
        parameters=parameters,
        shape=shape,
        settings=ApiSettings(data_dir=folder),
        blobs=LocalBlobs(folder),
        parsers=Parsers(1, memory_bytes=1 << 30, timeout_s=300.0),
        memory=(memory or BodyMemory(1 << 30)).of("project"),
        files=BodyMemory(1 << 40).of("project"),
        declared_bytes=size,
    )
    chunks = [rows async for rows in _CODECS[kind].read(source)]
    if source.total_rows is not None:
        assert sum(map(len, chunks)) == source.total_rows
    return chunks[0] if len(chunks) == 1 else np.concatenate(chunks, dtype=np.float64)
