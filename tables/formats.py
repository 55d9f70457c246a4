"""Formats of tables, options of their reading, and what an ingested table is described by."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Literal, TypedDict, get_args

Output = Literal["parquet", "csv", "npy"]
"""Formats that tables are written in."""

Delimiter = Literal[",", ";", "\t", "|", " "]
MissingPolicy = Literal["error", "drop"]
ConstantPolicy = Literal["error", "drop", "keep"]

WarningCode = Literal[
    "collinear",
    "constant",
    "discrete",
    "few_rows",
    "missing",
    "numeric_header",
    "outlier",
    "point_mass",
    "precision",
    "row_number",
]


class TableFormat(StrEnum):
    """The formats that a table may come in."""

    JSON = "json"
    NDJSON = "ndjson"
    CSV = "csv"
    NPY = "npy"
    ARROW = "arrow"
    PARQUET = "parquet"


MEDIA_TYPES: dict[str, TableFormat] = {
    "application/json": TableFormat.JSON,
    "application/x-ndjson": TableFormat.NDJSON,
    "text/csv": TableFormat.CSV,
    "application/x-npy": TableFormat.NPY,
    "application/vnd.apache.arrow.stream": TableFormat.ARROW,
    "application/vnd.apache.parquet": TableFormat.PARQUET,
}

SUFFIXES: dict[str, TableFormat] = {
    ".json": TableFormat.JSON,
    ".ndjson": TableFormat.NDJSON,
    ".jsonl": TableFormat.NDJSON,
    ".csv": TableFormat.CSV,
    ".npy": TableFormat.NPY,
    ".arrows": TableFormat.ARROW,
    ".parquet": TableFormat.PARQUET,
}
"""What the names of such files end in."""


class TableWarning(TypedDict):
    """Something a caller should know about a table that was accepted.

    ``column`` is null where the warning is about the whole table.
    """

    code: WarningCode
    column: str | None
    detail: str


@dataclass(frozen=True, kw_only=True)
class ParseOptions:
    """How to read a table, and how large it may be.

    Attributes:
        header: whether the first line of a CSV file names the columns.
        delimiter: what separates the values of a CSV file.
        missing: refuse a table with missing values, or drop the rows that have them.
        constant: refuse a table with constant columns, drop these, or keep them.
        max_rows: the most rows a file may have, dropped ones included.
        max_columns: the most columns.
        max_bytes: the most bytes of the stored table.

    Raises:
        ValueError: the delimiter or a policy is not one of the choices, or a limit is below 1.
    """

    header: bool = True
    delimiter: Delimiter = ","
    missing: MissingPolicy = "error"
    constant: ConstantPolicy = "error"
    max_rows: int = 50_000_000
    max_columns: int = 4096
    max_bytes: int = 4 << 30

    def __post_init__(self) -> None:
        for name, choices in (
            ("delimiter", Delimiter),
            ("missing", MissingPolicy),
            ("constant", ConstantPolicy),
        ):
            if getattr(self, name) not in get_args(choices):
                raise ValueError(f"{name} must be one of {', '.join(map(repr, get_args(choices)))}")
        for name in ("max_rows", "max_columns", "max_bytes"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1")


@dataclass(frozen=True, kw_only=True)
class ColumnSummary:
    """One column of a stored table.

    Attributes:
        name: the column's name in Unicode normal form C.
        dtype: the type it came in; ``float64`` for CSV, JSON and NDJSON.
        mean: the mean over all stored rows.
        std: the population standard deviation (divided by the number of rows).
        min: the smallest value.
        max: the largest value.
        distinct: the exact number of distinct values, or None where there are more than 1000.
    """

    name: str
    dtype: str
    mean: float
    std: float
    min: float
    max: float
    distinct: int | None


@dataclass(frozen=True, kw_only=True)
class TableSummary:
    """A stored table: ``rows`` x ``columns`` of ``dtype``, row-major, in npy format 1.0.

    Attributes:
        rows: the rows that are stored.
        rows_dropped: the rows that were left out for a missing value.
        dtype: ``float32`` if every column came as float16 or float32, else ``float64``.
        columns: the stored columns, in order.
        warnings: what a caller should know.
        source_sha256: SHA-256 of the file as it came.
        source_bytes: its size.
        sha256: SHA-256 of the stored file.
        bytes: its size.
    """

    rows: int
    rows_dropped: int
    dtype: Literal["float32", "float64"]
    columns: list[ColumnSummary]
    warnings: list[TableWarning]
    source_sha256: str
    source_bytes: int
    sha256: str
    bytes: int
