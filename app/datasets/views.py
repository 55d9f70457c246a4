"""Response models of datasets."""

from datetime import datetime

from pydantic import BaseModel, ConfigDict, Field
from pydantic.config import JsonDict

from app.http.examples import DATASET_ID, EXAMPLE_DESCRIPTION, EXAMPLE_TAGS, MODEL
from app.resources.labels import DESCRIPTION, TAGS
from app.resources.listing import NEXT_CURSOR
from models_store.records import Dataset, DatasetSummary
from tabular.columns import ColumnType, TransformName
from tabular.formats import TableFormat

_SUMMARY_EXAMPLE: JsonDict = {
    "id": DATASET_ID,
    "name": MODEL,
    "rows": 30,
    "column_count": 1,
    "bytes": 608,
    "sha256": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
    "description": EXAMPLE_DESCRIPTION,
    "tags": dict(EXAMPLE_TAGS),
    "created_at": "2026-11-24T15:27:00Z",
}
_DATASET_EXAMPLE: JsonDict = {
    **_SUMMARY_EXAMPLE,
    "columns": [
        {
            "name": "height",
            "type": "number",
            "levels": [],
            "other": False,
            "merged": False,
            "missing": False,
            "spikes": [],
            "decimals": 1,
            "na_values": [],
            "decimal": ".",
            "thousands": "",
            "unit": "",
            "datetime_format": None,
            "first_year": None,
            "date_only": False,
            "step_s": 0,
            "transform": "none",
            "low": None,
            "high": None,
            "reason": "The values are numbers.",
            "dtype": "float64",
            "mean": 172.1,
            "std": 8.7,
            "min": 155.3,
            "max": 189.2,
            "distinct": 30,
            "missing_count": 0,
            "level_counts": [],
            "spike_counts": [],
            "quantiles": {"0": 155.3, "0.5": 171.8, "1": 189.2},
            "repetition": {
                "values": 0,
                "shared": 1,
                "step": 0.1,
                "gap": 0.0,
                "tied": [],
                "listed": [],
            },
        }
    ],
    "warnings": [
        {
            "code": "sentinel",
            "column": "height",
            "detail": "-999 in 2 % of the cells is far from all others ...",
            "remedies": [
                {"option": "na_values", "value": ["-999"], "label": "Take -999 as missing"}
            ],
        }
    ],
}
_PREVIEW_EXAMPLE: JsonDict = {
    "format": "csv",
    "rows": 30,
    "columns": _DATASET_EXAMPLE["columns"],
    "warnings": _DATASET_EXAMPLE["warnings"],
    "found": {"header": True, "delimiter": ";", "encoding": "utf-8"},
    "sheets": [],
    "options": {"delimiter": ";"},
    "first_rows": [["171.5"], ["-999"]],
    "last_rows": [["168.2"]],
}

OptionValue = bool | int | str | list[str] | dict[str, str]
"""Value of an option of reading."""


class RepetitionView(BaseModel):
    """Repetition of the numbers of a column, from which the noise of a training follows."""

    values: int = Field(
        description="Number of distinct values that are no spikes, if further rows hardly have others; else 0."
    )
    shared: int = Field(description="Number of cells of the most frequent value that is no spike.")
    step: float = Field(
        description="Distance that all values, or all but the spikes, are multiples of; 0 if there is none."
    )
    gap: float = Field(
        description="Median distance of neighbouring values where each has many cells; else 0."
    )
    tied: list[str] = Field(
        description="Columns whose values come in the same pairs with those of this one."
    )
    listed: list[float] = Field(description="Values of a column that is tied to another.")


class ColumnView(BaseModel):
    """Column of a dataset: its type as a version has it, the reason for it, and statistics of its cells."""

    name: str = Field(description="Name of the column.")
    type: ColumnType = Field(default="number", description="Type of the values.")
    levels: list[str | bool | float] = Field(
        default=[],
        description="Values of a column that has few: numbers, and false and true in their order, texts"
        " the most frequent first. Empty for a continuous scale.",
    )
    other: bool = Field(
        default=False, description="True if rare texts are one more level after these, `*other*`."
    )
    merged: bool = Field(
        default=False,
        description="True if texts that differ from a level in case or blanks alone are of this level.",
    )
    missing: bool = Field(default=False, description="True if cells of the table were missing.")
    spikes: list[float] = Field(
        default=[],
        description="Single values that hold a large share of an otherwise continuous column.",
    )
    decimals: int | None = Field(
        default=None,
        description="Largest number of decimals of the values; null if it is unknown.",
    )
    na_values: list[str] = Field(
        default=[],
        description="Texts that mean a missing cell, besides the usual ones.",
    )
    decimal: str = Field(default=".", description="Decimal mark of numbers in text.")
    thousands: str = Field(
        default="", description="Mark between groups of three digits in text; empty: none."
    )
    unit: str = Field(
        default="",
        description="Text before or behind each number in text, such as `$` or `kg`, or both, as in `$#/kg`;"
        " empty: none.",
    )
    datetime_format: str | None = Field(
        default=None, description="Format of dates; null for ISO 8601, or no dates."
    )
    first_year: int | None = Field(
        default=None,
        description="First of the hundred years that years of two digits stand for; null: dates have none.",
    )
    date_only: bool = Field(
        default=False, description="True if all values are dates without a time of day."
    )
    step_s: int = Field(
        default=0,
        description="Seconds that all dates with a time of day are multiples of, such as 60; 0: none.",
    )
    transform: TransformName = Field(
        default="none", description="Monotone map to a scale on which the column is modelled."
    )
    low: float | None = Field(
        default=None, description="Lower bound of the values; null if there is none."
    )
    high: float | None = Field(
        default=None, description="Upper bound of the values; null if there is none."
    )
    reason: str | None = Field(
        default=None, description="Sentence that says why the column has its type."
    )
    dtype: str = Field(description="Data type of the uploaded values.")
    mean: float | None = Field(description="Mean of the values; null if they are not numbers.")
    std: float | None = Field(
        description="Standard deviation of the values, divided by their number and not by one less."
    )
    min: float | None = Field(description="Smallest value.")
    max: float | None = Field(description="Largest value.")
    distinct: int | None = Field(
        description="Number of distinct values; null if there are more than 1000."
    )
    missing_count: int = Field(default=0, description="Number of missing cells.")
    level_counts: list[int] = Field(
        default=[], description="Number of cells of each level, `*other*` included."
    )
    spike_counts: list[int] = Field(
        default=[],
        description="Number of cells of each spike; of large tables, an estimate by a sample.",
    )
    quantiles: dict[str, float] = Field(
        default={},
        description="Quantiles of the values, keyed by their level; of large tables, an"
        " estimate by a sample.",
    )
    repetition: RepetitionView | None = Field(
        default=None,
        description="Repetition of numbers; null for text, and in a dataset of an earlier release.",
    )


class RemedyView(BaseModel):
    """Option of an upload that ends what a warning is about."""

    option: str = Field(description="Name of the option.")
    value: bool | str | list[str] | dict[str, str] | None = Field(
        description="Value of it. A list or an object joins the one that the option has already. Null where only"
        " the caller can choose."
    )
    label: str = Field(description="What it does, as an imperative.")


class WarningView(BaseModel):
    """Warning about a dataset that was accepted."""

    code: str = Field(description="Stable name of the warning.")
    column: str | None = Field(
        description="Column that the warning is about; null for the whole table."
    )
    detail: str = Field(description="Explanation of this occurrence.")
    remedies: list[RemedyView] = Field(
        default=[], description="Options of an upload that mend it, one or the other."
    )


class DatasetSummaryView(BaseModel):
    """Dataset in a list, without its columns and their statistics."""

    model_config = ConfigDict(json_schema_extra={"examples": [_SUMMARY_EXAMPLE]})

    id: str = Field(description="Id of the dataset.")
    name: str | None = Field(description="Name given when it was uploaded; null if there is none.")
    rows: int = Field(description="Number of rows.")
    column_count: int = Field(description="Number of columns.")
    bytes: int = Field(description="Size of the stored table in bytes.")
    sha256: str = Field(description="SHA-256 of the stored table; the lineage of a model names it.")
    description: str | None = DESCRIPTION
    tags: dict[str, str] = TAGS
    created_at: datetime = Field(description="Time of the upload.")

    @classmethod
    def of(cls, dataset: DatasetSummary) -> "DatasetSummaryView":
        """Return the view of a dataset in a list."""
        return cls.model_validate(vars(dataset) | {"column_count": dataset.width})


class DatasetView(DatasetSummaryView):
    """Dataset with its columns and warnings."""

    model_config = ConfigDict(json_schema_extra={"examples": [_DATASET_EXAMPLE]})

    columns: list[ColumnView] = Field(description="Columns of the file, in its order.")
    warnings: list[WarningView] = Field(description="Warnings about the table.")
    options: dict[str, OptionValue] = Field(
        default={},
        description="Options of reading that the upload stated, and types changed since.",
    )

    @classmethod
    def whole(cls, dataset: Dataset) -> "DatasetView":
        """Return the view of a dataset."""
        stated = {name: value for name, value in (dataset.options or {}).items() if value}
        shown = {"column_count": len(dataset.columns), "options": stated}
        return cls.model_validate(vars(dataset) | shown)


class PreviewView(BaseModel):
    """What an upload would make of a file; nothing is stored."""

    model_config = ConfigDict(json_schema_extra={"examples": [_PREVIEW_EXAMPLE]})

    format: TableFormat = Field(description="Format of the file.")
    rows: int = Field(description="Number of rows that would be stored.")
    columns: list[ColumnView] = Field(description="Columns of the file, in its order.")
    warnings: list[WarningView] = Field(description="Warnings about the table.")
    found: dict[str, str | bool] = Field(
        description="How the file is written, as the options name it: `header`, `delimiter`, `encoding` or `sheet`."
    )
    sheets: list[str] = Field(description="Names of the sheets of a workbook.")
    options: dict[str, OptionValue] = Field(description="Options that the request stated.")
    first_rows: list[list[str | None]] = Field(
        description="First rows as text; long cells are cut. Rows that an option leaves out are not there."
    )
    last_rows: list[list[str | None]] = Field(description="Last rows that are not among the first.")


class DatasetPage(BaseModel):
    """Page of datasets, newest first."""

    items: list[DatasetSummaryView] = Field(description="Datasets, without their columns.")
    next_cursor: str | None = NEXT_CURSOR


class ColumnPage(BaseModel):
    """Some columns of a dataset."""

    items: list[ColumnView] = Field(description="Columns in the order of the file.")
    offset: int = Field(description="Index of the first column, from 0.")
    total: int = Field(description="Number of columns of the dataset.")


class RowsView(BaseModel):
    """Rows of a dataset."""

    columns: list[str] = Field(description="Names of the columns.")
    rows: list[list[str | bool | float | None]] = Field(
        description="Rows, with a value for each column; null is a missing cell."
    )
    offset: int = Field(description="Index of the first row, from 0.")
    total: int = Field(description="Number of rows of the dataset.")
