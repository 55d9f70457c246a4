"""Responses about the rows that a version scored."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from models_store.counts import Counts
from models_store.drift import Distance, Drift

_DISTANCE: dict[str, Any] = {"statistic": 0.11, "p_value": 2e-9, "drifted": True}
_COUNTS: dict[str, Any] = {
    "rows": 2000,
    "ranks": [310, 260, 220, 200, 190, 180, 180, 170, 150, 140],
    "unusual": 61,
    "reasons": {"amount": 40, "age": 21},
}


class HeldOutRowsView(BaseModel):
    """Rows that ranks are among."""

    rows: int = Field(description="Number of the rows.")
    part: Literal["test", "validation"] = Field(description="Part of the split that they are.")


class DriftView(BaseModel):
    """Distance of counted rows from those that a version was made of."""

    statistic: float = Field(
        description="Largest difference of the cumulative shares of rows, from 0 to 1, as Kolmogorov and"
        " Smirnov have it."
    )
    p_value: float = Field(description="Probability of one as large without any drift.")
    drifted: bool = Field(description="True if that is below 0.001, for all tests together.")


class ColumnDriftView(DriftView):
    """Distance of the values of one column from those of the version's dataset."""

    column: str = Field(description="Name of the column.")
    counts: list[int] = Field(
        description="Rows in each part of the values, from the lowest; the last part is of missing values. Of"
        " a request of more than 1,024 rows as many are counted, evenly spaced."
    )
    expected: list[float] = Field(description="Share of the dataset's rows in each part.")


class RankCountsView(BaseModel):
    """Counts of rows that were scored."""

    rows: int = Field(ge=0, description="Number of the rows.")
    ranks: list[int] = Field(description="Rows in each tenth of the ranks, the least likely first.")
    unusual: int = Field(ge=0, description="Rows with a rank of 1 % or below.")
    reasons: dict[str, int] = Field(
        description="Number of unusual rows that each column made so, of those that were explained."
    )
    drift: DriftView | None = Field(
        description="Distance of the ranks from those of held-out rows; its p-value is of the ranks and all"
        " columns together. Null without rows."
    )


class RankBucketView(RankCountsView):
    """Counts of an hour or a day."""

    start: datetime = Field(description="Begin of the hour or day, in UTC.")
    drifted_columns: list[str] = Field(description="Columns that have drifted by themselves.")


class MonitoringView(RankCountsView):
    """Counts of the rows that a version scored, and whether they are like those that it was made of."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "model": "claims:3",
                    "held_out": {"rows": 4900, "part": "test"},
                    "since": "2026-11-25T00:00:00Z",
                    "until": "2026-12-02T00:00:00Z",
                    **_COUNTS,
                    "expected": [0.1] * 10,
                    "drift": _DISTANCE,
                    "columns": [
                        {
                            "column": "amount",
                            "counts": [90, 110, 130, 160, 180, 210, 240, 260, 290, 330, 0],
                            "expected": [*[0.1] * 10, 0.0],
                            **_DISTANCE,
                        }
                    ],
                    "buckets": [
                        {
                            "start": "2026-12-01T00:00:00Z",
                            **_COUNTS,
                            "drift": _DISTANCE,
                            "drifted_columns": ["amount"],
                        }
                    ],
                }
            ]
        }
    )

    model: str = Field(description="Version, as `name:version`.")
    held_out: HeldOutRowsView = Field(description="The held-out rows that ranks are among.")
    since: datetime = Field(description="Begin of the first hour or day.")
    until: datetime = Field(description="Time before which the last one begins.")
    expected: list[float] = Field(
        description="Share of rows in each tenth of the ranks without drift: a tenth, unless rows have ties."
    )
    columns: list[ColumnDriftView] = Field(
        description="Columns, the furthest first; none if the version's dataset is gone. At most 200."
    )
    buckets: list[RankBucketView] = Field(description="Hours or days with rows, in order.")


def counts_members(counts: Counts, drift: Drift | None) -> dict[str, Any]:
    """Return the members of a `RankCountsView`."""
    return {
        "rows": counts.get("rows", 0),
        "ranks": counts.get("ranks", [0] * 10),
        "unusual": counts.get("unusual", 0),
        "reasons": counts.get("reasons", {}),
        "drift": None if drift is None else _distance(drift, drifted=drift.has_drifted),
    }


def column_view(
    column: str, at: Distance, *, drifted: bool, counts: list[int], reference: Sequence[int]
) -> ColumnDriftView:
    """Return the view of a column."""
    expected = [count / sum(reference) for count in reference]
    members = _distance(at, drifted=drifted)
    return ColumnDriftView(column=column, counts=counts, expected=expected, **members)


def _distance(at: Distance, *, drifted: bool) -> dict[str, Any]:
    return {"statistic": at.statistic, "p_value": at.p_value, "drifted": drifted}
