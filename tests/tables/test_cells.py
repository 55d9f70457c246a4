"""Cells to numbers and back: what is encoded and decoded is the same cell."""

import math
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa  # type: ignore[import-untyped] # it ships no type information
import pyarrow.parquet as pq  # type: ignore[import-untyped] # as above
import pytest
from hypothesis import given, strategies as st

from tabular.cells import decode_cells, encode_cells, recode, try_encode
from tabular.columns import OTHER, UNSEEN, Column, ColumnType
from tabular.dates import parse_dates
from tabular.errors import TableError
from tabular.formats import ParseOptions, TableFormat, TableSummary
from tabular.ingest.retype import StoredFiles, retype_table
from tabular.kept_cells import CellsWriter, KeptCells
from tabular.rows import read_rows
from tabular.typed_rows import TypedRows, encode_rows
from tests.tables.files import Accept, arrow, parquet

NUMBER = Column(name="a")
DIGITS = Column(name="a", type="datetime", datetime_format="%Y%m%d")
SIZES = Column(name="a", type="category", levels=("M", "S", "L"))
RATINGS = Column(name="a", type="integer", levels=(1, 2, 5))
CODES = Column(name="a", type="category", levels=("01", "1", "7"))


NEGATIVE = Column(name="a", type="category", levels=(-1, 7))


RARE = Column(name="a", type="category", levels=("M", "S"), other=True)


@pytest.mark.parametrize(
    ("column", "cells", "numbers"),
    [
        (NUMBER, ["1", " 2.5 ", "-1e3", ".5", "+4."], [1.0, 2.5, -1000.0, 0.5, 4.0]),
        (NUMBER, ["", " ", "NA", "nan", "?", None], [None] * 6),
        (NUMBER, ["<null>", "(null)", "[NULL]", "<NA>", "1"], [None] * 4 + [1.0]),
        (NUMBER, [1, None, 3], [1.0, None, 3.0]),
        (NUMBER, [1.5, math.nan], [1.5, None]),
        (NUMBER, [True, False], [1.0, 0.0]),
        (NUMBER, [timedelta(minutes=1)], [60.0]),
        (DIGITS, [19700102, None, 19700103.0], [86_400.0, None, 172_800.0]),
        (NUMBER, [None, None], [None, None]),
        *(
            (Column(name="a", na_values=("-999",)), cells, [None, 1.0])
            for cells in (["-999", "1"], [-999, 1], [-999.0, 1.0])
        ),
        (SIZES, ["S", " L ", "XL", "", None], [1.0, 2.0, UNSEEN, None, None]),
        (SIZES, ["\u200bS", "\u00a0L\ufeff"], [1.0, 2.0]),
        (SIZES, [None, None], [None, None]),
        (CODES, ["01", "1", "07"], [0.0, 1.0, 2.0]),
        (CODES, [7, 1], [2.0, UNSEEN]),  # two levels are one
        (RATINGS, ["1", "2.0", " 5", "3"], [1.0, 2.0, 5.0, 3.0]),
        (RATINGS, [5, 1, 3, None], [5.0, 1.0, 3.0, None]),
        (NEGATIVE, ["7", "-1", "x", "8", ""], [7.0, -1.0, -2.0, 8.0, None]),
        (NEGATIVE, [7, 8], [7.0, 8.0]),
        (RARE, ["S", "XL", OTHER, None], [1.0, 2.0, 2.0, None]),
        (Column(name="a", type="category", levels=("None",)), ["None", "NA"], [0.0, None]),
    ],
)
def test_cells_are_the_numbers_of_their_column(column, cells, numbers):
    assert encode(cells, column) == numbers


@pytest.mark.parametrize(
    ("column", "numbers", "cells"),
    [
        (NEGATIVE, [7.0, -1.0, math.nan], [7, -1, None]),
        (RARE, [0.0, 2.0], ["M", OTHER]),
        (SIZES, [UNSEEN, 3.0, math.nan, math.inf], [None] * 4),
        (
            Column(name="a", type="datetime", decimals=0, step_s=900),
            [1449.0, 1351.0, math.nan],
            ["1970-01-01T00:30:00Z"] * 2 + [None],
        ),
        (Column(name="a", type="integer"), [1.4, -0.2, math.nan, 1e30], [1, 0, None, 2**63 - 1024]),
        (NUMBER, [-0.0], [0.0]),
        (
            Column(name="a", decimals=2),
            [0.2899999999999938, -0.0, -0.001, 1e300, math.nan],
            [0.29, 0.0, 0.0, 1e300, None],
        ),
    ],
)
def test_numbers_are_the_cells_of_their_column(column, numbers, cells):
    found = decode_cells(np.array(numbers), column)
    assert found.to_pylist() == cells
    assert "-0.0" not in map(str, found.to_pylist())


def encode(cells: list[Any], column: Column, kind: pa.DataType | None = None) -> list[float | None]:
    numbers = encode_cells(pa.array(cells, kind), column)
    return [None if math.isnan(number) else number for number in numbers]


@pytest.mark.parametrize(
    "column",
    [
        Column(name="a", type="integer"),
        Column(name="a", levels=(9.2233720368547748e18, 9.2233720368547758e18)),
    ],
)
def test_cells_have_the_type_of_their_column_however_large_they_are(column: Column) -> None:
    """So that a sample beyond all bounds can be written as the others are."""
    nothing = decode_cells(np.empty(0), column)
    found = decode_cells(np.array([3.0, np.nan, 9.2e18, -1e300, 9.2233720368547758e18]), column)
    assert found.type == nothing.type
    assert [cell is None for cell in found.to_pylist()] == [False, True, False, False, False]


@pytest.mark.parametrize(
    ("column", "text"),
    [
        *((NUMBER, text) for text in ("12x", "1,5", "0x10", "1_000", "1 2", "--1", "e5", ".")),
        (RATINGS, "x"),
    ],
)
def test_a_text_that_is_no_number_is_named(column: Column, text: str) -> None:
    for cells in (pa.array(["1", text]), pa.array(["1", text]).dictionary_encode()):
        with pytest.raises(TableError, match="'a', row 2: the value is not a number") as caught:
            encode_cells(cells, column)
        error = caught.value
        assert (error.slug, error.column, error.row) == ("dataset-dtype", "a", 2)


def test_separators_are_those_of_the_column() -> None:
    column = Column(name="a", decimal=",", thousands=".")
    assert encode(["1.234.567,5", "12,5", "1000", "-,5"], column) == [1234567.5, 12.5, 1000.0, -0.5]
    _, bad = try_encode(pa.array(["1.5", "12.34,5", "1,2,3"]), column)
    assert bad.all()


@pytest.mark.parametrize(
    "levels", [("yes", "no"), ("FALSE", "True"), (0, 1), (False, True), ("N", "Y"), ("f", "t")]
)
def test_booleans_match_every_spelling_of_theirs(levels: tuple[Any, ...]) -> None:
    column = Column(name="a", type="boolean", levels=levels)
    true = 0.0 if levels == ("yes", "no") else 1.0
    for spelling in ("true", "YES", "t", "Y", "1", "1.0", True, 1, 1.0):
        assert encode([spelling], column) == [true]
    for spelling in ("False", "no", "F", "n", "0", "0.0", False, 0, 0.0):
        assert encode([spelling], column) == [1 - true]
    assert encode(["maybe", "2", ""], column) == [UNSEEN, UNSEEN, None]
    assert decode_cells(np.array([0.0, 1.0]), column).to_pylist() == list(levels)


def test_dates_of_any_spelling_are_seconds() -> None:
    column = Column(name="a", type="datetime")
    seconds = datetime(2021, 3, 4, 5, 6, tzinfo=UTC).timestamp()
    same = ["2021-03-04T05:06Z", "2021-03-04 05:06:00", "2021-03-04T07:06:00.0+02:00"]
    same += ["2021-03-04T10:36+05:30", "2021-03-04T01:36-0330"]
    numbers, bad = try_encode(pa.array([*same, "2021-03-04T0506"]), column)
    assert numbers[:-1].tolist() == [seconds] * len(same)
    assert bad.tolist() == [False] * len(same) + [True]
    zone = timezone(timedelta(hours=2))
    assert encode([datetime(2021, 3, 4, 7, 6, tzinfo=zone)], column) == [seconds]
    assert encode([date(2021, 3, 4), None], column) == [seconds - 5 * 3600 - 360, None]


def test_dates_are_read_and_written_in_the_format_of_the_column() -> None:
    column = Column(name="a", type="datetime", datetime_format="%d/%m/%Y", date_only=True)
    numbers = encode_cells(pa.array(["04/03/2021", "2021-03-04", None]), column)
    assert decode_cells(numbers, column).to_pylist() == ["04/03/2021", "04/03/2021", None]
    with pytest.raises(TableError, match="not a date in the format %d/%m/%Y"):
        encode_rows([["30/02/2021"]], [column])
    month = replace(column, datetime_format="%Y-%m")
    near = encode_cells(pa.array(["2021-03"]), month) + np.array([-9.0, 9.0]) * 86_400
    assert decode_cells(near, month).to_pylist() == ["2021-03"] * 2


def test_dictionaries_are_encoded_by_their_values() -> None:
    cells = pa.array(["S", None, "L", "S"]).dictionary_encode()
    assert np.array_equal(encode_cells(cells, SIZES), [1.0, np.nan, 2.0, 1.0], equal_nan=True)


@pytest.mark.parametrize("cells", [[[1]], [{"a": 1}], [b"1"]])
def test_cells_without_single_values_are_refused(cells: list[Any]) -> None:
    with pytest.raises(TableError, match="not single values"):
        encode_cells(pa.array(cells), SIZES)


def test_rows_take_the_levels_of_another_table() -> None:
    source = [replace(SIZES, name="size"), replace(RATINGS, name="rating"), NUMBER]
    source.append(Column(name="extra"))
    target = [
        Column(name="rating", type="category", levels=("5", "1")),
        Column(name="size", type="category", levels=("S", "M")),
        Column(name="a", type="integer", levels=(3, 4)),
    ]
    rows = [[0, 2, 3.0, 9], [1, 1, 4.5, 9], [2, np.nan, np.nan, 9], [UNSEEN, 5, 4, 9]]
    expected = [[UNSEEN, 1, 3], [1, 0, 4.5], [np.nan, UNSEEN, np.nan], [0, UNSEEN, 4]]
    assert np.array_equal(recode(np.array(rows), source, target), expected, equal_nan=True)


FORMS = ("%Y-%m-%d %H:%M:%S", "%d/%m/%Y %H:%M:%S", "%m/%d/%Y %I:%M:%S %p", "%d %B %Y %H:%M:%S%z")


@pytest.mark.parametrize("kind", ["number", "integer"])
def test_dates_are_no_numbers_of_another_table(kind: ColumnType) -> None:
    number, date = Column(name="a", type=kind), Column(name="a", type="datetime")
    for source, target in ((number, date), (date, number)):
        with pytest.raises(TableError, match="dates in one table"):
            recode(np.array([[20210403.0]]), [source], [target])
        assert recode(np.array([[1.0]]), [source], [source]) == 1.0


LEVEL_TEXT = st.text(st.characters(exclude_categories=["Cs", "Cc", "Zs", "Zl", "Zp"]), min_size=1)


@given(st.lists(LEVEL_TEXT, min_size=1, max_size=20, unique=True), st.data())
def test_levels_come_back(levels: list[str], data: st.DataObject) -> None:
    column = Column(name="a", type="category", levels=tuple(levels))
    cells = data.draw(st.lists(st.sampled_from([*levels, None]), min_size=1))
    if any(cell is not None and not cell.strip() for cell in cells):
        return
    numbers = encode_cells(pa.array(cells, pa.string()), column)
    assert decode_cells(numbers, column).to_pylist() == cells


@given(st.lists(st.one_of(st.none(), st.floats(allow_nan=False, allow_infinity=False)), min_size=1))
def test_numbers_come_back_from_text_and_arrow(cells: list[float | None]) -> None:
    texts = pa.array([None if cell is None else repr(cell) for cell in cells], pa.string())
    for array in (texts, pa.array(cells, pa.float64())):
        assert decode_cells(encode_cells(array, NUMBER), NUMBER).to_pylist() == cells


@given(
    st.lists(st.none() | st.datetimes(timezones=st.just(UTC)), min_size=1),
    st.sampled_from([None, *FORMS]),
)
def test_dates_come_back_in_every_format(cells: list[datetime | None], form: str | None) -> None:
    column = Column(name="a", type="datetime", datetime_format=form)
    written = form or "%Y-%m-%dT%H:%M:%SZ"
    texts = [cell and cell.strftime(written.replace("%Y", f"{cell.year:04}")) for cell in cells]
    numbers = encode_cells(pa.array(texts, pa.string()), column)
    whole = [cell and cell.replace(microsecond=0).timestamp() for cell in cells]
    assert [None if math.isnan(number) else number for number in numbers] == whole
    assert decode_cells(numbers, column).to_pylist() == texts


@given(
    st.lists(st.datetimes(), min_size=1),
    st.sampled_from([None, "%Y-%m-%d", "%d.%m.%y %H:%M", "%Y%m%d", "%H:%M:%S.%f"]),
    st.data(),
)
def test_dates_of_one_shape_are_read_as_others_are(cells, form, data):
    cells = [cell.replace(year=2000 + cell.year % 60) for cell in cells]
    texts = [cell.strftime(form or "%Y-%m-%dT%H:%M:%S.%fZ") for cell in cells]
    place = data.draw(st.integers(0, len(texts) - 1))
    text, digit = texts[place], data.draw(st.integers(0, len(texts[place]) - 1))
    texts[place] = text[:digit] + data.draw(st.sampled_from("09-x")) + text[digit + 1 :]
    shaped, others = parse_dates(pa.array(texts), form), parse_dates(pa.array([*texts, "?"]), form)
    assert np.array_equal(shaped, others[:-1], equal_nan=True)


START = datetime(1970, 1, 1, tzinfo=UTC)


@given(st.lists(st.integers(0, 2 * 10**15), min_size=1))
def test_moments_are_written_to_the_nearest_of_their_decimals(ticks: list[int]) -> None:
    column = Column(name="a", type="datetime", decimals=6)
    moments = [START + timedelta(microseconds=tick) for tick in ticks]
    texts = [f"{moment:%Y-%m-%dT%H:%M:%S.%fZ}" for moment in moments]
    assert decode_cells(np.array(ticks) / 1e6, column).to_pylist() == texts


@given(st.lists(st.integers(-(10**12), 10**12), min_size=1), st.integers(0, 6))
def test_decimals_come_back(steps: list[int], decimals: int) -> None:
    values = np.array(steps) / 10**decimals
    column = Column(name="a", decimals=decimals)
    noisy = values * (1 + 1e-16)
    assert decode_cells(noisy, column).to_pylist() == (values + 0.0).tolist()


def test_a_column_is_the_same_as_json() -> None:
    column = Column(name="a", levels=("x",), spikes=(0.0,), na_values=("-",), decimal=",")
    assert Column.from_dict(column.to_dict() | {"mean": 1.0}) == column
    for former in ({"dtype": "float64"}, {"unit": "K|M|B|T"}, {"datetime_format": "%q %Y"}):
        assert Column.from_dict({"name": "a", **former}) == Column(name="a")
    days = Column.from_dict({"name": "a", "datetime_format": "%-d/%-m/%Y"})
    assert days.datetime_format == "%d/%m/%Y"


@pytest.mark.parametrize("unit", ["ms", "us", "ns"])
def test_a_time_of_any_unit_is_that_of_its_text(unit):
    when = datetime(2024, 2, 29, 12, 30, 15, 250_000)  # noqa: DTZ001  without a zone, as the text
    cells = pa.array([when, None, datetime(1969, 12, 31, 23, 59, 59, 900_000)], pa.timestamp(unit))  # noqa: DTZ001
    texts = pa.array(["2024-02-29T12:30:15.25", None])
    column = Column(name="d", type="datetime", missing=True)
    numbers = encode_cells(cells, column)
    assert numbers[:2].tolist()[0] == encode_cells(texts, column)[0] == 1_709_209_815.25
    assert numbers[2] == -0.1


ROWS = [
    [f"town {i % 40}", f"{i % 28 + 1:02}/03/2021", f"${i + 1}.50", str(i), f"note {i}", "xy"[i % 2]]
    for i in range(300)
]
NAMES = ["town", "day", "price", "count", "note", "kind"]
CSV = "\n".join([",".join(NAMES), *(",".join(row) for row in ROWS)]).encode()


@pytest.fixture
def cells(tmp_path: Path) -> Callable[[TableSummary, range], list[dict[str, Any]]]:
    """Rows of the table that was stored last."""

    def read(summary: TableSummary, rows: range) -> list[dict[str, Any]]:
        columns = [column.column for column in summary.columns]
        values = np.load(tmp_path / "table.npy")[rows.start : rows.stop : rows.step]
        kept = KeptCells(tmp_path / "table.parquet" if summary.cells else None, columns)
        found: list[dict[str, Any]] = kept.fill(TypedRows(columns).batch(values), rows).to_pylist()
        return found

    return read


def test_rare_texts_are_one_level_of_the_model_and_stay_as_they_are_in_the_rows(accept, cells):
    summary = accept(CSV, max_levels=3)
    town = summary.columns[0].column
    assert (len(town.levels), town.other) == (3, True)
    found = cells(summary, range(300))
    assert [row["town"] for row in found] == [row[0] for row in ROWS]
    assert [row["day"] for row in found] == [row[1] for row in ROWS]
    assert [row["note"] for row in found] == [row[4] for row in ROWS]
    assert found[7]["price"] == 8.5
    assert cells(summary, range(5, 300, 97)) == found[5:300:97]


def test_cells_are_read_across_row_groups(tmp_path: Path) -> None:
    texts = [f"{'x' * 5000}{i}" for i in range(5000)]
    path = tmp_path / "cells.parquet"
    with CellsWriter(path, [pa.string()]) as writer:
        for start in range(0, 5000, 700):
            some = pa.array(texts[start : start + 700])
            writer.write(pa.record_batch([some], names=["0"]))
    assert pq.read_metadata(path).num_row_groups > 1
    column = Column(name="a", type="ignored")
    kept = KeptCells(path, [column])
    rows = range(10, 4990, 83)
    batch = pa.record_batch([pa.nulls(len(rows), pa.string())], names=["a"])
    assert kept.fill(batch, rows).column(0).to_pylist() == texts[10:4990:83]
    assert [i for piece in kept.pieces(rows) for i in piece] == list(rows)
    first = pq.read_metadata(path).row_group(0).num_rows
    pieces = kept.pieces(range(first + 1))
    assert [next(pieces), next(pieces)] == [range(first), range(first, first + 1)]


def test_rows_that_are_dropped_have_no_cells(accept: Accept, cells: Any) -> None:
    data = "a,b\n" + "".join(f"{'' if i % 5 == 0 else f'{i}.5'},t{i % 3}\n" for i in range(50))
    summary = accept(data.encode(), missing="drop")
    assert (summary.rows, summary.rows_dropped) == (40, 10)
    expected = [{"a": i + 0.5, "b": f"t{i % 3}"} for i in range(50) if i % 5]
    assert cells(summary, range(40)) == expected
    numbers = parquet(pa.table({"a": [1, 2, 4], "b": ["x", "1", "y"]}))
    assert accept(numbers, TableFormat.PARQUET, drop_rows=["1"]).rows == 2


def test_a_table_of_floats_is_its_own_cells_until_a_column_is_not_modelled(accept, cells, tmp_path):
    np.save(tmp_path / "upload.npy", np.arange(20.0).reshape(10, 2) ** 2)
    summary = accept((tmp_path / "upload.npy").read_bytes(), TableFormat.NPY)
    assert (summary.cells, (tmp_path / "table.parquet").exists()) == (False, False)
    changed = retyped(tmp_path, summary, None, x1="ignored")
    assert [column.column.type for column in changed.columns] == ["ignored", "integer"]
    assert [float(row["x1"]) for row in cells(changed, range(10))] == [
        4.0 * i * i for i in range(10)
    ]


def retyped(
    tmp_path: Path, summary: TableSummary, cells: Path | None, **types: Any
) -> TableSummary:
    stored = StoredFiles(
        table=tmp_path / "table.npy",
        cells=cells,
        columns=[column.to_dict() for column in summary.columns],
        warnings=summary.warnings,
    )
    again = retype_table(stored, tmp_path / "again.npy", types, ParseOptions())
    (tmp_path / "again.npy").replace(tmp_path / "table.npy")
    (tmp_path / "again.parquet").replace(tmp_path / "table.parquet")
    return again


def test_the_row_of_a_cell_that_does_not_fit_counts_from_the_start_of_the_file() -> None:
    cells = [f"{row},5" for row in range(20)] + ["x"]
    column = Column(name="a", decimal=",")
    with pytest.raises(TableError, match="row 21") as caught:
        read_rows(
            arrow(pa.table({"a": cells}), rows=8), TableFormat.ARROW, ParseOptions(), [column]
        )
    assert caught.value.row == 21


def test_types_change_and_change_back_without_loss(accept, cells, tmp_path):
    first = accept(CSV)
    before = cells(first, range(300))
    beside = tmp_path / "table.parquet"
    changed = retyped(tmp_path, first, beside, price="category", town="ignored", note="category")
    types = {column.name: column.column.type for column in changed.columns}
    assert (types["price"], types["town"], types["note"]) == ("category", "ignored", "category")
    assert cells(changed, range(300))[0]["price"] == "$1.50"
    back = retyped(tmp_path, changed, beside, price="number", town="category", note="ignored")
    assert back.sha256 == first.sha256
    assert cells(back, range(300)) == before


def test_tables_of_former_versions_which_kept_some_cells_are_read_and_retyped(
    accept, cells, tmp_path
):
    first = accept(CSV, max_levels=3)
    whole = pq.read_table(tmp_path / "table.parquet")
    pq.write_table(whole.select(["4"]), tmp_path / "old.parquet")  # the ignored column alone
    columns = [column.column for column in first.columns]
    values = np.load(tmp_path / "table.npy")
    kept = KeptCells(tmp_path / "old.parquet", columns)
    row = kept.fill(TypedRows(columns).batch(values), range(300)).to_pylist()[9]
    assert (row["note"], row["town"], row["price"]) == ("note 9", "*other*", 10.5)
    again = retyped(tmp_path, first, tmp_path / "old.parquet", note="category", price="ignored")
    assert again.rows == 300
    assert cells(again, range(300))[9]["note"] == "note 9"
