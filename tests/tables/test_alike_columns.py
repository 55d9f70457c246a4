"""Cells of many columns that are converted together."""

from dataclasses import replace
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest

from tabular import cells
from tabular.cells import decode_cells
from tabular.columns import Column
from tabular.dates import format_dates
from tabular.typed_rows import TypedRows

KINDS = (
    Column(name="a"),
    Column(name="a", decimals=2, missing=True),
    Column(name="a", type="integer", missing=True),
    Column(name="a", type="integer", levels=(1, 2, 5)),
    Column(name="a", levels=(0.5, 2)),
    Column(name="a", type="boolean", levels=(False, True)),
    Column(name="a", type="boolean", levels=("no", "yes")),
    Column(name="a", type="category", levels=("M", "S", "L"), missing=True),
    Column(name="a", type="category", levels=("x" * 70,), other=True),
    Column(name="a", type="category", levels=()),
    Column(name="a", type="datetime", missing=True),
    Column(name="a", type="datetime", date_only=True),
    Column(name="a", type="datetime", step_s=60),
    Column(name="a", type="datetime", decimals=3),
    Column(name="a", type="datetime", datetime_format="%d.%m.%Y %I %p"),
    Column(name="a", type="datetime", datetime_format="%G week %V"),
)
MANY = 3


def a_table(rows: int) -> tuple[list[Column], np.ndarray[Any, np.dtype[np.float64]]]:
    """Columns of all kinds, and numbers of rows, some of which are gaps or no level."""
    columns = [
        replace(column, name=f"{place}-{number}")
        for number in range(MANY)
        for place, column in enumerate(KINDS)
    ]
    drawn = np.random.default_rng(1)
    numbers = drawn.integers(-1, 6, (rows, len(columns))).astype(np.float64)
    is_date = np.array([column.type == "datetime" for column in columns])
    numbers[:, is_date] = drawn.uniform(-1e9, 2e9, (rows, int(is_date.sum())))
    numbers[drawn.uniform(size=numbers.shape) < 0.1] = np.nan
    numbers[:1, :2] = np.inf, -np.inf
    return columns, numbers


@pytest.mark.parametrize("rows", [0, 1, 7, 70_000])
def test_columns_that_are_converted_together_have_the_cells_of_each(rows: int) -> None:
    columns, numbers = a_table(rows)
    batch = TypedRows(columns, ["score"]).batch(np.column_stack([numbers, np.ones(rows)]))
    batch.validate(full=True)
    for place, column in enumerate(columns):
        expected = decode_cells(numbers[:, place], column)
        assert batch.schema[place].type == expected.type
        assert batch.column(place).equals(expected), column
    assert batch.column("score").to_pylist() == [1.0] * rows


@pytest.mark.parametrize("rows", [0, 5])
def test_numbers_alone_are_those_of_the_cells(rows: int) -> None:
    columns, numbers = a_table(rows)
    written = TypedRows(columns).numbers(numbers)
    for place, column in enumerate(columns):
        expected = numbers[:, place]
        if column.holds_values and column.type != "datetime":
            expected = decode_cells(expected, column).to_numpy(zero_copy_only=False)
        np.testing.assert_array_equal(written[:, place], expected)


def test_dates_of_many_columns_are_written_as_one(monkeypatch):
    forms = (None, "%d.%m.%Y")
    columns = [
        Column(name=f"{number}", type="datetime", datetime_format=forms[number % 2])
        for number in range(300)
    ]
    written = Mock(side_effect=format_dates)
    monkeypatch.setattr(cells, "format_dates", written)
    batch = TypedRows(columns).batch(np.zeros((2, 300)))
    assert batch.column(298).to_pylist() == ["1970-01-01T00:00:00Z"] * 2
    assert batch.column(299).to_pylist() == ["01.01.1970"] * 2
    assert written.call_count <= 3 * len(forms)
