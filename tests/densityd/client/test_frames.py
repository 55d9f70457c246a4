"""Frames, records and structured arrays as Arrow tables."""

import datetime
import decimal
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa  # type: ignore[import-untyped] # it ships no type information
import pytest
from hypothesis import given, settings, strategies as st

from densityd.client.wire.frames import to_table

NOON = datetime.datetime(2024, 3, 1, 12, tzinfo=datetime.UTC)
ROWS: list[dict[str, Any]] = [
    {"amount": 1.5, "count": 3, "shop": "north", "open": True, "at": NOON},
    {"amount": None, "count": None, "shop": None, "open": None, "at": None},
    {"amount": -2.0, "count": 7, "shop": "south", "open": False, "at": NOON},
]
TEXT = pa.string()


def pandas_frame() -> pd.DataFrame:
    frame = pd.DataFrame(ROWS, index=pd.Index(["c", "a", "b"], name="key"))
    return frame.astype(
        {"count": "Int64", "shop": "category", "open": "boolean", "at": "datetime64[us, UTC]"}
    )


def polars_frame() -> pl.DataFrame:
    return pl.DataFrame(ROWS).with_columns(pl.col("shop").cast(pl.Categorical))


@pytest.mark.parametrize(
    "rows",
    [ROWS, pandas_frame(), polars_frame(), pa.Table.from_pylist(ROWS), pa.table(polars_frame())],
    ids=["records", "pandas", "polars", "pyarrow", "views"],
)
def test_every_frame_is_the_same_table(rows: Any) -> None:
    table = to_table(rows)

    assert table is not None
    assert table.column_names == list(ROWS[0])
    types = [pa.float64(), pa.int64(), TEXT, pa.bool_(), pa.timestamp("us", "UTC")]
    assert table.schema.types == types
    assert table.to_pylist() == ROWS


def test_a_structured_array_has_names() -> None:
    rows = np.array([(1.5, "north"), (np.nan, "south")], dtype=[("amount", "f8"), ("shop", "U5")])
    table = to_table(rows)
    assert table is not None
    assert table.to_pylist() == [
        {"amount": 1.5, "shop": "north"},
        {"amount": None, "shop": "south"},
    ]


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        (pd.Series([1, "a", None], dtype=object), ["1", "a", None]),
        (pd.Series([pd.NA, "a"], dtype=object), [None, "a"]),
        (pd.Series([pd.NaT, "a"], dtype=object), [None, "a"]),
        (pd.Series([None, None], dtype=object), [None, None]),
        (pd.period_range("2020-01", periods=2, freq="M"), ["2020-01", "2020-02"]),
        (pd.interval_range(0, 2), ["(0, 1]", "(1, 2]"]),
        (pd.Categorical([3, None, 1], categories=[1, 2, 3]), [3, None, 1]),
        (pd.Categorical([None, None]), [None, None]),
        (pd.Series([decimal.Decimal("0.10"), None], dtype=object), [0.1, None]),
        (pd.Series([datetime.date(2020, 1, 1), None]), [datetime.date(2020, 1, 1), None]),
        (pd.Series(["x", None], dtype="string[pyarrow]"), ["x", None]),
        (pd.Series([1.5, np.nan], dtype="Float32"), [1.5, None]),
    ],
    ids=str,
)
def test_cells_of_pandas_keep_their_values(cells: Any, expected: list[object]) -> None:
    table = to_table(pd.DataFrame({"x": cells}))
    assert table is not None
    assert table["x"].to_pylist() == expected


def test_intervals_of_pandas_and_wide_or_lazy_columns_of_polars_are_read() -> None:
    cut = to_table(pd.DataFrame({"age": pd.cut([1.0, 5.0, np.nan], [0, 2, 9])}))
    assert cut is not None
    assert cut.column("age").to_pylist() == ["(0.0, 2.0]", "(2.0, 9.0]", None]
    frame = pl.DataFrame({"n": pl.Series([1, None], dtype=pl.Int128), "s": ["a", "b"]})
    frames: list[Any] = [frame, frame.lazy()]
    for rows in frames:
        table = to_table(rows)
        assert table is not None
        assert table.to_pylist() == [{"n": 1, "s": "a"}, {"n": None, "s": "b"}]


def test_names_that_are_no_text_become_text() -> None:
    table = to_table(pd.DataFrame({0: [1.0], 1: [2.0]}))
    assert table is not None
    assert table.column_names == ["0", "1"]


def test_keys_that_a_record_lacks_are_gaps() -> None:
    rows: list[dict[str, object]] = [{"a": 1}, {"b": np.float64(2), "a": 1.5}, {}]
    table = to_table(rows)
    assert table is not None
    assert table.to_pydict() == {"a": [1.0, 1.5, None], "b": [None, 2.0, None]}


@pytest.mark.parametrize("rows", [np.zeros((2, 3)), [[1.0, 2.0]], [], [1.0, 2.0]])
def test_rows_without_names_are_no_table(rows: Any) -> None:
    assert to_table(rows) is None


@pytest.mark.parametrize(
    "rows",
    [
        pd.DataFrame([[1, 2]], columns=["a", "a"]),
        pd.DataFrame([[1, 2]], columns=[1, "1"]),
        pa.Table.from_arrays([pa.array([1]), pa.array([2])], ["a", "a"]),
        pl.Series([1, 2]),
        pd.Series([1, 2]),
        pa.chunked_array([[1]]),
        np.zeros((2, 2), dtype=[("a", "f8")]),
    ],
    ids=["pandas", "names", "pyarrow", "series", "pandas series", "chunks", "structured"],
)
def test_rows_that_are_no_table_are_refused(rows: Any) -> None:
    with pytest.raises(ValueError, match=r"two columns|must be"):
        to_table(rows)


cell = st.one_of(
    st.none(),
    st.floats(allow_nan=False),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.text(),
    st.dates(),
    st.lists(st.integers(), max_size=2),
)


@settings(max_examples=15, deadline=None)
@given(rows=st.lists(st.dictionaries(st.text(max_size=4), cell, max_size=4), min_size=1))
def test_any_records_become_a_table_with_their_names_and_gaps(rows: list[dict[str, Any]]) -> None:
    table = to_table(rows)

    assert table is not None
    names = {name for row in rows for name in row}
    assert set(table.column_names) == names
    for name in names:
        gaps = [row.get(name) is None for row in rows]
        assert table[name].is_null().to_pylist() == gaps
