"""Reading NDJSON: one row a line, a list or an object keyed by column."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tables.errors import JsonError, TableError
from tables.formats import ParseOptions
from tables.readers.table_json_rows import JsonRows, loads_rows, table_error
from tables.source import Columns, TableSource, gather

BLOCK_BYTES = 512 << 10
"""The unit of reading."""

MAX_LINE_BYTES = 4 << 20
"""The longest line that is accepted."""

_WHITE_SPACE = b" \t\r\n"


def open_ndjson(path: Path, options: ParseOptions) -> TableSource:
    """Open a file of JSON lines.

    Raises:
        TableError: the file is empty, or its first line is no row.
    """
    first = next((line for block in _blocks(path) for _, line in block), None)
    if first is None:
        raise TableError("dataset-empty", "The file has no rows.")
    rows = JsonRows(_parse(first, line=1, row=1), names=None, options=options)
    return TableSource(
        names=rows.names,
        dtypes=["float64"] * len(rows.names),
        named=rows.named,
        chunks=gather(_chunks(path, rows)),
        warnings=[],
    )


_Block = list[tuple[int, bytes]]


def _chunks(path: Path, rows: JsonRows) -> Iterator[Columns]:
    for block in _blocks(path):
        if not block:
            continue
        parsed = [
            _parse(line, line=number, row=rows.rows + index)
            for index, (number, line) in enumerate(block, 1)
        ]
        try:
            yield rows.columns(parsed, b"\n".join(line for _, line in block))
        except JsonError as error:
            where = f"Lines {block[0][0]} to {block[-1][0]}"
            raise table_error(error, where=where) from None


def _parse(text: bytes, *, line: int, row: int) -> Any:  # noqa: ANN401  JSON is anything
    try:
        return loads_rows(text)
    except JsonError as error:
        raise table_error(error, where=f"Line {line}", row=row) from None


def _blocks(path: Path) -> Iterator[_Block]:
    """The lines that are not blank, with their numbers, in groups."""
    number = 0
    rest = b""
    with path.open("rb") as file:
        while block := file.read(BLOCK_BYTES):
            lines = (rest + block).split(b"\n")
            rest = lines.pop()
            if len(rest) > MAX_LINE_BYTES:
                raise _too_long(number + len(lines) + 1)
            yield _filled(lines, number)
            number += len(lines)
    yield _filled([rest], number)


def _filled(lines: list[bytes], number: int) -> _Block:
    return [(n, line) for n, line in enumerate(lines, number + 1) if line.strip(_WHITE_SPACE)]


def _too_long(line: int) -> TableError:
    return TableError("dataset-parse", f"Line {line} is longer than {MAX_LINE_BYTES >> 20} MiB.")
