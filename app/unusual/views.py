"""Responses about unusual rows, and reviews of them."""

from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from app.http.examples import DATASET_ID, MODEL
from models_store.reviews import Finding, Review
from tabular.typed_rows import JsonCell

DIGEST = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
_EXAMPLE: dict[str, Any] = {
    "model": f"{MODEL}:1",
    "dataset_id": DATASET_ID,
    "job_id": None,
    "columns": ["height", "weight"],
    "total_rows": 49000,
    "kept_rows": 1000,
    "held_out": {"rows": 4900, "part": "test"},
    "rows": [
        {
            "row": 1723,
            "held_out": False,
            "rank": 0.0002,
            "log_prob": -38.4,
            "cells": {"height": 17.24, "weight": 71.3},
            "reasons": [
                {
                    "column": "height",
                    "value": 17.24,
                    "difference": -29.7,
                    "usual": {"low": 163.9, "high": 185.2},
                    "levels": None,
                }
            ],
            "digest": DIGEST,
            "review": "confirmed",
        }
    ],
    "thresholds": [{"rank": 0.001, "rows": 46, "per_month": None}],
    "period": None,
}


class UsualValues(BaseModel):
    """Values that are usual for a cell."""

    low: JsonCell = Field(description="Lower bound of the middle 90 % of the values.")
    high: JsonCell = Field(description="Upper bound of them.")


class ReasonView(BaseModel):
    """Cell that makes a row unlikely."""

    column: str = Field(description="Column of the cell.")
    value: JsonCell = Field(description="Cell as it was uploaded.")
    difference: float | None = Field(
        description="Log density of the row less that with the likeliest value in the cell's place, in nats, at"
        " most 0. Null where a model is too large for this: then the cell lies outside of the middle 90 % of the"
        " column."
    )
    usual: UsualValues | None = Field(
        description="Middle 90 % of the values, given the other cells of the row; null where single values are"
        " likelier."
    )
    levels: list[JsonCell] | None = Field(
        description="Likeliest levels or single values given the other cells, null for a missing cell; null where"
        " values on a continuous scale are likelier."
    )


class UnusualRowView(BaseModel):
    """Row that is unlikely."""

    row: int = Field(description="Index of the row in the dataset, from 0.")
    held_out: bool | None = Field(
        description="True if the version was not trained on the row; null for a scored dataset."
    )
    rank: float | None = Field(
        description="Rank of the row among held-out rows, as the `quantile` of a score; null if the version has"
        " none."
    )
    log_prob: float | None = Field(
        description="Log density of the row in nats; null for a density of 0."
    )
    cells: dict[str, JsonCell] = Field(description="Cells of the row as they were uploaded.")
    reasons: list[ReasonView] = Field(
        description="Cells that make the row unlikely, the worst first."
    )
    digest: str = Field(description="SHA-256 of the row, by which it is reviewed.")
    review: Finding | None = Field(
        description="What a person found about a row of these cells; null for nothing."
    )


class ThresholdView(BaseModel):
    """Number of rows at or below a rank."""

    rank: float = Field(description="Rank.")
    rows: int = Field(description="Number of rows of the whole table that are at or below it.")
    per_month: float | None = Field(
        description="Number of them a month; null without a column of dates."
    )


class PeriodView(BaseModel):
    """Time that a table covers."""

    column: str = Field(description="First column of dates.")
    first: JsonCell = Field(description="First date, but for the first hundredth of the rows.")
    last: JsonCell = Field(description="Last date, likewise.")
    months: float = Field(description="Months that the table covers.")


class HeldOutRowsView(BaseModel):
    """Rows that ranks are among."""

    rows: int = Field(description="Number of the rows.")
    part: Literal["test", "validation"] = Field(description="Part of the split that they are.")


class UnusualView(BaseModel):
    """The least likely rows of a table, and how many rows lie below each rank."""

    model_config = ConfigDict(json_schema_extra={"examples": [_EXAMPLE]})

    model: str = Field(description="Version that scored the table, as `name:version`.")
    dataset_id: str = Field(description="Dataset that has the rows.")
    job_id: str | None = Field(
        description="Scoring job that found the rows; null for those of a training."
    )
    columns: list[str] = Field(description="Columns of the dataset, in the order of its file.")
    total_rows: int = Field(description="Number of rows of the dataset.")
    kept_rows: int = Field(
        description="Number of its least likely rows that are kept, at most 1,000."
    )
    held_out: HeldOutRowsView | None = Field(
        description="Rows that ranks are among; null if the version has none."
    )
    rows: list[UnusualRowView] = Field(description="Rows of the page, the least likely first.")
    thresholds: list[ThresholdView] = Field(
        description="Numbers of rows by rank, for a choice of a threshold; empty without ranks."
    )
    period: PeriodView | None = Field(
        description="Time that the table covers; null without a column of dates."
    )


class ReviewRequest(BaseModel):
    """Finding about an unusual row."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    review: Finding = Field(
        description="`confirmed`: the row is wrong or worth attention; `not_unusual`: it is as it should be."
    )


class ReviewView(BaseModel):
    """Review of a row of a model."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "name": MODEL,
                    "digest": DIGEST,
                    "review": "not_unusual",
                    "created_at": "2026-12-02T09:30:00Z",
                }
            ]
        }
    )

    name: str = Field(description="Name of the model.")
    digest: str = Field(description="SHA-256 of the row.")
    review: Finding = Field(description="What was found about the row.")
    created_at: datetime = Field(description="Time of the review, in UTC.")

    @classmethod
    def of(cls, name: str, review: Review) -> "ReviewView":
        """Return the view of a review."""
        return cls(name=name, **vars(review))
