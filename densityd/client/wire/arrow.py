"""Arrow IPC streams, read and written one record batch at a time."""

import io
from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING

from densityd.client.call import ARROW, Body
from densityd.client.errors import UnexpectedAnswerError

if TYPE_CHECKING:  # it is large, and only those who have tables need it
    import pyarrow as pa  # type: ignore[import-untyped] # it ships no type information


def encode_table(table: "pa.Table") -> Body:
    """Return a table as a body that is encoded one record batch at a time."""
    return Body(partial(_iter_chunks, table), None, ARROW)


def read_table(content: bytes) -> "pa.Table":
    """Return the table in the content of a response.

    Raises:
        UnexpectedAnswerError: The content is not an Arrow stream.
    """
    import pyarrow as pa  # noqa: PLC0415 - as above

    try:
        return pa.ipc.open_stream(content).read_all()
    except (pa.ArrowInvalid, OSError) as error:
        raise UnexpectedAnswerError("the response is not an Arrow stream") from error


def _iter_chunks(table: "pa.Table") -> Iterator[bytes]:
    import pyarrow as pa  # noqa: PLC0415 - as above

    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        for batch in table.to_batches():
            writer.write_batch(batch)
            yield sink.getvalue()
            sink.seek(0)
            sink.truncate()
    yield sink.getvalue()
