"""What is stored, what is said about it, and what a caller is warned of."""

import io
import os
import re
from pathlib import Path

import numpy as np
import pyarrow as pa  # type: ignore[import-untyped] # it ships no type information
import pytest
from numpy.typing import NDArray

from tabular.errors import TableError
from tabular.formats import TableFormat, TableSummary, WarningCode
from tabular.ingest.storing import parse_table
from tabular.source import rows_per_chunk
from tests.tables.files import Accept, arrow, npy, parquet


@pytest.fixture
def accept(accept: Accept) -> Accept:
    """As everywhere, with the format seen in the data: rows are stored as npy."""

    def parse(data: bytes | np.ndarray, **options: object) -> TableSummary:
        if not isinstance(data, bytes):
            return accept(npy(data), TableFormat.NPY, **options)
        starts = {b"PAR1": TableFormat.PARQUET, b"\xff\xff\xff\xff": TableFormat.ARROW}
        return accept(data, starts.get(data[:4], TableFormat.CSV), **options)

    return parse


def columns_parquet(**columns: object) -> bytes:
    return parquet(pa.table(columns))


def warned(summary: TableSummary, code: WarningCode) -> list[str | None]:
    return [w["column"] for w in summary.warnings if w["code"] == code]


def normal(rows: int, columns: int) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    return np.random.default_rng(0).normal(size=(rows, columns))


def moved(table: NDArray[np.float64], **cells: float) -> NDArray[np.float64]:
    """The table with other numbers: in the column of a name, plus what is said."""
    for name, plus in cells.items():
        table[:, int(name[1:]) - 1] += plus
    return table


RARE = normal(60, 2)


RARE[:, 0] = np.arange(60) == 7


RARE[3, 1] = -1e6


@pytest.mark.parametrize(
    ("data", "code", "columns"),
    [
        (b"1.5,2\n2.5,3\n3,7\n", "numeric_header", [None]),
        (b"a,2\n2.5,3\n3,7\n", "numeric_header", []),
        (b"a,2.5\n2.5,3\n3,7\n", "numeric_header", [None]),
        (normal(99, 2), "few_rows", [None]),
        (normal(100, 2), "few_rows", []),
        (normal(199, 20), "few_rows", [None]),
        (moved(normal(1000, 2), x1=1e6), "precision", ["x1"]),
        (RARE, "outlier", ["x2"]),  # a rare event is none
        (
            np.exp(4 * normal(2000, 2)),
            "outlier",
            [],
        ),  # far from the mean, and not of the logarithms
    ],
)
def test_a_warning_names_its_column(accept, data, code, columns):
    assert warned(accept(data), code) == columns
    assert accept(normal(1000, 5)).warnings == []


@pytest.mark.parametrize(
    ("data", "options", "told"),
    [
        (columns_parquet(a=pa.array([], pa.int8())), {}, "empty: The table has no rows"),
        (b"a,b\n1,2\n1,2\n", {"constant": "drop"}, "constant-column: Every column is constant"),
        (b"a,b,c\n1,2,3\n1,2,4\n", {"constant": "error"}, "constant-column: .*'a', 'b'. With c"),
        (b"a,b\n,1\n3,\n", {"missing": "drop"}, "empty: No row is left"),
        (b"a,b\n,1\n1,2\n", {"missing": "drop"}, "too-small: .* 1 row.* 1 of 2 rows were dropped"),
        (
            b'"a|b",c\n1,2\n3,5\n',
            {"exclude": ["a|b", "c"]},
            "shape: .* State the types of some by types=",
        ),
        (
            b'"a,b"\n"x,5"\n"y,2"\n' + b'"z,%d"\n' * 9 % (*range(9),),
            {},
            "shape: .*leave out the quotes",
        ),
    ],
)
def test_what_is_left_of_a_table_must_be_one(accept, data, options, told):
    with pytest.raises(TableError) as caught:
        accept(data, **options)
    assert re.match(f"dataset-{told}", f"{caught.value.slug}: {caught.value.detail}")


@pytest.mark.parametrize(
    ("bounds", "slug", "enough"),
    [
        ({"room": 2**20}, "quota-storage", {"room": 2**21}),
        ({"reserve": 10**18}, "storage-full", {"reserve": 1}),
    ],
)
def test_numbers_are_written_up_to_the_room_and_while_the_disk_has_as_much(
    accept, bounds, slug, enough
):
    table = normal(20_000, 10)
    with pytest.raises(TableError) as caught:
        accept(table, **bounds)
    assert caught.value.slug == slug
    assert accept(table, **enough).rows == 20_000


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the system has no full device")
def test_a_full_disk_and_a_source_that_is_not_there_are_not_the_files_fault(tmp_path):
    np.save(tmp_path / "upload.npy", normal(100_000, 2))
    full = tmp_path / "table.npy"
    full.symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space"):
        parse_table(tmp_path / "upload.npy", full, format=TableFormat.NPY)
    with pytest.raises(FileNotFoundError):
        parse_table(tmp_path / "none", full, format=TableFormat.CSV)


def test_a_csv_file_is_stored_row_by_row_with_its_statistics(accept, tmp_path):
    summary = accept(b"height,width,gaps\n1.5,2,1\n2.5,4,\n5,-1e1,4\n")
    stored = np.load(tmp_path / "table.npy", mmap_mode="r")
    assert stored[:, :2].tolist() == [[1.5, 2.0], [2.5, 4.0], [5.0, -10.0]]
    assert (summary.rows, summary.rows_dropped, summary.dtype) == (3, 0, "float64")
    height = summary.columns[0]
    assert (height.name, height.dtype, height.distinct) == ("height", "float64", 3)
    assert (height.mean, height.min, height.max) == (3.0, 1.5, 5.0)
    assert height.std == pytest.approx(np.std([1.5, 2.5, 5.0]))
    assert (summary.columns[2].mean, summary.columns[2].std) == (2.5, 1.5)


@pytest.mark.parametrize(
    ("newline", "end", "blank"), [(b"\n", True, 0), (b"\r\n", False, 2), (b"\r", True, 2)]
)
def test_any_line_end_and_blank_lines_are_read(accept, tmp_path, newline, end, blank):
    lines = [b" a , b", b" 1 ,2 ", b'"3",+4', b"-.5,5e0"]
    data = newline * blank + (newline * (1 + blank)).join(lines) + newline * end
    assert [c.name for c in accept(data).columns] == ["a", "b"]
    assert np.load(tmp_path / "table.npy").tolist() == [[1.0, 2.0], [3.0, 4.0], [-0.5, 5.0]]


def test_a_blank_line_in_a_file_of_one_column_is_a_missing_value(accept):
    data = b"a\n1.5\n\n2.5\n"
    with pytest.raises(TableError) as caught:
        accept(data, missing="error")
    assert (caught.value.slug, caught.value.row) == ("dataset-nonfinite", 2)
    assert accept(data, missing="drop").rows_dropped == 1


def test_a_wide_csv_is_the_same_table(accept, tmp_path):
    table = normal(700, 600).round(3)
    data = io.BytesIO()
    np.savetxt(data, table, delimiter=",", fmt="%.3f")
    accept(data.getvalue(), header=False)
    assert np.array_equal(np.load(tmp_path / "table.npy"), table)


def test_parquet_columns_of_mixed_types_become_float64(accept, tmp_path):
    summary = accept(
        columns_parquet(
            h=pa.array(np.asarray([0.5, 1.5, 2.0], np.float16)),
            f=pa.array([0.1, 0.2, 0.4], pa.float32()),
            d=pa.array([0.1, 0.2, 0.4]),
            i=pa.array([-1, 2, 4], pa.int8()),
            u=pa.array([1, 2, 2**64 - 1], pa.uint64()),
        )
    )
    assert [c.dtype for c in summary.columns] == ["float16", "float32", "float64", "int8", "uint64"]
    stored = np.load(tmp_path / "table.npy")
    assert stored.dtype == np.float64
    assert stored[:, 1].tolist() == [np.float32(0.1), np.float32(0.2), np.float32(0.4)]
    assert stored[2, 4] == 2.0**64


def test_parquet_columns_of_short_floats_stay_float32(accept, tmp_path):
    table = {"h": np.asarray([0.5, 1.5], np.float16), "f": np.asarray([0.1, 0.2], np.float32)}
    summary = accept(columns_parquet(**table))
    assert summary.dtype == "float32"
    assert summary.columns[1].column.decimals == 1  # of 0.1 as float32 has it
    assert np.load(tmp_path / "table.npy").dtype == np.float32


@pytest.mark.parametrize("kind", [pa.float32(), pa.float64(), pa.int64()], ids=str)
def test_parquet_nulls_are_missing_in_every_type(accept, tmp_path, kind):
    column = pa.array([1, None, 3, 5], pa.int64()).cast(pa.float32()).cast(kind)
    data = columns_parquet(a=pa.array([1.5, 2.5, 3.5, 7.0]), b=column)
    with pytest.raises(TableError) as caught:
        accept(data, missing="error")
    error = caught.value
    assert (error.slug, error.column, error.row) == ("dataset-nonfinite", "b", 2)
    kept = accept(data).columns[1]
    assert (kept.column.missing, kept.missing_count) == (True, 1)
    assert np.isnan(np.load(tmp_path / "table.npy")[1, 1])
    accept(data, missing="drop")
    assert np.load(tmp_path / "table.npy").tolist() == [[1.5, 1.0], [3.5, 3.0], [7.0, 5.0]]


@pytest.mark.parametrize(
    ("cells", "reason", "remedies"),
    [
        ([None] * 3, "Every cell is missing.", []),
        ([0.0, 1e-38, 2e-38], "It varies by less than 1e-37.", [{"b": "number"}]),
    ],
)
def test_numbers_that_tell_nothing_are_not_modelled(accept, cells, reason, remedies):
    summary = accept(columns_parquet(a=[1.5, 2.5, 4.5], b=pa.array(cells, pa.float64())))
    assert (summary.columns[1].column.type, summary.columns[1].reason) == ("ignored", reason)
    [told] = [one["remedies"] for one in summary.warnings if one["code"] == "ignored"]
    assert [one["value"] for one in told] == remedies


def test_parquet_of_many_row_groups_is_one_table(accept, tmp_path):
    table = normal(5000, 2)
    columns = pa.table({"a": table[:, 0], "b": table[:, 1]})
    accept(parquet(columns, row_group_size=77))
    assert np.array_equal(np.load(tmp_path / "table.npy"), table)


def test_what_is_no_value_is_counted_over_all_batches_of_a_file(accept):
    table = normal(100, 3)
    table[[9, 49], 0], table[10, 1], table[[11, 29, 79], 2] = -np.inf, 1e300, np.nan
    columns = dict(zip("abc", table.T, strict=True))
    data = arrow(pa.table(columns), rows=8)
    with pytest.raises(TableError) as caught:
        accept(data, missing="error")
    assert (caught.value.slug, caught.value.row) == ("dataset-nonfinite", 10)
    assert "Column 'a', row 10: the value is infinite" in caught.value.detail
    found = [(name, detail[:7], detail.split()[5]) for name, detail in caught.value.errors]
    assert found == [
        ("a", "Row 10:", "infinite,"),
        ("b", "Row 11:", "larger"),
        ("c", "Row 12:", "missing."),
    ]
    with pytest.raises(TableError) as caught:
        accept(arrow(pa.table(columns).slice(10), rows=8), missing="error")
    assert (caught.value.slug, caught.value.row) == ("dataset-range", 1)
    kept, left = accept(data, missing="keep"), accept(data, missing="drop")
    assert (kept.rows, left.rows) == (100, 94)
    for summary in (kept, left):
        told = [one for one in summary.warnings if one["code"] == "nonfinite"]
        assert [one["column"] for one in told] == ["a", "b"]
        assert [one["detail"].split()[0] for one in told] == ["2", "1"]
        assert [one["detail"].split()[-1] for one in told] == ["10.", "11."]
    (dropped,) = (one for one in left.warnings if one["code"] == "missing")
    assert "6 of 100 rows were dropped" in dropped["detail"]
    assert dropped["detail"].endswith("row 10. Most are missing in 'c' (3), 'a' (2), 'b' (1).")
    (remedy,) = dropped["remedies"]
    assert (remedy["option"], remedy["value"]) == ("missing", "keep")


@pytest.mark.parametrize(("order", "dtype", "bits"), [("C", "u2", 0x7C01), ("F", "u4", 0x7F800001)])
def test_a_signalling_not_a_number_is_missing(accept, order, dtype, bits):
    floats = dtype.replace("u", "f")
    table = np.arange(1, 9, dtype=floats).reshape(4, 2) ** 2
    table.view(dtype)[1, 1] = bits
    assert accept(np.asarray(table, order=order), missing="drop").rows_dropped == 1
    columns = {"a": table[:, 0].copy(), "b": table[:, 1].copy()}
    assert accept(columns_parquet(**columns), missing="drop").rows_dropped == 1


@pytest.mark.parametrize("version", [(2, 0), (3, 0)])
def test_every_version_of_npy_is_read(tmp_path, version):
    with (tmp_path / "upload").open("wb") as file:
        np.lib.format.write_array(file, normal(5, 2), version=version)
    summary = parse_table(tmp_path / "upload", tmp_path / "table.npy", format=TableFormat.NPY)
    assert summary.rows == 5


def test_dropping_constant_columns_of_a_long_table_moves_every_row(accept, tmp_path):
    table = normal(300_000, 4)
    table[:, [0, 2]] = 7.0
    summary = accept(table, constant="drop")
    assert [c.name for c in summary.columns if c.column.type != "ignored"] == ["x2", "x4"]
    assert np.array_equal(np.load(tmp_path / "table.npy"), table[:, [1, 3]])
    assert summary.bytes == 128 + 300_000 * 16


def test_distinct_values_are_exact_up_to_a_thousand_and_then_null(accept):
    values = np.random.default_rng(0).permutation(np.arange(200_000))
    table = np.column_stack([values % 1000, values % 1001, values % 7 / 8])
    assert [c.distinct for c in accept(table).columns] == [1000, None, 7]


def test_a_running_row_number_is_a_warning(accept):
    table = normal(300_000, 2)
    table[:, 0] = np.arange(300_000)
    assert warned(accept(table), "row_number") == ["x1"]
    table[200_000, 0] = 1.0
    assert warned(accept(table), "row_number") == []
    table[:, 0] = np.arange(300_000) % rows_per_chunk(2)
    assert warned(accept(table), "row_number") == []


def test_a_point_mass_at_an_extreme_is_a_spike(accept):
    table = normal(200_000, 3)
    table[:, 0] = np.maximum(table[:, 0], 0.0)
    table[:, 1] = np.minimum(table[:, 1], 1.0)
    summary = accept(table)
    assert [column.column.spikes for column in summary.columns] == [(0.0,), (1.0,), ()]
    assert summary.columns[0].spike_counts[0] == pytest.approx(100_000, rel=0.02)
    assert summary.warnings == []


@pytest.mark.parametrize(("first", "power"), [(2**53, 2), (2**62, 2), (2**60, 1)])
def test_whole_numbers_beyond_float64_are_a_warning(accept, first, power):
    """Also where rounding leaves so few values that they seem to be levels."""
    a, b = first + np.arange(200) ** power, np.arange(200.0) ** 1.5
    text = "a,b\n" + "".join(f"{x},{y}\n" for x, y in zip(a, b, strict=True))
    for table in (columns_parquet(a=a, b=b), text.encode()):
        summary = accept(table)
        assert warned(summary, "precision") == ["a"]
        assert "2^53" in next(w["detail"] for w in summary.warnings if w["code"] == "precision")


def test_dependence_on_several_columns_names_them(accept):
    table = normal(500, 5)
    table[:, 4] = table[:, 0] - 3 * table[:, 2] + 1e3
    [warning] = [w for w in accept(table).warnings if w["code"] == "collinear"]
    assert warning["column"] == "x5"
    assert "'x1', 'x3'" in warning["detail"]


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_dependence_is_seen_at_every_scale_and_strong_correlation_is_not_it(accept, scale):
    table = normal(500, 3) * [1.0, scale, 1.0]
    table[:, 2] = table[:, 1] / scale + 1e-3 * table[:, 0]
    assert warned(accept(table[:, :3]), "collinear") == ["x3"]
    table[:, 2] += 1e-2 * normal(1000, 1)[500:, 0]
    assert warned(accept(table[:, :3]), "collinear") == []


def test_the_warnings_of_one_code_are_capped_with_their_number(accept):
    table = np.zeros((600, 300)) + np.arange(300)
    constant = warned(accept(np.column_stack([table, normal(600, 1)])), "constant")
    assert constant == [*(f"x{i}" for i in range(1, 51)), None]


@pytest.mark.parametrize(
    ("bounds", "slug"),
    [({"max_bytes": 2**20}, "dataset-too-large"), ({"room": 2**20}, "quota-storage")],
)
def test_cells_that_are_kept_are_written_up_to_the_bound(accept, tmp_path, bounds, slug):
    texts = [np.random.default_rng(k).bytes(25_000).hex() for k in range(400)]
    body = columns_parquet(a=normal(400, 1)[:, 0], t=texts)
    with pytest.raises(TableError) as caught:
        accept(body, types={"t": "ignored"}, **bounds)
    assert caught.value.slug == slug
    assert [file.name for file in tmp_path.iterdir() if file.name.startswith("table")] == []
    assert accept(body, types={"t": "ignored"}, max_bytes=2**25, room=2**25).rows == 400


@pytest.mark.parametrize("reserve", [2**20, 0])
def test_a_full_disk_refuses_a_table_only_where_some_of_it_is_to_stay_free(
    accept, monkeypatch, reserve
):
    look = os.statvfs
    full = os.statvfs_result([*look("/")[:2], 0, 0, 0, *look("/")[5:]])
    monkeypatch.setattr(os, "statvfs", lambda _folder: full)
    table = normal(20_000, 10)
    if not reserve:
        assert accept(table, reserve=reserve).rows == 20_000
        return
    with pytest.raises(TableError) as caught:
        accept(table, reserve=reserve)
    assert caught.value.slug == "storage-full"
