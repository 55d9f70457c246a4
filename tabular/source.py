"""Result of every reader of a format, and the checks that all readers share."""

import os
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from tabular.errors import TableError
from tabular.formats import ParseOptions, TableFormat, TableWarning, warning

if TYPE_CHECKING:
    import pyarrow as pa  # type: ignore[import-untyped] # it ships no type information

MAX_NAME_LENGTH = 128
"""Code points of a column name."""

Columns = NDArray[np.float64]
"""A run of rows, column by column: ``values[column, row]``, not a number where one is missing."""

NESTED = "It holds lists, structures or bytes, not single values."
"""Reason for which a column cannot be modelled."""

_CHUNK_VALUES = 1 << 17  # 1 MiB of float64: stays in the second-level cache
_MIN_CHUNK_ROWS = 512  # of a wide table: fewer, and the work per column and chunk dominates

_NPY_MAGIC = b"\x93NUMPY"
_PARQUET_MAGIC = b"PAR1"
_ZIP_MAGIC = b"PK\x03\x04"
_ENCRYPTED_PARQUET_MAGIC = b"PARE"
_MAGIC_BYTES = 64
_MARKUP = re.compile(
    rb'(?i)(?:\xef\xbb\xbf)?\s*(?:(?P<json>\{\s*"|\[\s*[\[{])|<(?:!doctype|html|table|\?xml))'
)
_CONTENTS = {
    # A Parquet file continues with a Thrift field header, a CSV header never does.
    _PARQUET_MAGIC + b"\x15": "a Parquet file",
    _NPY_MAGIC: "an npy file",
    _ZIP_MAGIC: "a ZIP archive, such as an .xlsx workbook, or an npz file: save an array as npy",
    b"ARROW1\x00\x00": "an Arrow file, which is not an Arrow stream",
    b"\xff\xff\xff\xff": "an Arrow stream",
    b"\x1f\x8b": "a gzip file: unpack it, or send it with `Content-Encoding: gzip`",
    b"\x28\xb5\x2f\xfd": "a Zstandard file: unpack it, or send it with `Content-Encoding: zstd`",
    b"\xfd7zXZ\x00": "an xz file",
    b"\x89HDF\r\n\x1a\n": "an HDF5 file",
    b"%PDF-": "a PDF file",
}
_MAGICS = {
    TableFormat.NPY: _NPY_MAGIC,
    TableFormat.PARQUET: _PARQUET_MAGIC,
    TableFormat.ARROW: b"\xff\xff\xff\xff",
    TableFormat.EXCEL: _ZIP_MAGIC,
}
_MAX_NAMED = 5
_JOINERS = "\u200c\u200d"  # Persian and emoji need them; other format characters deceive the eye


@dataclass(frozen=True, kw_only=True)
class Source:
    """An opened table of columns of any type, whose rows can be read again and again.

    Attributes:
        names: Names of the columns, mended where the file's could not stay.
        dtypes: Name of the type of each column in the file.
        types: Type of the cells of each column.
        named: True where the file gives the names; else they are `x1` to `xD`.
        nameless: Positions of the columns that the file gives no name, while it names others.
        batches: Function that yields the rows, in columns that are named by their positions; it raises `TableError` at
            the first fault found.
        warnings: Warnings about the file; all of them once all rows have been read.
        unread: Reasons for which columns, by position, cannot be modelled; their cells are null.
        untyped: True of a text format, whose columns are all text.
        found: How the file is written, as the options of reading name it: `header`, `delimiter`, `encoding`, `sheet`.
        sheets: Names of the sheets of a workbook.
        semicolons: True of a text format whose values are separated by semicolons, as where decimals have commas.
    """

    names: list[str]
    dtypes: list[str]
    types: list["pa.DataType"]
    batches: Callable[[], Iterator["pa.RecordBatch"]]
    named: bool = False
    nameless: frozenset[int] = frozenset()
    warnings: list[TableWarning] = field(default_factory=list)
    unread: Mapping[int, str] = field(default_factory=dict)
    untyped: bool = False
    semicolons: bool = False
    found: Mapping[str, str | bool] = field(default_factory=dict)
    sheets: Sequence[str] = ()


def rows_per_chunk(columns: int) -> int:
    """Return the number of rows of a chunk that is processed fast."""
    return max(_MIN_CHUNK_ROWS, _CHUNK_VALUES // columns)


def check_content(source: Path | bytes, format: TableFormat) -> None:  # noqa: A002 - the word for it
    """Refuse a file whose first bytes are those of another format than the declared one.

    Raises:
        TableError: ``media-type``; ``dataset-parse`` for an encrypted Parquet file.
    """
    if isinstance(source, bytes):
        start = source[:_MAGIC_BYTES]
    else:
        with source.open("rb") as file:
            start = file.read(_MAGIC_BYTES)
    magic = _MAGICS.get(format)
    # A file cut within its first bytes is a damaged file of its format.
    if magic is not None and (start.startswith(magic) or magic.startswith(start)):
        return
    if format is TableFormat.PARQUET and start.startswith(_ENCRYPTED_PARQUET_MAGIC):
        raise TableError("dataset-parse", "The Parquet file is encrypted.")
    found = next((name for first, name in _CONTENTS.items() if start.startswith(first)), None)
    if format is TableFormat.CSV and (markup := _MARKUP.match(start)) is not None:
        found = "JSON or NDJSON" if markup["json"] else "HTML or XML, such as a page of a web site"
    if magic is not None and found is None:
        found = "something else: its first bytes are not of that format"
    if found is not None:
        raise TableError(
            "media-type", f"The file was sent as {format}, but its content is {found}."
        )


def default_names(columns: int) -> list[str]:
    """Return the names ``x1`` to ``xD``."""
    return [f"x{i + 1}" for i in range(columns)]


def mend_names(raw: Sequence[str]) -> tuple[list[str], frozenset[int], list[TableWarning]]:
    """Return names of columns that can stay, the positions of empty ones, and what was changed.

    An empty name becomes ``x3``, where 3 is the position; of equal ones, the second becomes ``a_2``;
    characters that deceive the eye are left out, and long names cut.
    """
    cleaned = [_mended(name) for name in raw]
    nameless = frozenset(place for place, name in enumerate(cleaned) if not name)
    taken = set(cleaned) - {""}
    numbers: Counter[str] = Counter()
    names: list[str] = []
    seen: set[str] = set()
    for place, name in enumerate(cleaned):
        wanted = name or f"x{place + 1}"
        free = wanted not in seen if name else wanted not in taken
        unique = wanted if free else _free(wanted, taken, numbers)
        taken.add(unique)
        seen.add(unique)
        names.append(unique)
    changed = [
        (place, name)
        for place, (old, name) in enumerate(zip(raw, names, strict=True))
        if unicodedata.normalize("NFC", old[: 4 * MAX_NAME_LENGTH]).strip() != name
    ]
    return names, nameless, [_renamed(changed)] if changed else []


def check_columns(columns: int, *, options: ParseOptions) -> None:
    """Refuse a table with too many columns, or none.

    Raises:
        TableError: ``limit-columns`` or ``dataset-shape``.
    """
    if columns == 0:
        raise TableError("dataset-shape", "The table has no columns.")
    if columns > options.max_columns:
        raise TableError(
            "limit-columns",
            f"The table has {columns} columns; at most {options.max_columns} are allowed.",
        )


def check_rows(rows: int, *, row_bytes: int, options: ParseOptions) -> None:
    """Refuse a table with too many rows, or that would be stored in too many bytes.

    Raises:
        TableError: ``limit-rows`` or ``dataset-too-large``.
    """
    if rows > options.max_rows:
        raise TableError(
            "limit-rows", f"The table has more than the {options.max_rows} rows that are allowed."
        )
    if rows * row_bytes > options.max_bytes:
        raise TableError(
            "dataset-too-large",
            f"The table needs more than the {options.max_bytes} bytes that are allowed: at"
            f" {row_bytes} bytes a row, at most {options.max_bytes // row_bytes} rows.",
        )


def check_written(file: Path, options: ParseOptions) -> None:
    """Refuse a table of which a file that is being written has become too large.

    Raises:
        TableError: ``quota-storage``, ``storage-full`` or ``dataset-too-large``.
    """
    size = file.stat().st_size if file.exists() else 0
    if options.room is not None and size > options.room:
        raise TableError(
            "quota-storage",
            f"The table needs more than the {options.room:,} bytes that the project may store beyond"
            " what it has; delete datasets or results that are not needed.",
        )
    if options.reserve:
        disk = os.statvfs(file.parent)
        if disk.f_bavail * disk.f_frsize < options.reserve:
            raise TableError(
                "storage-full",
                f"Less than {options.reserve:,} bytes of the disk of the service are free, which it keeps;"
                " make room on the disk, whoever filled it.",
            )
    if size > options.max_bytes:
        raise TableError(
            "dataset-too-large",
            f"The table, or the texts that are kept beside it, needs more than the {options.max_bytes}"
            " bytes that are allowed.",
        )


def _mended(raw: str) -> str:
    text = unicodedata.normalize("NFC", raw[: 4 * MAX_NAME_LENGTH])
    shown = "".join(
        " " if c in "\r\n\t" else c for c in text if c in "\r\n\t" or not _is_deceptive(c)
    )
    return shown.strip()[:MAX_NAME_LENGTH].strip()


def _free(name: str, taken: Set[str], numbers: Counter[str]) -> str:
    """Return a name with a number after it that no column has."""
    stem = name[: MAX_NAME_LENGTH - 8]
    while True:
        numbers[stem] += 1
        unique = f"{stem}_{numbers[stem] + 1}"
        if unique not in taken:
            return unique


def _renamed(changed: list[tuple[int, str]]) -> TableWarning:
    named = ", ".join(f"column {place + 1} is {name!r}" for place, name in changed[:_MAX_NAMED])
    more = f", and {len(changed) - _MAX_NAMED} more" if len(changed) > _MAX_NAMED else ""
    detail = (
        f"Names that were empty, duplicated, too long or deceptive were replaced: {named}{more}."
    )
    return warning("renamed", changed[0][1] if len(changed) == 1 else None, detail)


def _is_deceptive(character: str) -> bool:
    category = unicodedata.category(character)
    return category in {"Cc", "Cs", "Zl", "Zp"} or (category == "Cf" and character not in _JOINERS)
