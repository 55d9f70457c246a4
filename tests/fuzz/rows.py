"""Tables, as files that are uploaded and as bodies that are scored."""

import numpy as np

from app.problems.problem import Problem
from app.rows.shape import RowsShape
from tables.formats import Delimiter, ParseOptions, TableFormat
from tests.app.decoding import decode
from tests.app.wire import write
from tests.tables.outcomes import parse

_COLUMNS = ["a", "b", "c"]
_SHAPE = RowsShape(_COLUMNS, max_rows=50)
_VALUES = np.array([[1.5, -2.0, 3e10], [0.0, 5.25, -6.0]])
_DELIMITERS: tuple[Delimiter, ...] = (",", ";", "\t", "|", " ")
_STEPS = (1, 7, 64, 100_000)

WORDS = (
    *(b"NaN", b"null", b"true", b"1e999", b"-0", b"1e-320", b'"', b'""', b"\r\n", b"\xef\xbb\xbf"),
    *(b'{"rows":', b'"columns":', b"PAR1", b"\x93NUMPY", b"'descr'", b"'<f8'", b"'|O'", b"(0, 3)"),
    *(b"\xff\xff\xff\xff", b"\x00\x00\x00\x80", b"\\ud800", b"9" * 20),
)
SEEDS = {kind: [b"\x03" + write(kind, _COLUMNS, _VALUES)] for kind in TableFormat}
"""Bodies, each with the byte before it that says in which pieces it comes."""


def check_table(kind: TableFormat, data: bytes) -> None:
    """An upload: the first byte is the options, the others are the file."""
    choice = data[0] if data else 0
    options = ParseOptions(
        header=not choice & 1,
        missing=("drop", "keep", "error", "keep")[choice & 2 | choice >> 6 & 1],
        constant=("keep", "drop", "error")[choice // 4 % 3],
        delimiter=(*_DELIMITERS, None)[choice // 16 % 6],
        max_bytes=1 << 24,
    )
    parse(data[1:], kind, options)


def check_rows(kind: TableFormat, data: bytes) -> None:
    """The body of a request: rows of the right shape, or a problem of the caller's."""
    choice, body = (data[0] if data else 0), data[1:]
    step = _STEPS[choice & 3] if len(body) < 1000 else 500
    header = {"header": "absent"} if choice & 4 else {}
    pieces = [body[i : i + step] for i in range(0, len(body), step)]
    try:
        found = decode(pieces, kind, _SHAPE, **header)
    except Problem as problem:
        assert 400 <= problem.status < 500, problem.type.slug  # noqa: PT017  not always raised
    else:
        assert found.shape[1] == len(_COLUMNS)
        assert 1 <= len(found) <= _SHAPE.max_rows
        assert found.dtype in (np.float32, np.float64)
