"""Rows of request bodies, in every format."""

import io
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal, NamedTuple, TypedDict

import numpy as np
from numpy.typing import NDArray

from app.http.exchange import Headers
from app.http.json_body import parse_json
from app.problems.fields import MAX_ERRORS, field_error, named, shown_names
from app.problems.problem import Problem
from app.rows.shape import LEAVE_OUT, Floats, RowsShape
from app.settings import ApiSettings
from models_store.files.blobs import Blobs
from tabular import processes
from tabular.errors import COUNTING, TableError
from tabular.formats import ParseOptions, TableFormat, TableWarning, WarningCode
from tabular.readers.json import (
    COLUMNS,
    ROWS,
    cell_rows,
    number_lines,
    number_rows,
    numbers_of_rows,
    parsed_lines,
    split_document,
)
from tabular.readers.npy import parse_header
from tabular.rows import Rows, read_rows
from tabular.slugs import Slug
from tabular.typed_rows import check_codes

UNPACKED = 4
"""Bytes of rows, and of their results, for each byte that a body may have: a digit and a comma become a float64."""

SAMPLE_MEMBERS = ("model", "seed", "row_errors")
"""Members of a response of samples beside its rows, which are left out, so that it can be scored as it is."""

BODY_WARNINGS_HEADER = b"x-body-warnings"
"""Header of the warnings about a body, a JSON list, in every format of a response."""

_FEW_LISTS = 1_000  # which parsers find faults in quickly
_FORMULA_STARTS = ("'=", "'+", "'-", "'@")
_ABOUT_ROWS: frozenset[WarningCode] = frozenset({"encoding", "numeric_header", "skipped", "uneven"})
_MOST_WARNINGS, _LONGEST_WARNING = 8, 400

# What is wrong with a table is said in the words of a batch. Other slugs are the same for both.
_SLUGS: dict[Slug, Slug] = {
    "column-name": "columns-mismatch",
    "dataset-duplicate-columns": "columns-mismatch",
    "dataset-dtype": "batch-value",
    "dataset-empty": "batch-empty",
    "dataset-encoding": "array-parse",
    "dataset-nonfinite": "value-nonfinite",
    "dataset-parse": "array-parse",
    "dataset-pickle-forbidden": "array-dtype",
    "dataset-shape": "batch-shape",
    "dataset-too-large": "limit-decoded-bytes",
    "dataset-truncated": "array-parse",
}
_NPY_SLUGS: dict[Slug, Slug] = _SLUGS | {"dataset-dtype": "array-dtype"}


class Decoded(NamedTuple):
    """Rows of a body, of the model's columns in their order, and warnings about the body."""

    rows: Floats
    warnings: Sequence[TableWarning] = ()


class BodyWarning(TypedDict):
    """Warning about a body: what of it is no row, or was read otherwise than it seems."""

    code: WarningCode
    detail: str


class RowsBody(NamedTuple):
    """Request body, and what it takes to read rows from it.

    Args:
        content: Bytes of the body.
        format: Format that its media type names.
        parameters: Parameters of its media type.
        blobs: Store of temporary files.
    """

    content: bytes
    format: TableFormat
    parameters: Mapping[str, str]
    shape: RowsShape
    settings: ApiSettings
    blobs: Blobs

    def read(self) -> Decoded:
        """Return the rows.

        Raises:
            Problem: Saying what is wrong with the body, and where.
        """
        match self.format:
            case TableFormat.JSON:
                return Decoded(decode_document(self.content, self.shape))
            case TableFormat.NDJSON:
                return Decoded(_decode_lines(self.content, self.shape))
            case TableFormat.NPY:
                return Decoded(_decode_npy(self.content, self.shape))
            case TableFormat.CSV:
                return self._read_text()
            case _:
                return self._read_packed()

    def _read_text(self) -> Decoded:
        """Return the rows of CSV; columns that have names may come in any order."""
        columns = self.shape.cell_columns
        with self.blobs.staged(".rows") as file, as_problem():
            file.write_bytes(self.content)
            rows = read_rows(file, self.format, self._options, columns, self._places_of)
        return self._decoded(rows)

    def _read_packed(self) -> Decoded:
        """Return the rows of an Arrow stream or a Parquet file, which a process of the pool reads."""
        limits = self.settings.parser_limits
        with as_problem():
            rows: Rows = processes.run(
                read_rows,
                self.content,
                self.format,
                self._options,
                self.shape.cell_columns,
                timeout_s=limits["timeout_s"],
                memory_bytes=limits["memory_bytes"],
            )
        self._places_of(rows.names, named=True)
        return self._decoded(rows)

    def _decoded(self, rows: Rows) -> Decoded:
        assert rows.values is not None  # noqa: S101 - what is missing was named before
        self.shape.check_count(len(rows.values))
        return Decoded(rows.values, rows.warnings)

    @property
    def _options(self) -> ParseOptions:
        return ParseOptions(
            header=False if is_headerless(self.parameters) else None,
            max_rows=self.shape.max_rows,
            max_columns=max(self.settings.max_columns, self.shape.width),
            max_bytes=UNPACKED * self.settings.max_body_bytes,
        )

    def _places_of(self, names: Sequence[str], named: bool) -> list[int]:  # noqa: FBT001  as `Choose`
        """Return the places of the model's columns among those of a file."""
        if not named:
            assumed = self.shape.names_of(len(names))
            if assumed is None:
                self.shape.check_width(len(names))
                return list(range(len(names)))
            return self.shape.order_of(assumed)
        if self.format is TableFormat.CSV:
            names = [self._as_it_was(name) for name in names]
        return self.shape.order_of(names)

    def _as_it_was(self, name: str) -> str:
        """Return a name without the mark that CSV responses have before what looks like a formula."""
        bare = name.removeprefix("'")
        return bare if name.startswith(_FORMULA_STARTS) and bare in self.shape.columns else name


def is_headerless(parameters: Mapping[str, str]) -> bool:
    """Return whether the media type of a CSV file says that it has no header (RFC 4180)."""
    return parameters.get("header", "present") == "absent"


def body_warnings(found: Iterable[TableWarning]) -> list[BodyWarning]:
    """Return the warnings about the rows of a body, without the option of an upload that would change it."""
    about_rows = [w for w in found if w["code"] in _ABOUT_ROWS][:_MOST_WARNINGS]
    return [
        BodyWarning(code=w["code"], detail=w["detail"].partition(" If ")[0][:_LONGEST_WARNING])
        for w in about_rows
    ]


def warning_headers(warnings: list[BodyWarning]) -> Headers:
    """Return the header of the warnings; none if there are none."""
    return [(BODY_WARNINGS_HEADER, json.dumps(warnings).encode())] if warnings else []


@contextmanager
def as_problem(
    slugs: Mapping[Slug, Slug] = _SLUGS, *, root: Sequence[str] = (), places: Sequence[str] = ()
) -> Iterator[None]:
    """Say what is wrong with a table in the words of a batch.

    Args:
        slugs: Types of problems by those of tables, where the two differ.
        root: Place of the rows in the body.
        places: Names of columns that rows give by their place; empty: rows name them.
    """
    try:
        yield
    except TableError as error:
        errors = []
        if error.row is not None:
            column = [places.index(name) if places else name for name in [error.column] if name]
            errors = [field_error(error.detail, *root, error.row - 1, *column)]
        members = {"column": error.column, "row": error.row}
        slug = slugs.get(error.slug, error.slug)
        raise Problem(slug, error.told, errors=errors, members=members) from error


def decode_document(body: bytes, shape: RowsShape) -> Floats:
    """Return the rows of a JSON document of any form, null as not-a-number.

    Raises:
        Problem: Saying what is wrong, and where.
    """
    if shape.are_numbers and (numbers := number_rows(body, shape.width)) is not None:
        shape.check_count(len(numbers))
        return numbers
    # A row of n values takes 2n + 1 bytes or more, so that no table of this size has more lists.
    most = max(_FEW_LISTS, len(body) // (2 * shape.width + 1))
    document = parse_json(body, max_lists=most)
    if isinstance(document, dict):
        document = {name: value for name, value in document.items() if name not in SAMPLE_MEMBERS}
        _check_members(document)
    root = (ROWS,) if isinstance(document, dict) else ()
    with as_problem():
        rows, names = split_document(document)
    if isinstance(rows[0], dict) and names is not None:
        raise Problem("batch-shape", "`columns` names the values of rows that are lists.")
    reader = _JsonRows(rows[0], names, shape, root=root)
    values = reader.values(rows)
    reader.check_all()
    return values


def _decode_lines(body: bytes, shape: RowsShape) -> Floats:
    """Return the rows of NDJSON, null as not-a-number."""
    if shape.are_numbers and (numbers := number_lines(body, shape.width)) is not None:
        shape.check_count(len(numbers))
        return numbers
    parts: list[NDArray[np.float64]] = []
    reader: _JsonRows | None = None
    with as_problem():
        for rows in parsed_lines(io.BytesIO(body)):
            if rows:
                reader = reader or _JsonRows(rows[0], None, shape)
                parts.append(reader.values(rows))
    if reader is None:
        raise Problem("batch-empty", "There are no rows; send at least one.")
    reader.check_all()
    return np.concatenate(parts)


def _check_members(document: dict[str, Any]) -> None:
    unknown = [name for name in document if name not in (ROWS, COLUMNS)]
    if unknown:
        errors = [field_error("There is no such field.", name) for name in unknown[:MAX_ERRORS]]
        raise Problem(
            "unknown-field", "The body may have the members `rows` and `columns`.", errors=errors
        )


class _JsonRows:
    """Converter of parsed rows to numbers of the columns of a shape, some at a time.

    A column that an object lacks is a gap; one that all lack is an error, and so is another member.

    Args:
        first: First row, like which all are.
        names: Names of the values of rows that are lists, if the body gives them.
        root: Place of the rows in the body.
    """

    def __init__(
        self,
        first: object,
        names: list[str] | None,
        shape: RowsShape,
        *,
        root: Sequence[str] = (),
    ) -> None:
        self._shape, self._root = shape, root
        self._count = 0
        self._listed = isinstance(first, list)
        self._order: Sequence[int] | None = None
        if isinstance(first, list):
            names = shape.names_of(len(first)) if names is None else names
            self._order = None if names is None else shape.order_of(names)
            if not (names and shape.ignores_extra):
                shape.check_width(len(first))
        self._names = names or list(shape.columns)
        self._known = set(shape.columns)
        self._found: set[str] = set()
        self._first = first if isinstance(first, dict) else {}

    def values(self, rows: list[Any]) -> NDArray[np.float64]:
        """Return the next rows."""
        before, self._count = self._count, self._count + len(rows)
        shape = self._shape
        shape.check_count(self._count)
        if not self._listed:
            self._check_names(rows, before)
        names = self._names if self._listed else ()
        with as_problem(root=self._root, places=names):
            cells = cell_rows(rows, self._names, listed=self._listed, before=before)
            if self._order is not None:
                cells = [[row[place] for place in self._order] for row in cells]
            if shape.types is None:
                return numbers_of_rows(cells, shape.columns, before=before)
            return shape.types.codes.rows(cells, before=before)

    def _check_names(self, rows: list[Any], before: int) -> None:
        for index, row in enumerate(rows, before):
            if not isinstance(row, dict):
                continue  # which is said with its place
            self._found |= self._known & row.keys()
            if not (self._shape.ignores_extra or row.keys() <= self._known):
                raise self._mismatch(index, row, [n for n in self._shape.columns if n not in row])

    def check_all(self) -> None:
        """Refuse objects of which none has one of the columns."""
        missing = [name for name in self._shape.columns if name not in self._found]
        if missing and not self._listed:
            raise self._mismatch(0, self._first, missing)

    def _mismatch(self, index: int, row: Mapping[str, Any], missing: list[str]) -> Problem:
        unknown = [name for name in row if name not in self._known]
        return Problem(
            "columns-mismatch",
            f"The columns of row {index + 1} are not those of the model."
            f" {named({'Missing': missing, 'Unknown': unknown})}{'' if missing else LEAVE_OUT}{COUNTING}",
            members={
                "row": index + 1,
                "missing": missing[:MAX_ERRORS],
                "unknown": shown_names(unknown),
            },
        )


def _decode_npy(body: bytes, shape: RowsShape) -> Floats:
    with as_problem(_NPY_SLUGS):
        header = parse_header(body)
    if header is None:
        raise Problem("array-parse", "The header of the array is cut short.")
    shape.check_count(header.rows)
    shape.check_width(header.columns)
    came = len(body) - header.offset
    if came != header.size:
        raise Problem(
            "array-parse",
            f"The header of the array announces {header.size} bytes of values, {came} came.",
        )
    values: NDArray[Any] = np.frombuffer(body, header.dtype, offset=header.offset)
    order: Literal["F", "C"] = "F" if header.fortran_order else "C"
    rows = np.ascontiguousarray(values.reshape(header.shape, order=order))
    single = rows.dtype.kind == "f" and rows.dtype.itemsize <= np.dtype(np.float32).itemsize
    # No copy of what is a float32 or float64 of this machine already.
    floats = np.asarray(rows, np.float32) if single else np.asarray(rows, np.float64)
    check_levels(floats, shape)
    return floats


def check_levels(rows: Floats, shape: RowsShape) -> None:
    """Refuse numbers that are no index of a level, in columns whose levels are texts.

    Raises:
        Problem: `batch-value`, naming the first one.
    """
    if shape.types is not None and shape.types.has_codes:
        with as_problem():
            check_codes(rows, shape.types.columns)
