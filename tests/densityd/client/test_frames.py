"""Rows of the client: frames, records, arrays and results on the wire."""

import datetime
import decimal
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa  # type: ignore[import-untyped] # it ships no type information
import pytest
from hypothesis import given, settings, strategies as st
from numpy.typing import NDArray

from densityd.client import Client, FileFormatError, UnexpectedAnswerError
from densityd.client.wire.arrow import encode_table
from densityd.client.wire.events import EventDecoder
from densityd.client.wire.files import guess_media_type, open_target
from densityd.client.wire.frames import to_table
from densityd.client.wire.npy import encode_array
from tests.densityd.bodies import DATASET
from tests.densityd.scripted import Reply, ScriptedServer, a_json
from tests.tables.files import npy

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


ARRAY = np.random.default_rng(0).normal(size=(50, 3))
TABLE = pa.table({"a": ARRAY[:, 0], "b": ARRAY[:, 1].astype(np.float32)})


def single_bytes(body: bytes) -> list[bytes]:
    return [body[index : index + 1] for index in range(len(body))]


@pytest.mark.parametrize("rows", [ARRAY, ARRAY.T, ARRAY[::2].astype(np.float16), ARRAY[:0]])
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


FRAME = pd.DataFrame({"shop": ["north", None], "amount": [1.5, 2.0]})
ANSWER = {
    "log_prob": [-1.0, None],
    "quantile": [0.5, None],
    "explained": {"shop": "exact", "amount": "learnt"},
    "explanation": [{"shop": -0.5, "amount": -2.0}, {"shop": None, "amount": None}],
    "usual": {"shop": -0.25, "amount": None},
    "difference": [{"shop": -0.25, "amount": None}, {"shop": None, "amount": None}],
}


def test_both_parts_of_a_mixed_density_are_given(scripted: ScriptedServer) -> None:
    scripted.replies = [Reply(body=npy([[-3.0, -1.0, -2.0], [-1.0, -1.0, 0.0]]))]
    with Client(scripted.url) as client:
        parts = client.parts("m", FRAME, extra="ignore")

    assert np.array_equal(parts.log_prob, parts.discrete + parts.continuous)
    line = "POST /v1/models/m/log_prob?parts=true&extra=ignore"
    assert scripted.asked[0].line == line
    assert pa.ipc.open_stream(scripted.asked[0].body).read_all().to_pylist() == [
        {"shop": "north", "amount": 1.5},
        {"shop": None, "amount": 2.0},
    ]


def test_each_column_of_a_row_is_explained(scripted: ScriptedServer) -> None:
    scripted.replies = [a_json(ANSWER)]
    with Client(scripted.url) as client:
        found = client.explain("m", FRAME)

    assert scripted.asked[0].line == "POST /v1/models/m/score?explain=true"
    assert np.array_equal(found.log_prob, [-1.0, np.nan], equal_nan=True)
    assert np.array_equal(found.quantile, [0.5, np.nan], equal_nan=True)
    assert list(found.columns) == ["shop", "amount"]
    assert found.kinds == {"shop": "exact", "amount": "learnt"}
    assert np.array_equal(found.columns["amount"], [-2.0, np.nan], equal_nan=True)
    assert found.usual["shop"] == -0.25
    assert np.isnan(found.usual["amount"])
    assert np.array_equal(found.differences["shop"], [-0.25, np.nan], equal_nan=True)
    assert found.reasons(0) == {"shop": -0.25}


def test_the_reasons_of_a_row_begin_with_the_least_usual(scripted: ScriptedServer) -> None:
    differences = [{"shop": -1.0, "amount": -9.0}, {"shop": -3.0, "amount": 0.5}]
    scripted.replies = [a_json({**ANSWER, "difference": differences})]
    with Client(scripted.url) as client:
        found = client.explain("m", FRAME)

    assert list(found.reasons(0)) == ["amount", "shop"]
    assert list(found.reasons(1)) == ["shop", "amount"]


def test_each_column_is_given_those_before_it(scripted: ScriptedServer) -> None:
    answer = {
        "log_prob": [-3.0, None],
        "order": ["amount", "shop"],
        "conditional": [{"shop": -1.0, "amount": -2.0}, {"shop": None, "amount": None}],
        "mean": [{"shop": None, "amount": 1.25}, {"shop": None, "amount": None}],
    }
    scripted.replies = [a_json(answer), a_json({**answer, "mean": [1]})]
    with Client(scripted.url) as client:
        found = client.conditionals("m", FRAME, extra="ignore")
        with pytest.raises(UnexpectedAnswerError, match="conditional"):
            client.conditionals("m", FRAME)

    line = "POST /v1/models/m/log_prob?space=data&extra=ignore&conditionals=true"
    assert scripted.asked[0].line == line
    assert found.order == ["amount", "shop"]
    assert np.array_equal(found.columns["shop"], [-1.0, np.nan], equal_nan=True)
    assert np.array_equal(found.means["amount"], [1.25, np.nan], equal_nan=True)
    assert np.array_equal(found.log_prob, [-3.0, np.nan], equal_nan=True)


def test_the_evidence_of_rows_is_two_bounds(scripted: ScriptedServer) -> None:
    scripted.replies = [Reply(body=npy([[-3.0, -2.5], [-1.0, -0.5]]))]
    with Client(scripted.url) as client:
        found = client.evidence("m", [[1.0, 0.0], [0.0, 0.0]], samples=7, seed=3)

    assert scripted.asked[0].line == "POST /v1/models/m/evidence?samples=7&seed=3"
    assert found.elbo.tolist() == [-3.0, -1.0]
    assert found.log_evidence.tolist() == [-2.5, -0.5]


def test_unseen_levels_are_told_once_a_call_and_kept_with_the_scores(
    scripted: ScriptedServer,
) -> None:
    rows = np.zeros((300_000, 1))  # of two requests
    first = (2 << 20) // 8
    scripted.replies = [
        Reply(200, npy(np.zeros((first, 2))), {"X-Row-Warnings": '2;rows="0 7"'}),
        Reply(200, npy(np.zeros((len(rows) - first, 2))), {"X-Row-Warnings": '1;rows="3"'}),
    ]
    with Client(scripted.url) as client, pytest.warns(UserWarning, match="3 cells") as told:
        scores = client.score("m", rows)

    assert len(scripted.asked) == 2
    assert len(told) == 1
    [sentence] = scores.warnings
    assert sentence.startswith(
        "3 cells have a level that training never saw, first in rows 0, 7, 26"
    )


@pytest.mark.parametrize("explanation", [None, [1], {"a": 1}, [{"shop": "x"}]], ids=str)
def test_a_response_without_an_explanation_is_told(
    scripted: ScriptedServer, explanation: object
) -> None:
    scripted.replies = [a_json({**ANSWER, "explanation": explanation})]
    with Client(scripted.url) as client, pytest.raises(UnexpectedAnswerError, match="explanation"):
        client.explain("m", FRAME)


def test_options_of_an_upload_go_as_text_or_json(scripted: ScriptedServer) -> None:
    scripted.replies = [a_json(DATASET, 201), a_json(DATASET)]
    with Client(scripted.url) as client:
        client.datasets.upload(
            FRAME, types={"a": "category"}, exclude=["b"], header=False, max_levels=9, decimal=","
        )
        client.datasets.update("ds_1", types={"a": "ignored"})

    query = "types=%7B%22a%22%3A%22category%22%7D&exclude=%5B%22b%22%5D&header=false&max_levels=9"
    assert scripted.asked[0].line == f"POST /v1/datasets?{query}&decimal=%2C"
    assert scripted.asked[1].line == "PATCH /v1/datasets/ds_1"
    assert json.loads(scripted.asked[1].body) == {"types": {"a": "ignored"}}
