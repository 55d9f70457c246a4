"""Rows of a stored table in any format."""

from collections.abc import AsyncGenerator
from pathlib import Path

import numpy as np
from starlette.requests import Request
from starlette.responses import Response

from app.fairness.turns import in_thread
from app.rows.answer_table import AnswerTable, Chunk, Part
from app.rows.codecs import Codec
from app.rows.respond import respond_streamed, respond_whole
from app.rows.shape import Floats
from models_store.errors import BlobCorruptError
from models_store.records import Dataset

_CHUNK_VALUES = 131_072


def answer_rows(
    request: Request, dataset: Dataset, table: Path, *, codec: Codec, rows: range
) -> Response:
    """Return rows of a dataset, which are read from the disk chunk by chunk.

    Args:
        request: Request that is answered.
        dataset: Dataset that has the rows.
        table: Path of its table.
        codec: Format of the response.
        rows: Indices of the rows, from 0; those after the last row are ignored.

    Raises:
        BlobCorruptError: The file is not the one that was stored.
    """
    values = _opened(table, dataset)
    wanted = range(len(values))[rows.start : rows.stop]
    columns = [column["name"] for column in dataset.columns]
    answer = AnswerTable(
        columns=columns,
        parts=[Part("rows", 0, len(columns))],
        rows=len(wanted),
        dtype=values.dtype,
        members={"columns": columns, "offset": rows.start, "total": dataset.rows},
        explains=False,
    )
    step = max(1, _CHUNK_VALUES // len(columns))

    def read(start: int) -> Chunk:
        return Chunk.of(values[start : min(start + step, wanted.stop)].copy())

    if len(wanted) <= step:
        return respond_whole(request, codec, answer, read(wanted.start), headers={})

    async def chunks() -> AsyncGenerator[Chunk, None]:
        for start in wanted[::step]:
            yield await in_thread(read, start)

    return respond_streamed(request, codec, answer, chunks, headers={})


def _opened(table: Path, dataset: Dataset) -> Floats:
    """Return the rows of a file as a memory map; its size is checked, since a read past its end kills the process."""
    if table.stat().st_size != dataset.bytes:
        raise BlobCorruptError(dataset.key)
    try:
        values: Floats = np.load(table, mmap_mode="r", allow_pickle=False)
    except ValueError as error:
        raise BlobCorruptError(dataset.key) from error
    return values
