"""What the routes of datasets and of health answer with."""

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
    """One column of a dataset."""

    name: str
    dtype: str = Field(description="The type that it was uploaded in.")
    mean: float
    std: float = Field(description="Population standard deviation.")
    min: float
    max: float
    distinct: int | None = Field(description="Distinct values; null: more than 1000.")


class WarningView(BaseModel):
    """Something to know about a dataset that was accepted."""

    code: str
    column: str | None = Field(description="Null: the table as a whole.")
    detail: str


class DatasetSummaryView(BaseModel):
    """A dataset in a listing: without its columns and their statistics."""

    model_config = ConfigDict(json_schema_extra={"examples": [_SUMMARY_EXAMPLE]})

    id: str
    name: str | None
    rows: int
    column_count: int = Field(description="Number of columns.")
    bytes: int = Field(description="Size of the stored table.")
    sha256: str = Field(description="Hash of the stored table; models name it in their lineage.")
    created_at: datetime

    @classmethod
    def of(cls, dataset: DatasetSummary) -> "DatasetSummaryView":
        """Return the form of a dataset that callers see in a listing."""
        return cls.model_validate(vars(dataset) | {"column_count": dataset.width})


class DatasetView(DatasetSummaryView):
    """A dataset."""

    model_config = ConfigDict(json_schema_extra={"examples": [_DATASET_EXAMPLE]})

    columns: list[ColumnView]
    warnings: list[WarningView]

    @classmethod
    def whole(cls, dataset: Dataset) -> "DatasetView":
        """Return the form of a dataset that callers see."""
        return cls.model_validate(vars(dataset) | {"column_count": len(dataset.columns)})


class DatasetPage(BaseModel):
    """A page of datasets, newest first."""

    items: list[DatasetSummaryView]
    next_cursor: str | None = Field(description="For the next page; null: this is the last one.")

    @classmethod
    def of(cls, page: Page[DatasetSummary]) -> "DatasetPage":
        """Return the form of a page that callers see."""
        return cls.model_validate(bounded(page, DatasetSummaryView.of), from_attributes=True)


class RowsView(BaseModel):
    """Some rows of a dataset."""

    columns: list[str]
    rows: list[list[float]]
    offset: int = Field(description="Number of the first row here; rows count from 0.")
    total: int = Field(description="Rows of the dataset.")


class Liveness(BaseModel):
    """The process answers."""

    status: Literal["ok"] = "ok"


class Check(BaseModel):
    """One thing that the service depends on."""

    ok: bool
    detail: str


class Readiness(BaseModel):
    """Whether requests can be served: `degraded` serves, but something waits or is missing."""

    status: Literal["ok", "degraded", "unavailable"]
    checks: dict[str, Check]
