"""Tables of columns that nobody has seen: whatever their values, they are refused or their summary is true."""

import csv
import io
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import get_args

import numpy as np
import pyarrow as pa  # type: ignore[import-untyped] # it ships no type information
from hypothesis import given, settings, strategies as st
from numpy.typing import NDArray

from tabular.cells import decode_cells, encode_cells
from tabular.columns import ColumnType
from tabular.errors import TableError
from tabular.formats import ParseOptions, TableFormat, TableSummary
from tabular.ingest.preview import preview_table
from tabular.ingest.retype import StoredFiles, retype_table
from tabular.ingest.storing import cells_path, parse_table
from tests.tables.files import arrow, check_summary, npy

Values = NDArray[np.float64]
Make = Callable[[np.random.Generator, int], Values]

SHAPES: dict[str, Make] = {
    "normal": lambda random, n: random.normal(size=n),
    "uniform": lambda random, n: random.random(n),
    "long tail": lambda random, n: np.exp(random.normal(size=n) * random.choice([0.1, 1, 5, 20])),
    "tails on both sides": lambda random, n: random.standard_cauchy(n),
    "whole": lambda random, n: random.integers(0, 10 ** int(random.integers(1, 7)), n).astype(float),
    "whole with a tail": lambda random, n: np.minimum(random.zipf(1.3, n), 2**60).astype(float),
    "counts": lambda random, n: random.poisson(random.choice([0.1, 3, 50]), n).astype(float),
    "few distinct": lambda random, n: random.choice(random.normal(size=random.integers(1, 16)), n),
    "many distinct": lambda random, n: random.choice(random.normal(size=random.integers(16, 1500)), n),
    "clustered": lambda random, n: (
        random.choice(random.normal(size=3), n)
        + random.normal(size=n) * 10.0 ** -random.integers(1, 18)
    ),
    "constant": lambda random, n: np.full(n, random.normal()),
    "running": lambda random, n: np.arange(n) * random.choice([1, 0.1, 1 / 3, 4.5, -1, 1e-5]),
    "of all sizes": lambda random, n: random.integers(-5, 5, n) * 10.0 ** random.integers(-30, 30, n),
}  # fmt: skip
CHANGES: dict[str, Make] = {
    "as it is": lambda _, n: np.stack([np.ones(n), np.zeros(n)]),
    "scaled": lambda random, n: np.stack([np.full(n, 10.0 ** random.integers(-45, 37)), np.zeros(n)]),
    "tiny": lambda random, n: np.stack([np.full(n, random.choice([5e-324, 1e-310, 1e-38])), np.zeros(n)]),
    "far from zero": lambda random, n: np.stack([np.ones(n), np.full(n, 10.0 ** random.integers(0, 20))]),
}  # fmt: skip
SPIKES = (0.0, -0.0, 1.0, -999.0, 2.5, 1e36, -1e37, 1e-300, np.nan, np.inf, -np.inf, 1e300)
SHARES = (0.001, 0.05, 0.5, 0.9, 0.97, 1.0)


@st.composite
def column(draw: st.DrawFn, random: np.random.Generator, rows: int) -> Values:
    """Draws a column of one shape, with spikes, gaps and repeated values."""
    with np.errstate(all="ignore"):
        factor, shift = CHANGES[draw(st.sampled_from(sorted(CHANGES)))](random, rows)
        values = SHAPES[draw(st.sampled_from(sorted(SHAPES)))](random, rows) * factor + shift
        decimals = draw(st.none() | st.integers(0, 5))
        if decimals is not None:
            values = np.round(values, decimals)
        for _ in range(draw(st.integers(0, 3))):
            spike = draw(st.sampled_from([*SPIKES, float(values[0])]))
            values = np.where(random.random(rows) < draw(st.sampled_from(SHARES)), spike, values)
        if draw(st.booleans()):
            values = np.repeat(values, 10)[:rows]
        short = draw(st.sampled_from([np.float64, np.float64, np.float32]))
        rounded: Values = values.astype(short).astype(np.float64)
    return rounded


def number_text(values: Values, style: str) -> list[str]:
    """Cells of a column of numbers in one of the styles in which people write them."""
    values = np.nan_to_num(np.clip(values, -1e14, 1e14))
    match style:
        case "thousands":
            return [f"{value:,.2f}" for value in values]
        case "decimal comma":
            return [f"{value:,.2f}".translate(str.maketrans(",.", ".,")) for value in values]
        case "money":
            return [f"${value:.2f}" for value in values]
        case "unit":
            return [f"{value:.1f} kg" for value in values]
        case _:
            return [f"{value:.3g}" for value in values]


FORMS = ("%Y-%m-%d", "%d.%m.%Y", "%d/%m/%y", "%Y%m%d", "%H:%M", "%Y-%m-%d %H:%M:%S.%f", "%b %d, %Y")  # fmt: skip
WORDS = ("a", "b", "A", "a ", "yes", "no", "Total", "x" * 130, "größer", "1", "0", "TRUE", "-")
NUMBER_WORDS = ("inf", "-inf", "nan", "1.5", "1e400", "Infinity", "-Infinity", "1e-400", "0", "2")
GAPS = ("", "NA", "nan", "-", "inf", "oops", "1e400", "9999-12-31", "?", "total")
STYLES = ("plain", "thousands", "decimal comma", "money", "unit")


@st.composite
def texts(draw: st.DrawFn, random: np.random.Generator, rows: int) -> list[str]:
    """Draws the cells of a column of a CSV file: numbers, dates, words, codes, anything."""
    match draw(
        st.sampled_from(["exact", "styled", "dates", "words", "odd numbers", "codes", "any"])
    ):
        case "exact":
            cells = list(map(repr, draw(column(random, rows)).tolist()))
        case "styled":
            cells = number_text(draw(column(random, rows)), draw(st.sampled_from(STYLES)))
        case "dates":
            form = draw(st.sampled_from(FORMS))
            seconds = random.integers(0, draw(st.sampled_from([100, 10**6, 10**9])), rows).tolist()
            start = datetime(2000, 1, 1, tzinfo=UTC)
            cells = [(start + timedelta(seconds=second)).strftime(form) for second in seconds]
        case "words":
            cells = random.choice(WORDS, rows).tolist()
        case "odd numbers":
            cells = random.choice(NUMBER_WORDS, rows).tolist()
        case "codes":
            cells = [f"0{code}" for code in random.integers(0, 50, rows)]
        case _:
            letters = list("ab1,.-e$ +()'")
            cells = ["".join(random.choice(letters, random.integers(0, 6))) for _ in range(rows)]
    if draw(st.booleans()):
        gap, share = draw(st.sampled_from(GAPS)), draw(st.sampled_from(SHARES))
        cells = [gap if is_gap else cell for cell, is_gap in zip(cells, random.random(rows) < share, strict=True)]  # fmt: skip
    return cells


KINDS: dict[str, Callable[[NDArray[np.int64], str], pa.Array]] = {
    "whole": lambda whole, _: pa.array(whole),
    "natural": lambda whole, _: pa.array(whole.astype(np.uint64)),
    "truth": lambda whole, _: pa.array(whole > 0),
    "moment": lambda whole, unit: pa.array(whole, pa.timestamp(unit)),
    "moment in a zone": lambda whole, unit: pa.array(whole, pa.timestamp(unit, "UTC")),
    "day": lambda whole, _: pa.array((whole % 80_000 - 40_000).astype(np.int32), pa.date32()),
    "clock": lambda whole, _: pa.array((whole % 86_400).astype(np.int32), pa.time32("s")),
    "span": lambda whole, unit: pa.array(whole, pa.duration(unit)),
}


@st.composite
def arrays(draw: st.DrawFn, random: np.random.Generator, rows: int) -> pa.Array:
    """Draws a column of an Arrow stream: each type of number, truth, dates, times, durations, text."""
    kind = draw(st.sampled_from(["float16", "float32", "float64", "text", *KINDS]))
    if kind == "text":
        cells = pa.array(draw(texts(random, rows))).dictionary_encode()
    elif kind in KINDS:
        size = 10 ** draw(st.integers(1, 18))
        unit = draw(st.sampled_from(["s", "ms", "us", "ns"]))
        cells = KINDS[kind](random.integers(-size, size, rows), unit)
    else:
        with np.errstate(over="ignore", under="ignore"):
            cells = pa.array(draw(column(random, rows)).astype(kind))
    gaps = random.random(rows) < draw(st.sampled_from([0.0, 0.01, 0.3, 0.99, 1.0]))
    return pa.compute.if_else(pa.array(gaps), pa.scalar(None, cells.type), cells)


ROWS = st.sampled_from([2, 3, 10, 40, 200, 500, 1200])
GENERATORS = st.integers(0, 2**32 - 1).map(np.random.default_rng)
TYPES = st.sampled_from(get_args(ColumnType))
OPTIONS = st.fixed_dictionaries(
    {
        "missing": st.sampled_from(["keep", "keep", "drop"]),
        "constant": st.sampled_from(["keep", "keep", "drop"]),
    },
    optional={
        "types": st.dictionaries(st.sampled_from(["c0", "id1"]), TYPES, max_size=1),
        "max_levels": st.sampled_from([1, 3, 4096]),
        "merge_levels": st.just(["c0"]),
        "drop_rows": st.just(["total", "a"]),
    },
)
ROUNDINGS = {"float16": 1e-3, "float32": 1e-6}
NAMES = ("c0", "id1", "Total 2")
MANY = settings(max_examples=80, deadline=None, derandomize=True)


def check(
    data: bytes, kind: TableFormat, options: ParseOptions, retyped: ColumnType | None = None
) -> None:
    """Read a table, look at it, and give one of its columns another type."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        upload, table = folder / "upload", folder / "table.npy"
        upload.write_bytes(data)
        try:
            summary = parse_table(upload, table, format=kind, options=options)
        except TableError:
            assert not table.exists()
            return
        check_table(summary, table)
        preview_table(upload, folder / "preview.npy", kind, options)
        stored = StoredFiles(
            table=table,
            cells=cells_path(table) if summary.cells else None,
            columns=[column.to_dict() for column in summary.columns],
            warnings=summary.warnings,
        )
        if retyped is None:
            return
        again, types = folder / "again.npy", {summary.columns[-1].name: retyped}
        try:
            changed = retype_table(stored, again, types, replace(options, drop_rows=()))
        except TableError:
            return
        check_table(changed, again)


def check_table(summary: TableSummary, table: Path) -> None:
    """Check what is said of a table, and that its cells come back."""
    stored = np.load(table)
    check_summary(summary, stored)
    modelled = [one for one in summary.columns if one.column.type != "ignored"]
    for numbers, one in zip(stored.T.astype(np.float64), modelled, strict=True):
        again = encode_cells(decode_cells(numbers, one.column), one.column)
        # Dates have microseconds; a short float is written by the fewest digits that tell it.
        rounding = 1e-6 if one.column.type == "datetime" else ROUNDINGS.get(one.dtype, 1e-12)
        allowed = rounding * np.maximum(np.abs(numbers), one.column.type == "datetime")
        same = (np.abs(again - numbers) <= allowed) | (np.isnan(again) & np.isnan(numbers))
        assert same.all(), one


@MANY
@given(data=st.data(), random=GENERATORS, rows=ROWS, missing=st.sampled_from(["keep", "drop"]))
def test_any_columns_of_numbers_are_refused_or_their_summary_is_true(data, random, rows, missing):
    table = np.stack([data.draw(column(random, rows)) for _ in range(3)], axis=1)
    options = ParseOptions(missing=missing)
    check(npy(table), TableFormat.NPY, options)
    lines = [
        ",".join("" if np.isnan(cell) else repr(cell) for cell in row) for row in table.tolist()
    ]
    check("\n".join(["a,b,c", *lines]).encode(), TableFormat.CSV, replace(options, header=True))


@MANY
@given(data=st.data(), random=GENERATORS, rows=ROWS, options=OPTIONS, retyped=st.none() | TYPES)
def test_any_texts_of_a_table_are_refused_or_their_summary_is_true(
    data, random, rows, options, retyped
):
    buffer = io.StringIO()
    writer = csv.writer(buffer)
    writer.writerow(NAMES)
    writer.writerows(zip(*(data.draw(texts(random, rows)) for _ in NAMES), strict=True))
    options = ParseOptions(header=True, **options)
    check(buffer.getvalue().encode(), TableFormat.CSV, options, retyped)


@MANY
@given(data=st.data(), random=GENERATORS, rows=ROWS, options=OPTIONS, retyped=st.none() | TYPES)
def test_any_columns_of_a_stream_are_refused_or_their_summary_is_true(
    data, random, rows, options, retyped
):
    table = pa.table([data.draw(arrays(random, rows)) for _ in NAMES], names=NAMES)
    check(arrow(table), TableFormat.ARROW, ParseOptions(**options), retyped)


def test_a_single_value_on_the_grid_of_a_column_has_no_neighbours(accept):
    values = np.zeros(1900)
    values[:40] = np.random.default_rng(0).choice(np.sqrt([2, 3, 5, 7]), 40)
    summary = accept(npy(np.stack([values, np.arange(1900.0) ** 2], axis=1)), TableFormat.NPY)
    assert summary.columns[0].distinct == 5


def test_a_column_of_few_values_in_a_wide_table_is_modelled_though_no_sampled_row_has_one(accept):
    table = np.random.default_rng(0).normal(size=(2000, 4096)).astype(np.float32)
    table[:, 0] = np.nan
    table[-3:, 0] = [1.5, 2.5, 7.5]
    sparse = accept(npy(table), TableFormat.NPY).columns[0]
    assert (sparse.column.type, sparse.min, sparse.max) == ("number", 1.5, 7.5)
    assert set(sparse.quantiles.values()) == {1.5, 2.5, 7.5}


def test_a_date_that_no_text_tells_is_refused_with_its_row(refuse):
    days = pa.array([0, None, 2**40], pa.timestamp("s"))
    error = refuse(arrow(pa.table({"day": days, "x": [1.0, 2.0, 3.0]})), TableFormat.ARROW)
    assert (error.slug, error.column, error.row) == ("dataset-range", "day", 3)


def test_a_column_that_was_dropped_as_constant_moves_no_cells_of_others(accept, tmp_path):
    data = b"same,word,x\n" + b"".join(
        b"7,%s,%d.5\n" % (b"ab"[i % 2 : i % 2 + 1], i) for i in range(60)
    )
    summary = accept(data, constant="drop")
    stored = StoredFiles(
        table=tmp_path / "table.npy",
        cells=cells_path(tmp_path / "table.npy"),
        columns=[column.to_dict() for column in summary.columns],
        warnings=summary.warnings,
    )
    changed = retype_table(stored, tmp_path / "again.npy", {"x": "category"}, ParseOptions())
    assert [one.column.type for one in changed.columns] == ["ignored", "category", "category"]
    assert np.load(tmp_path / "again.npy")[:4, 0].tolist() == [0, 1, 0, 1]


def test_numbers_that_are_all_too_large_leave_nothing_to_model(refuse):
    error = refuse(b"a,b\n" + b"1e300,-1e38\n" * 20)
    assert error.slug == "dataset-shape"
    assert error.errors == [
        (name, "The column is not modelled: Every cell is missing.") for name in ("a", "b")
    ]
