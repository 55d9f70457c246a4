"""Bodies of rows that find no room in memory."""

import asyncio
import io
import json

import numpy as np
import pyarrow as pa  # type: ignore[import-untyped] # it ships no type information
import pytest

from app.http.body_memory import BodyMemory
from app.rows.shape import RowsShape
from tabular.formats import TableFormat
from tests.app.decoding import decode_pieces

ROWS = np.arange(3000.0).reshape(-1, 3)
SHAPE = RowsShape(["a", "b", "c"], len(ROWS))


def written(kind: TableFormat) -> bytes:
    if kind is TableFormat.CSV:
        lines = ["a,b,c", *(",".join(map(str, row)) for row in ROWS.tolist())]
        return "\n".join(lines).encode()
    if kind is TableFormat.NDJSON:
        return b"\n".join(json.dumps(row).encode() for row in ROWS.tolist())
    table, sink = pa.table(dict(zip(SHAPE.columns, ROWS.T, strict=True))), io.BytesIO()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue()


@pytest.mark.parametrize("room", [0, 8_000, 5 * 10**6])
@pytest.mark.parametrize("kind", [TableFormat.CSV, TableFormat.NDJSON, TableFormat.ARROW])
def test_rows_that_find_no_room_in_memory_are_read_by_way_of_the_disk(kind, room, tmp_path):
    """What others hold, a quarter of the memory at least, is not asked for."""
    memory, body = BodyMemory(4 * 10**7), written(kind)
    taken = memory.of("other").kept_share()
    taken.hold(10**7 - room)
    most = list[int]()

    def pieces():
        for start in range(0, len(body), 1024):
            yield body[start : start + 1024]
            most.append(memory.held)

    work = decode_pieces(pieces(), kind, SHAPE, tmp_path, size=len(body), memory=memory)
    np.testing.assert_array_equal(asyncio.run(work), ROWS)
    assert max(most) <= 10**7
    assert memory.held == taken.size
