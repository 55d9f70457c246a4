"""Rows on the wire: frames, records and arrays as Arrow tables and npy files, and files that are written whole."""

import datetime
import decimal
import io
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa  # type: ignore[import-untyped] # it ships no type information
import pytest
from hypothesis import given, settings, strategies as st
from numpy.typing import NDArray

from densityd.client import FileFormatError, UnexpectedAnswerError
from densityd.client.waiting import EventDecoder
from densityd.client.wire.arrays import encode_array, encode_table
from densityd.client.wire.files import guess_media_type, open_target
from densityd.client.wire.frames import to_table

NOON = datetime.datetime(2024, 3, 1, 12, tzinfo=datetime.UTC)
ROWS: list[dict[str, Any]] = [
    {"amount": 1.5, "count": 3, "shop": "north", "open": True, "at": NOON},
    {"amount": None, "count": None, "shop": None, "open": None, "at": None},
    {"amount": -2.0, "count": 7, "shop": "south", "open": False, "at": NOON},
]
TEXT = pa.string()


def table_of(rows: Any) -> pa.Table:
    table = to_table(rows)
    assert table is not None
    return table


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
    table = table_of(rows)
    assert table.column_names == list(ROWS[0])
    types = [pa.float64(), pa.int64(), TEXT, pa.bool_(), pa.timestamp("us", "UTC")]
    assert table.schema.types == types
    assert table.to_pylist() == ROWS


def test_a_structured_array_has_names() -> None:
    rows = np.array([(1.5, "north"), (np.nan, "south")], dtype=[("amount", "f8"), ("shop", "U5")])
    table = table_of(rows)
    assert table.to_pylist() == [
        {"amount": 1.5, "shop": "north"},
        {"amount": None, "shop": "south"},
    ]


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        (pd.Series([1, "a", None], dtype=object), ["1", "a", None]),
        (pd.Series([pd.NaT, "a"], dtype=object), [None, "a"]),
        (pd.period_range("2020-01", periods=2, freq="M"), ["2020-01", "2020-02"]),
        (pd.Categorical([3, None, 1], categories=[1, 2, 3]), [3, None, 1]),
        (pd.Series([decimal.Decimal("0.10"), None], dtype=object), [0.1, None]),
        (pd.Series([datetime.date(2020, 1, 1), None]), [datetime.date(2020, 1, 1), None]),
        (pd.Series([1.5, np.nan], dtype="Float32"), [1.5, None]),
    ],
    ids=str,
)
def test_cells_of_pandas_keep_their_values(cells: Any, expected: list[object]) -> None:
    table = table_of(pd.DataFrame({"x": cells}))
    assert table["x"].to_pylist() == expected


def test_intervals_of_pandas_and_wide_or_lazy_columns_of_polars_are_read() -> None:
    cut = table_of(pd.DataFrame({"age": pd.cut([1.0, 5.0, np.nan], [0, 2, 9])}))
    assert cut.column("age").to_pylist() == ["(0.0, 2.0]", "(2.0, 9.0]", None]
    frame = pl.DataFrame({"n": pl.Series([1, None], dtype=pl.Int128), "s": ["a", "b"]})
    frames: list[Any] = [frame, frame.lazy()]
    for rows in frames:
        table = table_of(rows)
        assert table.to_pylist() == [{"n": 1, "s": "a"}, {"n": None, "s": "b"}]


def test_names_that_are_no_text_become_text() -> None:
    table = table_of(pd.DataFrame({0: [1.0], 1: [2.0]}))
    assert table.column_names == ["0", "1"]


def test_keys_that_a_record_lacks_are_gaps() -> None:
    rows: list[dict[str, object]] = [{"a": 1}, {"b": np.float64(2), "a": 1.5}, {}]
    table = table_of(rows)
    assert table.to_pydict() == {"a": [1.0, 1.5, None], "b": [None, 2.0, None]}


@pytest.mark.parametrize("rows", [np.zeros((2, 3)), []])
def test_rows_without_names_are_no_table(rows: Any) -> None:
    assert to_table(rows) is None


@pytest.mark.parametrize(
    "rows",
    [
        pd.DataFrame([[1, 2]], columns=["a", "a"]),
        pa.Table.from_arrays([pa.array([1]), pa.array([2])], ["a", "a"]),
        pl.Series([1, 2]),
        pa.chunked_array([[1]]),
        np.zeros((2, 2), dtype=[("a", "f8")]),
    ],
    ids=["pandas", "pyarrow", "series", "chunks", "structured"],
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
    table = table_of(rows)
    names = {name for row in rows for name in row}
    assert set(table.column_names) == names
    for name in names:
        gaps = [row.get(name) is None for row in rows]
        assert table[name].is_null().to_pylist() == gaps


ARRAY = np.random.default_rng(0).normal(size=(50, 3))
TABLE = pa.table({"a": ARRAY[:, 0], "b": ARRAY[:, 1].astype(np.float32)})


def single_bytes(body: bytes) -> list[bytes]:
    return [body[index : index + 1] for index in range(len(body))]


@pytest.mark.parametrize("rows", [ARRAY.T, ARRAY[:0]])
def test_an_array_is_an_npy_file(rows: NDArray[Any]) -> None:
    body = encode_array(rows)
    data = b"".join(body.chunks())
    assert len(data) == body.size
    assert np.array_equal(np.load(io.BytesIO(data)), rows)


def test_a_table_is_an_arrow_stream_and_without_rows_has_its_columns() -> None:
    table = pa.concat_tables([TABLE, TABLE.slice(3, 7)])
    assert pa.ipc.open_stream(b"".join(encode_table(table).chunks())).read_all().equals(table)
    data = b"".join(encode_table(TABLE.slice(0, 0)).chunks())
    assert pa.ipc.open_stream(data).read_all().column_names == ["a", "b"]


def test_bodies_can_be_sent_again() -> None:
    for body in (encode_array(ARRAY), encode_table(TABLE)):
        assert b"".join(body.chunks()) == b"".join(body.chunks())


def test_events_come_whole_however_they_are_cut() -> None:
    stream = b'retry: 2000\n\nid: 4\nevent: epoch\ndata: {"epoch": 2}\n\n: keep-alive\n\n'
    decoder = EventDecoder()

    [event] = [one for byte in single_bytes(stream) for one in decoder.feed(byte)]

    assert (event.id, event.event, event.data) == (4, "epoch", {"epoch": 2})


def test_what_is_no_event_of_ours_is_refused() -> None:
    with pytest.raises(UnexpectedAnswerError):
        list(EventDecoder().feed(b"id: one\ndata: {}\n\n"))


def test_a_file_is_replaced_as_a_whole_or_stays_as_it_was(tmp_path: Path) -> None:
    target = tmp_path / "out.csv"
    target.write_text("before")

    def fail_halfway() -> None:
        with open_target(target) as file:
            file.write(b"half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail_halfway()
    assert target.read_text() == "before"
    with open_target(target) as file:
        file.write(b"whole")
    assert target.read_text() == "whole"
    assert list(tmp_path.iterdir()) == [target]
    with open_target(Path("/dev/null")) as file:
        file.write(b"gone")
    assert Path("/dev/null").is_char_device()
    with pytest.raises(FileNotFoundError) as caught, open_target(tmp_path / "no" / "out"):
        pass
    assert caught.value.filename == str(tmp_path / "no" / "out")


def test_a_name_without_a_format_is_refused_with_those_that_there_are() -> None:
    assert guess_media_type(Path("A.CSV")) == "text/csv"
    with pytest.raises(FileFormatError, match=r"rows\.txt.*\.parquet"):
        guess_media_type(Path("rows.txt"))
