"""Response models of datasets and health checks."""

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.config import JsonDict

from app.http.listing import bounded
from models_store.database.paging import Page
from models_store.registry import Dataset, DatasetSummary

_SUMMARY_EXAMPLE: JsonDict = {
    "id": "ds_0f3c5f4e7d0c4d5b9b8f1e2a3c4d5e6f",
    "name": "shuttle",
    "rows": 49097,
    "column_count": 1,
    "bytes": 3535112,
    "sha256": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
    "created_at": "2026-11-24T15:27:00Z",
}
_DATASET_EXAMPLE: JsonDict = {
    **_SUMMARY_EXAMPLE,
    "columns": [
        {
            "name": "x1",
            "dtype": "float64",
            "mean": 48.2,
            "std": 12.2,
            "min": 27.0,
            "max": 126.0,
            "distinct": 77,
        }
    ],
    "warnings": [{"code": "discrete", "column": "x1", "detail": "x1 has 77 distinct values."}],
}


class ColumnView(BaseModel):
    """Column of a dataset."""

    name: str
    dtype: str = Field(description="Data type of the uploaded values.")
    mean: float
    std: float = Field(description="Standard deviation of the population.")
    min: float
    max: float
    distinct: int | None = Field(description="Number of distinct values; null: more than 1000.")


class WarningView(BaseModel):
    """Warning about a dataset that was accepted."""

    code: str
    column: str | None = Field(
        description="Column that the warning is about; null: the whole table."
    )
    detail: str


class DatasetSummaryView(BaseModel):
    """Dataset in a list, without its columns and their statistics."""

    model_config = ConfigDict(json_schema_extra={"examples": [_SUMMARY_EXAMPLE]})

    id: str
    name: str | None
    rows: int
    column_count: int = Field(description="Number of columns.")
    bytes: int = Field(description="Size of the stored table in bytes.")
    sha256: str = Field(description="SHA-256 of the stored table; the lineage of a model names it.")
    created_at: datetime

    @classmethod
    def of(cls, dataset: DatasetSummary) -> "DatasetSummaryView":
        """Return the view of a dataset in a list."""
        return cls.model_validate(vars(dataset) | {"column_count": dataset.width})


class DatasetView(DatasetSummaryView):
    """Dataset with its columns and warnings."""

    model_config = ConfigDict(json_schema_extra={"examples": [_DATASET_EXAMPLE]})

    columns: list[ColumnView]
    warnings: list[WarningView]

    @classmethod
    def whole(cls, dataset: Dataset) -> "DatasetView":
        """Return the view of a dataset."""
        return cls.model_validate(vars(dataset) | {"column_count": len(dataset.columns)})


class DatasetPage(BaseModel):
    """Page of datasets, newest first."""

    items: list[DatasetSummaryView]
    next_cursor: str | None = Field(
        description="Cursor of the next page; null: this is the last page."
    )

    @classmethod
    def of(cls, page: Page[DatasetSummary]) -> "DatasetPage":
        """Return the view of a page."""
        return cls.model_validate(bounded(page, DatasetSummaryView.of), from_attributes=True)


class RowsView(BaseModel):
    """Rows of a dataset."""

    columns: list[str]
    rows: list[list[float]]
    offset: int = Field(description="Index of the first row, from 0.")
    total: int = Field(description="Number of rows of the dataset.")


class Liveness(BaseModel):
    """Liveness of the process."""

    status: Literal["ok"] = "ok"


class Check(BaseModel):
    """State of a dependency of the service."""

    ok: bool
    detail: str


class Readiness(BaseModel):
    """Readiness of the service; when `degraded` it serves, but a dependency is missing."""

    status: Literal["ok", "degraded", "unavailable"]
    checks: dict[str, Check]
