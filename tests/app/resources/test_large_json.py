"""Megabytes of JSON, made and read in pieces between which other threads run."""

import json
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from types import FrameType
from typing import Any

import pytest

from app.datasets.views import DatasetView
from app.resources.etags import json_of
from tabular.json.pieces import dump_in_pieces, load_in_pieces

COLUMN = {"name": "é", "dtype": "int64", "mean": 0.1, "std": 1.0, "min": -1e300, "max": 5.0}
LISTS: dict[str, list[Any]] = {
    key: [] for key in ("spikes", "na_values", "level_counts", "spike_counts")
}
COLUMNS = [
    {**COLUMN, **LISTS, "quantiles": {}, "distinct": number, "levels": ["a", 2.0, True]}
    for number in range(3000)
]
SUMMARY: dict[str, Any] = {
    "id": "ds_1",
    "name": None,
    "rows": 3,
    "column_count": 3000,
    "bytes": 1,
    "sha256": "0",
    "description": 'a "quoted" text',
    "tags": {"a": "b"},
    "created_at": datetime(2026, 11, 27, tzinfo=UTC),
    "warnings": [],
}


def view(columns: int = 3000) -> DatasetView:
    return DatasetView.model_validate({**SUMMARY, "columns": COLUMNS[:columns]})


@pytest.mark.parametrize("columns", [0, 1, 100, 101, 3000])
def test_a_view_in_pieces_has_the_same_bytes(columns: int) -> None:
    assert json_of(view(columns)) == view(columns).model_dump_json().encode()


@pytest.mark.parametrize(
    "value",
    [None, 1, "é", [], {}, [1] * 1000, {"a": [{"b": 1}] * 100, "c": {"d": [None] * 65}}, {1: 2}],
)
def test_values_in_pieces_are_the_same_documents(value: object) -> None:
    text = dump_in_pieces(value)
    assert text == json.dumps(value, separators=(",", ":"))
    assert load_in_pieces(text) == json.loads(text)


@pytest.mark.parametrize("value", [float("nan"), [float("inf")] * 100, {"a": [float("nan")] * 100}])
def test_numbers_that_are_not_finite_are_refused(value: object) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        dump_in_pieces(value)


TEXT = json.dumps(COLUMNS)
VIEW = view()
WORK: dict[str, Callable[[], object]] = {
    "load": lambda: load_in_pieces(TEXT),
    "dump": lambda: dump_in_pieces({"columns": COLUMNS}),
    "validate": view,
    "view": lambda: json_of(VIEW),
}


@pytest.mark.parametrize("work", WORK)
def test_other_threads_can_run_while_thousands_of_columns_are_read_and_written(work: str) -> None:
    """They can at each call in Python; within one of C, an event loop waits for its end."""
    calls = 0

    def count(_frame: FrameType, event: str, _argument: object) -> None:
        nonlocal calls
        calls += event == "call"

    before = sys.getprofile()
    sys.setprofile(count)
    try:
        WORK[work]()
    finally:
        sys.setprofile(before)
    assert calls >= len(COLUMNS) / 100
