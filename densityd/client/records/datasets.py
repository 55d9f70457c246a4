"""Datasets and their columns."""

from datetime import datetime

from pydantic import Field

from densityd.client.records.record import Record


class Column(Record):
    """A column of a dataset: its type and the reason for it, and its statistics.

    Statistics that its type does not have are None; `distinct` also for more than 1000 values.
    """

    name: str
    type: str = "number"
    levels: list[str | bool | float] = []
    other: bool = False
    missing: bool = False
    spikes: list[float] = []
    decimals: int | None = None
    na_values: list[str] = []
    decimal: str = "."
    thousands: str = ""
    unit: str = ""
    first_year: int | None = None
    datetime_format: str | None = None
    date_only: bool = False
    step_s: int = 0
    transform: str = "none"
    low: float | None = None
    high: float | None = None
    reason: str | None = None
    dtype: str | None = None
    mean: float | None = None
    std: float | None = None
    min: float | None = None
    max: float | None = None
    distinct: int | None = None
    missing_count: int = 0
    level_counts: list[int] = []
    spike_counts: list[int] = []
    quantiles: dict[str, float] = {}


class TableWarning(Record):
    """A warning about an accepted dataset."""

    code: str
    column: str | None
    detail: str


class DatasetSummary(Record):
    """An uploaded table, without its columns."""

    id: str
    name: str | None
    rows: int
    column_count: int
    bytes: int
    sha256: str
    description: str | None = None
    tags: dict[str, str] = {}
    created_at: datetime


class Dataset(DatasetSummary):
    """An uploaded table; ``replayed`` if an earlier upload with the same key made it."""

    columns: list[Column]
    warnings: list[TableWarning]
    replayed: bool = Field(default=False, exclude=True)


class ColumnPage(Record):
    """Some columns of a dataset; `total` is the number of all."""

    items: list[Column]
    offset: int
    total: int
