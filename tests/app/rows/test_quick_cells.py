"""Rows of cells in JSON: the event loop looks up what came before, and a thread does the rest."""

import asyncio
import json
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from app.problems.problem import Problem
from app.rows import cell_codes
from app.rows.decode.json import QUICK_COLUMNS, decoded_document
from app.rows.model_types import ModelTypes
from app.rows.shape import Floats, RowsShape
from tabular.columns import Column


def a_shape(columns: int = 2) -> RowsShape:
    places = range(columns)
    levels = ("a", "b")
    types = [Column(name=f"x{place}", type="category", levels=levels) for place in places]
    names = [column.name for column in types]
    return RowsShape(names, 1000, types=ModelTypes(tuple(types), columns))


def decoded(rows: Sequence[Sequence[Any]], shape: RowsShape) -> Floats:
    return asyncio.run(decoded_document(json.dumps({"rows": rows}).encode(), shape))


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> list[threading.Thread]:
    """Threads that made numbers of texts with a library."""
    threads: list[threading.Thread] = []

    def noted(name: str) -> None:
        call = getattr(cell_codes, name)

        def note(*args: Any, **kwargs: Any) -> Any:
            threads.append(threading.current_thread())
            return call(*args, **kwargs)

        monkeypatch.setattr(cell_codes, name, note)

    noted("try_encode")
    noted("encode_rows")
    return threads


def test_texts_that_are_new_are_read_in_a_thread_once(
    slow: list[threading.Thread],
) -> None:
    shape = a_shape()
    for _ in range(2):
        found = decoded([["a", "b"], ["b", "new"]], shape)
        assert np.array_equal(found, [[0.0, 1.0], [1.0, -1.0]])
    assert len(slow) == 2  # one for each column, the first time
    assert threading.main_thread() not in slow


def test_a_cell_that_is_wrong_is_looked_for_in_a_thread(
    slow: list[threading.Thread],
) -> None:
    shape = a_shape()
    decoded([["a", "b"]], shape)
    with pytest.raises(Problem, match="x1"):
        decoded([["a", "b"], ["a", ["b"]]], shape)
    assert slow
    assert threading.main_thread() not in slow


@pytest.mark.parametrize("columns", [QUICK_COLUMNS, QUICK_COLUMNS + 1])
def test_many_columns_are_read_in_a_thread_though_their_texts_are_known(
    columns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    shape = a_shape(columns)
    assert shape.types is not None
    codes = shape.types.codes
    threads: list[threading.Thread] = []
    read = codes.rows

    def noted(cells: Any, **kwargs: Any) -> Any:
        threads.append(threading.current_thread())
        return read(cells, **kwargs)

    decoded([["a"] * columns], shape)
    monkeypatch.setattr(codes, "rows", noted)
    decoded([["a"] * columns], shape)
    assert [thread is threading.main_thread() for thread in threads] == [columns == QUICK_COLUMNS]
