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
    """Formats that a table may be uploaded in."""

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
"""Endings of file names, by format."""


class TableWarning(TypedDict):
    """Warning about a table that was accepted.

    ``column`` is null where the warning is about the whole table.
    """

    code: WarningCode
    column: str | None
    detail: str


@dataclass(frozen=True, kw_only=True)
class ParseOptions:
    """Options of reading a table, and bounds of its size.

    Attributes:
        header: True where the first line of a CSV file names the columns.
        delimiter: Separator of the values of a CSV file.
        missing: Policy for missing values: refuse the table, or drop the rows that have them.
        constant: Policy for constant columns: refuse the table, drop them, or keep them.
        max_rows: Largest number of rows of a file, dropped ones included.
        max_columns: Largest number of columns.
        max_bytes: Largest size of the stored table in bytes.

    Raises:
        ValueError: The delimiter or a policy is not one of the choices, or a limit is below 1.
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
        name: Name of the column in Unicode normal form C.
        dtype: Type in the file; ``float64`` for CSV, JSON and NDJSON.
        mean: Mean over all stored rows.
        std: Population standard deviation (divided by the number of rows).
        min: Smallest value.
        max: Largest value.
        distinct: Exact number of distinct values, or None where there are more than 1000.
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
        rows: Number of stored rows.
        rows_dropped: Number of rows dropped for a missing value.
        dtype: ``float32`` if every column came as float16 or float32, else ``float64``.
        columns: Stored columns, in order.
        warnings: Warnings about the data.
        source_sha256: SHA-256 of the file as uploaded.
        source_bytes: Size of the file as uploaded.
        sha256: SHA-256 of the stored file.
        bytes: Size of the stored file.
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
