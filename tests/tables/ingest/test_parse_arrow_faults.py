"""Bad Arrow streams (groups A and B of the fault catalogue), and odd good ones."""

import io
import time

import numpy as np
import pyarrow as pa  # type: ignore[import-untyped] # it ships no type information
import pyarrow.parquet as pq  # type: ignore[import-untyped] # as above
import pytest

from tabular.formats import TableFormat
from tabular.ingest.parse import cells_path
from tests.tables.files import arrow

ARROW = TableFormat.ARROW


@pytest.mark.parametrize("compression", [None, "zstd", "lz4"])
@pytest.mark.parametrize("rows", [None, 1000])
def test_an_arrow_stream_is_stored_with_its_names_and_types(accept, stored, compression, rows):
    x = np.random.default_rng(0).normal(size=(20_000, 2))
    table = pa.table({"a": x[:, 0], "b": x[:, 1].astype(np.float32)})
    summary = accept(arrow(table, compression=compression, rows=rows), ARROW)
    assert [(column.name, column.dtype) for column in summary.columns] == [
        ("a", "float64"),
        ("b", "float32"),
    ]
    assert np.array_equal(stored()[:, 0], x[:, 0])


def test_nulls_of_an_arrow_stream_are_missing(accept, stored):
    table = pa.table({"a": pa.array([1, None, 3], pa.int16()), "b": [1.0, 2.0, 4.0]})
    assert accept(arrow(table), ARROW, missing="drop").rows == 2
    assert stored().tolist() == [[1, 1], [3, 4]]


@pytest.mark.parametrize(
    "column",
    [
        pa.array([[1.0], [2.0]]),
        pa.array([{"a": 1.0}, {"a": 2.0}]),
        pa.array([b"1", b"2"]),
    ],
    ids=lambda column: str(column.type)[:20],
)
def test_arrow_columns_without_single_values_are_ignored(refuse, accept, column):
    data = arrow(pa.table({"x": [1.0, 2.0], "bad": column}))
    summary = accept(data, ARROW)
    assert [c.column.type for c in summary.columns] == ["integer", "ignored"]
    assert "lists, structures or bytes" in summary.columns[1].reason
    error = refuse(data, ARROW, types={"bad": "number"})
    assert (error.slug, error.column) == ("dataset-dtype", "bad")


@pytest.mark.parametrize(
    ("zone", "texts"),
    [
        ("Nowhere/Else", ["1970-01-01 00:00:00Z", "1970-01-01 00:00:05Z"]),
        ("+99:99", ["1970-01-01 00:00:00Z", "1970-01-01 00:00:05Z"]),
        ("Europe/Berlin", ["1970-01-01 01:00:00+0100", "1970-01-01 01:00:05+0100"]),
        (None, ["1970-01-01 00:00:00", "1970-01-01 00:00:05"]),
    ],
)
def test_times_in_a_zone_that_does_not_exist_are_in_utc(accept, tmp_path, zone, texts):
    times = pa.array([0, 5], pa.timestamp("s", zone))
    for column in (times, times.dictionary_encode()):
        data = arrow(pa.table({"x": [1.0, 2.0], "when": column}))
        accept(data, ARROW, types={"when": "ignored"})
        kept = pq.read_table(cells_path(tmp_path / "table.npy"))
        assert kept.columns[-1].to_pylist() == texts


def types_of(data: bytes) -> list[str]:
    """Names of the types of a stream; none if it is damaged."""
    try:
        return list(map(str, pa.ipc.open_stream(data).schema.types))
    except pa.ArrowInvalid:
        return []


@pytest.mark.parametrize(("unit", "kind"), [(0, "month_interval"), (1, "day_time_interval")])
def test_intervals_of_months_or_days_are_refused(refuse, unit, kind):
    data = arrow(pa.table({"x": [1.0, 2.0], "m": pa.nulls(2, pa.month_day_nano_interval())}))
    changed = [
        data[:at] + bytes([unit]) + data[at + 1 :] for at, byte in enumerate(data) if byte == 2
    ]
    error = refuse(next(data for data in changed if kind in types_of(data)), ARROW)
    assert (error.slug, error.column) == ("dataset-dtype", "m")


@pytest.mark.parametrize("compression", [None, "zstd", "lz4"])
def test_arrow_columns_of_every_type_are_typed(accept, stored, compression):
    table = pa.table(
        {
            "dictionary": pa.array(["u", None, "v", "u"]).dictionary_encode(),
            "text": ["b", "a", "b", None],
            "flag": [True, False, None, True],
            "day": pa.array([1, 2, 3, None], pa.date32()),
            "decimal": pa.array([1, 2, 3, None], pa.decimal128(9, 2)),
            "nothing": pa.nulls(4),
        }
    )
    summary = accept(arrow(table, compression=compression, rows=2), ARROW)
    assert [column.column.type for column in summary.columns] == [
        *("category", "category", "boolean", "datetime", "integer", "ignored")
    ]
    assert stored()[:, :3].tolist()[0] == [0.0, 0.0, 1.0]
    assert np.isnan(stored()).sum() == 5


def test_a_compressed_batch_may_not_unpack_to_more_than_it_needs(refuse):
    honest = arrow(pa.table({"a": np.zeros(1000)}), compression="zstd")
    size = (8000).to_bytes(8, "little")
    assert honest.count(size) == 1
    for lie in (8001 + 4096, 1 << 40, -2):
        data = honest.replace(size, lie.to_bytes(8, "little", signed=True))
        assert refuse(data, ARROW).slug in {"dataset-parse", "dataset-too-large"}


def test_a_bomb_is_refused_before_it_is_unpacked(refuse):
    bomb = arrow(pa.table({"a": np.zeros(40_000_000)}), compression="zstd")
    assert len(bomb) < 100_000
    started = time.monotonic()
    assert refuse(bomb, ARROW).slug == "dataset-too-large"
    assert time.monotonic() - started < 60


def test_a_batch_whose_length_lies_reads_nothing_beyond_its_buffers(refuse):
    honest = arrow(pa.table({"a": np.arange(1237.0)}))
    length = (1237).to_bytes(8, "little")
    for lie in (1238, 5000, 1 << 30):
        data = honest.replace(length, lie.to_bytes(8, "little"))
        assert refuse(data, ARROW).slug in {"dataset-parse", "limit-rows"}


def test_a_stream_without_its_end_or_with_more_after_it_is_refused(refuse):
    whole = arrow(pa.table({"a": [1.0, 2.0, 3.0]}))
    for data in (whole[:-8], whole + whole, whole + b"\0"):
        assert refuse(data, ARROW).slug == "dataset-parse"


def test_an_arrow_file_is_no_stream(refuse):
    buffer = io.BytesIO()
    table = pa.table({"a": [1.0, 2.0]})
    with pa.ipc.new_file(buffer, table.schema) as writer:
        writer.write_table(table)
    error = refuse(buffer.getvalue(), ARROW)
    assert error.slug == "media-type"
    assert "file" in error.detail


@pytest.mark.parametrize("data", [b"", b"\xff\xff\xff\xff\0\0\0\0"])
def test_an_arrow_stream_of_nothing_is_refused(refuse, data):
    assert refuse(data, ARROW).slug in {"dataset-empty", "dataset-parse"}


def test_an_arrow_stream_without_rows_is_empty(refuse):
    assert refuse(arrow(pa.table({"a": pa.array([], pa.float64())})), ARROW).slug == "dataset-empty"
