"""Formats of tables, options of their reading, and what an ingested table is described by."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from enum import StrEnum
from typing import Any, Literal, TypedDict

from tabular.columns import Column, ColumnType

Output = Literal["parquet", "csv", "npy"]
"""Formats that tables are written in."""

Delimiter = Literal[",", ";", "\t", "|", " "]
# fmt: off
Encoding = Literal[
    "utf-8", "utf-16", "latin-1", "cp1252", "cp1250", "cp1251", "cp1253", "cp1254", "cp1255", "cp1256", "cp850",
    "cp866", "iso8859_2", "koi8_r", "mac_roman", "mac_cyrillic", "shift_jis", "euc_jp", "euc_kr", "gbk", "big5",
]
# fmt: on
DecimalMark = Literal[".", ","]
ThousandsMark = Literal[",", ".", "'", " "]
MissingPolicy = Literal["keep", "error", "drop"]
ConstantPolicy = Literal["error", "drop", "keep"]

# fmt: off
WarningCode = Literal[
    "ambiguous_dates", "collinear", "constant", "dropped", "encoding", "few_rows", "ignored", "missing", "nonfinite",
    "numeric_header", "outlier", "precision", "renamed", "row_number", "sentinel", "similar_levels", "skipped",
    "totals", "uneven", "unreadable",
]
# fmt: on


class TableFormat(StrEnum):
    """Formats that a table may be uploaded in."""

    JSON = "json"
    NDJSON = "ndjson"
    CSV = "csv"
    NPY = "npy"
    ARROW = "arrow"
    PARQUET = "parquet"
    EXCEL = "xlsx"


MEDIA_TYPES: dict[str, TableFormat] = {
    "application/json": TableFormat.JSON,
    "application/x-ndjson": TableFormat.NDJSON,
    "text/csv": TableFormat.CSV,
    "application/x-npy": TableFormat.NPY,
    "application/vnd.apache.arrow.stream": TableFormat.ARROW,
    "application/vnd.apache.parquet": TableFormat.PARQUET,
    "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet": TableFormat.EXCEL,
}

SUFFIXES: dict[str, TableFormat] = {
    ".json": TableFormat.JSON,
    ".ndjson": TableFormat.NDJSON,
    ".jsonl": TableFormat.NDJSON,
    ".csv": TableFormat.CSV,
    ".npy": TableFormat.NPY,
    ".arrows": TableFormat.ARROW,
    ".parquet": TableFormat.PARQUET,
    ".xlsx": TableFormat.EXCEL,
}
"""Endings of file names, by format."""


RemedyValue = bool | str | list[str] | dict[str, str] | None


class Remedy(TypedDict):
    """Option of an upload that ends what a warning is about.

    ``value`` joins a list or an object that the option has already, and takes the place of other values; null where
    only a person can choose it. ``label`` says in an imperative what it does.
    """

    option: str
    value: RemedyValue
    label: str


class TableWarning(TypedDict):
    """Warning about a table that was accepted.

    ``column`` is null where the warning is about the whole table.
    """

    code: WarningCode
    column: str | None
    detail: str
    remedies: list[Remedy]


def warning(code: WarningCode, column: str | None, detail: str, *remedies: Remedy) -> TableWarning:
    """Return a warning."""
    return {"code": code, "column": column, "detail": detail, "remedies": list(remedies)}


def remedy(option: str, value: RemedyValue, label: str) -> Remedy:
    """Return a remedy."""
    return {"option": option, "value": value, "label": label}


@dataclass(frozen=True, kw_only=True)
class ParseOptions:
    """Options of reading a table, and bounds of its size.

    Attributes:
        header: True where the first line of a CSV file names the columns, False where it is a row; None to
            find out.
        delimiter: Separator of the values of a CSV file; None to find it in the file.
        encoding: Encoding of a CSV file; None to find it in the file.
        sheet: Name of the sheet of a workbook; None for the first.
        columns: Names of the columns to model; None for all. The others are ignored.
        exclude: Names of columns to ignore.
        types: Types of columns by name, instead of those that the values suggest.
        na_values: Texts that mean a missing value, besides those that do in every table.
        drop_rows: Texts of which one as a cell tells that a row is to be left out, such as of a total.
        merge_levels: Names of columns whose texts are one level where they differ in case or blanks alone.
        decimal: Character before the decimals of numbers in text; None to find it in each column.
        thousands: Character between groups of three digits in text; None to find it in each column.
        datetime_format: Format of `datetime.strptime` of dates; None to find it in each column.
        max_levels: Largest number of levels of a category; rarer ones become the level *other*.
        missing: Policy for missing values: keep them, refuse the table, or drop the rows that have them.
        constant: Policy for constant columns: refuse the table, drop them, or keep them.
        max_rows: Largest number of rows of a file, dropped ones included.
        max_columns: Largest number of columns.
        max_bytes: Largest size of the stored table in bytes, and of the cells beside it.
        room: Bytes that there is room for, of the table and of the cells beside it each; None: any.
        reserve: Bytes of the disk that stay free.
    """

    header: bool | None = None
    delimiter: Delimiter | None = None
    encoding: Encoding | None = None
    sheet: str | None = None
    columns: Sequence[str] | None = None
    exclude: Sequence[str] = ()
    types: Mapping[str, ColumnType] = field(default_factory=dict)
    na_values: Sequence[str] = ()
    drop_rows: Sequence[str] = ()
    merge_levels: Sequence[str] = ()
    decimal: DecimalMark | None = None
    thousands: ThousandsMark | None = None
    datetime_format: str | None = None
    max_levels: int = 256
    missing: MissingPolicy = "keep"
    constant: ConstantPolicy = "keep"
    max_rows: int = 50_000_000
    max_columns: int = 4096
    max_bytes: int = 4 << 30
    room: int | None = None
    reserve: int = 0


@dataclass(frozen=True, kw_only=True)
class Repetition:
    """How the numbers of a column repeat.

    Attributes:
        values: Number of distinct values that are no spikes, if further rows hardly have others; else 0.
        shared: Number of cells of the most frequent value that is no spike; of large tables, an estimate
            by a sample.
        step: Distance that all values, or all but the spikes, are multiples of; 0 if there is none.
        gap: Median distance of neighbouring values where each has many cells on average; else 0.
        tied: Names of the columns whose values come in the same pairs with those of this one.
        listed: Values of a column that is tied to another.
    """

    values: int = 0
    shared: int = 0
    step: float = 0.0
    gap: float = 0.0
    tied: Sequence[str] = ()
    listed: Sequence[float] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON."""
        return {f.name: getattr(self, f.name) for f in fields(self)} | {
            "tied": list(self.tied),
            "listed": list(self.listed),
        }


@dataclass(frozen=True, kw_only=True)
class ColumnSummary:
    """One column of a table: its type, why it has that type, and statistics of its stored values.

    Attributes:
        column: Type of the column; its name is in Unicode normal form C.
        reason: Reason of the type.
        dtype: Type in the file; ``float64`` for CSV, JSON and NDJSON, ``string`` for text.
        mean: Mean of the values; None for levels that are no numbers, and where there are none.
        std: Population standard deviation (divided by the number of values).
        min: Smallest value.
        max: Largest value.
        distinct: Exact number of distinct values, or None where there are more than 1000.
        missing_count: Number of missing cells of the stored rows.
        level_counts: Number of cells of each level, *other* included.
        spike_counts: Number of cells of each spike.
        quantiles: Values by share of the cells that are at most these, of a sample of the values on a
            continuous scale.
        repetition: How numbers repeat; None for columns of text and of dates that are levels.
    """

    column: Column
    reason: str
    dtype: str
    mean: float | None = None
    std: float | None = None
    min: float | None = None
    max: float | None = None
    distinct: int | None = None
    missing_count: int = 0
    level_counts: Sequence[int] = ()
    spike_counts: Sequence[int] = ()
    quantiles: Mapping[str, float] = field(default_factory=dict)
    repetition: Repetition | None = None

    @property
    def name(self) -> str:
        """Name of the column."""
        return self.column.name

    def to_dict(self) -> dict[str, Any]:
        """Return the column as JSON: its type, reason and statistics side by side."""
        beside = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "column"}
        counts = {name: list(beside[name]) for name in ("level_counts", "spike_counts")}
        beside |= counts | {"quantiles": dict(self.quantiles)}
        if self.repetition is not None:
            beside["repetition"] = self.repetition.to_dict()
        return self.column.to_dict() | beside

    @classmethod
    def from_dict(cls, entry: Mapping[str, Any]) -> "ColumnSummary":
        """Return the column of `to_dict`."""
        known = {f.name: entry[f.name] for f in fields(cls) if f.name in entry}
        for name in ("level_counts", "spike_counts"):
            known[name] = tuple(known.get(name, ()))
        if known.get("repetition") is not None:
            known["repetition"] = Repetition(**known["repetition"])
        return cls(column=Column.from_dict(entry), **known)


@dataclass(frozen=True, kw_only=True)
class TableSummary:
    """A stored table: its rows of numbers in npy format 1.0, and its columns.

    The array has a column for each one that is not ignored, row-major.

    Attributes:
        rows: Number of stored rows.
        rows_dropped: Number of rows dropped for a missing value.
        dtype: ``float32`` if every column came as float16 or float32, else ``float64``.
        columns: Columns of the file in order, those included that are ignored.
        warnings: Warnings about the data.
        sha256: SHA-256 of the stored file.
        bytes: Size of the stored file.
        cells: True if cells are kept unchanged beside the array: those of columns that are ignored,
            and text.
        text_bytes: Size of these cells, unpacked.
        source_sha256: SHA-256 of the file as uploaded; empty where the table comes of no upload.
        source_bytes: Size of the file as uploaded.
    """

    rows: int
    rows_dropped: int
    dtype: Literal["float32", "float64"]
    columns: list[ColumnSummary]
    warnings: list[TableWarning]
    sha256: str
    bytes: int
    cells: bool = False
    text_bytes: int = 0
    source_sha256: str = ""
    source_bytes: int = 0
