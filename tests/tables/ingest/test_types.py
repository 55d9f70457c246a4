"""Types of columns: numbers and dates that all cells have in one form, and text where they have not."""

from collections.abc import Callable, Iterable
from datetime import UTC, date, datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa  # type: ignore[import-untyped] # it ships no type information
import pytest
from hypothesis import given, settings, strategies as st
from numpy.typing import NDArray

from tabular.cells import decode_cells, encode_cells
from tabular.columns import Column
from tabular.errors import TableError
from tabular.formats import ParseOptions, TableFormat, TableSummary
from tabular.ingest.numbers import (
    MAX_SPIKES,
    Sample,
    choose_transform,
    find_spikes,
    grid_step,
    is_ordinal,
    lower_bound,
    quantiles,
)
from tabular.ingest.profiles import TextProfile
from tabular.ingest.warnings import find_sentinels
from tests.tables.files import column_of, npy, read

ROWS = 40
DAY = date(2011, 3, 25)


def german(value: float) -> str:
    return f"{value:,.2f}".replace(",", "x").replace(".", ",").replace("x", ".")


# Cells of a kind, its type, and the first value.
KINDS: dict[str, tuple[Any, str, float | None]] = {
    "number": (lambda i: f"{i * 1.37 - 9:.2f}", "number", -9),
    "exponents": (lambda i: f"{1.5 * i + 1:.3e}", "number", 1),
    "decimal comma": (lambda i: german(i * 1111.37 - 9), "number", -9),
    "thousands": (lambda i: f"{i * 1234567 + 1:,}", "integer", 1),
    "points of thousands": (lambda i: f"{i * 1234567 + 1:,}".replace(",", "."), "integer", 1),
    "spaces of print": (lambda i: f"{i + 1}\u202f000,50\u00a0€", "number", 1000.5),
    "apostrophes": (lambda i: f"CHF {i + 1}\u2019000.50", "number", 1000.5),
    "money": (lambda i: f"${i * 1234.5 + 2:,.2f}", "number", 2),
    "money by weight": (lambda i: f"{'-' * (i % 2 == 0)}${i + 5}.25/kg", "number", -5.25),
    "accountants": (lambda i: f"({i + 3}.50)" if i % 2 == 0 else f"{i}.50", "number", -3.5),
    "minus signs of print": (lambda i: f"\u2212{i + 1}.5", "number", -1.5),
    "a unit": (lambda i: f"{i}.5 kg", "number", 0.5),
    "truth": (lambda i: ("Yes", "no", "NO")[i % 3], "boolean", None),
    "truth by letters": (lambda i: "ft"[i % 2], "boolean", None),
    "truth and a long text": (
        lambda i: ("yes", "no", "x" * 129)[(i > 9) + (i > 38)],
        "category",
        None,
    ),
    "words": (lambda i: ("größer", "x,y", 'q"q', "🙂")[i % 4], "category", None),
    "codes": (lambda i: f"0{i % 7}", "category", None),
    "versions": (lambda i: ("1.9", "1.10")[i % 2], "category", None),
    "long versions": (lambda i: ("1.10", "1.200")[i % 2], "category", None),
    "ids": (lambda i: f"u{i}-{i * 7}", "ignored", None),
}

# What plausible tables hold, and nobody should take for numbers, dates or truth values.
TEXTS: dict[str, list[str]] = {
    "sizes": ["2T", "3T", "4T", "5", "6", "7"],
    "doses": ["5", "5 g", "5 mg", "10 g"],
    "marks": ["5-", "4", "2-", "1"],
    "flats": ["12 b", "7", "9"],
    "units on either side": ["5 kg", "kg 7", "9 kg"],
    "verses": ["3:16", "4:10", "11:25"],
    "codes of countries": ["da", "ne"],
    "answers": ["Si", "No"],
    "letters of two pairs": ["f", "y"],
    "numbers or bounds": ["<0.01", "0.5", "1.25"],
    "accounts that look like months": ["4000-10", "4001-11", "4002-12"],
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_column_of_each_kind_has_its_type_a_reason_and_values_that_come_back(kind):
    make, expected, first = KINDS[kind]
    cells = [make(i) for i in range(ROWS)]
    found = column_of(cells)
    assert (found.column.type, bool(found.reason)) == (expected, True)
    if found.column.type == "ignored":
        return
    numbers = encode_cells(pa.array(cells), found.column)
    if first is not None:
        assert numbers[0] == first
    again = encode_cells(decode_cells(numbers, found.column), found.column)
    assert again.tolist() == numbers.tolist()


@pytest.mark.parametrize("kind", TEXTS)
def test_cells_that_are_not_all_alike_are_text(kind):
    texts = TEXTS[kind]
    found = column_of([texts[i * 7 % len(texts)] for i in range(120)])
    assert (found.column.type, set(found.column.levels)) == ("category", set(texts))


@pytest.mark.parametrize(
    ("cells", "wanted", "levels"),
    [
        (["f", "y"], "boolean", ("f", "y")),
        (["1.0", "0"], "boolean", (0, 1)),
        (["x" * 128, "y" * 129], "category", ("x" * 128,)),
        (["x" * 129, "y" * 129], "category", ()),
    ],
)
def test_a_stated_type_is_that_of_the_column_unless_it_can_have_no_levels(cells, wanted, levels):
    found = column_of(cells * 20, types={"column": wanted})
    assert found.column.levels == levels
    assert (found.column.type == wanted) == (found.reason == "The caller says so.") == bool(levels)


def test_numbers_of_months_are_no_dates_and_those_of_days_are():
    articles = [str(200_101 + 100 * (i % 4) + i % 12) for i in range(60)]
    assert column_of(articles).column.type == "integer"
    days = [(DAY + timedelta(days=i)).strftime("%Y%m%d") for i in range(60)]
    assert column_of(days).column.datetime_format == "%Y%m%d"
    assert column_of([days[i % 4] for i in range(60)]).column.type == "integer"  # by chance


def test_commas_that_the_first_rows_lack_are_found_later():
    profile = TextProfile("a", options=ParseOptions())
    for texts in ([str(i) for i in range(900)], [f"{i + 1},234,567" for i in range(90)]):
        profile.update(pa.array(texts))
    [best, *_] = profile.readings
    assert (best.column.thousands, best.bad) == (",", 0)


def test_one_cell_that_is_no_number_makes_text_and_the_reason_says_what_to_do():
    cells = [f"{i}.5" for i in range(100)]
    cells[7] = "abc"
    found = column_of(cells)
    assert found.column.type == "ignored"
    assert "99 of 100 are numbers, but not 'abc' in row 8" in found.reason
    assert "na_values=" in found.reason
    assert column_of(cells, na_values=("abc",)).missing_count == 1
    with pytest.raises(TableError, match="One cell is no numbers"):
        column_of(cells, types={"column": "number"})
    prices = [f"${i % 64}.25" for i in range(900)] + [str(i) for i in range(100)]
    assert "numbers with the affix $, but not '0' in row 901" in column_of(prices).reason


@pytest.mark.parametrize("gap", ["-", "n.d.", "--", "unknown", "#DIV/0!"])
def test_texts_that_stand_for_no_value_are_gaps_that_a_warning_counts(accept, gap):
    rows = [f"{gap if i % 10 else f'{i}.5'},{i}.25" for i in range(900)]
    summary = accept(("v,w\n" + "\n".join(rows)).encode())
    column = summary.columns[0]
    assert (column.column.type, column.missing_count) == ("number", 810)
    assert any("810 of 900 cells" in one["detail"] for one in summary.warnings)
    assert np.isnan(encode_cells(pa.array([gap]), column.column)).all()
    first = accept(b"a,b\n-,1\n" + b"".join(b"%d.5,%d\n" % (i, i * i) for i in range(20)))
    assert first.rows == 21


def test_a_comma_that_may_be_of_thousands_or_of_decimals_is_told_by_the_table():
    either = [f"{i + 1},{i * 37 % 900 + 100}" for i in range(40)]
    table = lambda other: "\n".join(["a;b", *(f"{c};{other(i)}" for i, c in enumerate(either))])  # noqa: E731
    columns = lambda other, **told: read(table(other).encode(), **told)[0].columns[0]  # noqa: E731
    assert columns(lambda i: f"{i},5").column.decimal == ","
    assert columns(lambda i: f"{i}.5").column.thousands == ","
    assert columns(str).column.type == "ignored"
    assert "decimal=" in columns(str).reason
    assert columns(str, decimal=",").column.decimal == ","


@pytest.mark.parametrize(("beside", "first"), [("{},5", 1100.0), ("{}.5", 1.1), ("{}", 1.1)])
def test_points_before_three_digits_are_those_of_thousands_beside_decimal_commas(beside, first):
    rows = [f"{i + 1}.{i * 37 % 900 + 100};{beside.format(i)}" for i in range(40)]
    values = read("\n".join(["a;b", *rows]).encode())[1]
    assert values[0, 0] == pytest.approx(first)


def test_a_mark_that_large_numbers_alone_have_is_found_far_down():
    cells = [f"{i % 900}.50" for i in range(20_000)] + ["1,234.50"]
    found = column_of(cells)
    assert (found.column.thousands, found.max) == (",", 1234.5)


DATES = (
    *("%Y-%m-%d", "%Y-%m-%dT%H:%M:%SZ", "%d/%m/%Y", "%m/%d/%Y", "%d.%m.%Y %H:%M"),
    *("%m/%d/%Y %I:%M %p", "%d-%b-%Y", "%B %d, %Y", "%a, %d %b %Y %H:%M:%S", "%H:%M", "%Y-%m"),
)


@pytest.mark.parametrize("form", DATES)
def test_dates_of_common_formats_are_found_and_come_back(form):
    start = datetime(2011, 3, 25, 13, 45, 20, tzinfo=UTC)
    cells = [(start + timedelta(hours=31 * i)).strftime(form) for i in range(60)]
    found = column_of(cells)
    assert (found.column.type, found.column.datetime_format) == ("datetime", form)
    numbers = encode_cells(pa.array(cells), found.column)
    assert decode_cells(numbers, found.column).to_pylist() == cells
    expected = datetime.strptime(cells[0], form).replace(tzinfo=UTC)
    epoch = datetime(1900 if form == "%H:%M" else 1970, 1, 1, tzinfo=UTC)
    assert numbers[0] == (expected - epoch).total_seconds()
    bounds = (0.0, 86_399.0) if form == "%H:%M" else (None, None)
    assert (found.column.low, found.column.high) == bounds


def two_columns(name: str, cells: Iterable[str]) -> bytes:
    return (f"{name},b\n" + "".join(f"{c},{i}.5\n" for i, c in enumerate(cells))).encode()


def test_dates_of_iso_8601_may_have_zones_and_parts_of_seconds():
    cells = [f"2021-03-{i % 28 + 1:02}T1{i % 10}:00:00.{i}+02:00" for i in range(40)]
    found = column_of(cells)
    assert (found.column.type, found.column.datetime_format) == ("datetime", None)
    assert encode_cells(pa.array(["1970-01-01T02:00:00.5+02:00"]), found.column).tolist() == [0.5]


def test_days_and_months_that_could_be_each_other_are_text_until_a_format_is_stated():
    cells = [f"{i % 12 + 1:02}/{i * 5 % 12 + 1:02}/2020" for i in range(90)]
    summary = read(two_columns("a", cells))[0]
    assert summary.columns[0].column.type == "category"
    assert any(one["code"] == "ambiguous_dates" for one in summary.warnings)
    assert column_of(cells, datetime_format="%m/%d/%Y").column.type == "datetime"
    with pytest.raises(TableError, match="the day or with the month"):
        column_of(cells, types={"column": "datetime"})
    assert column_of([*cells, "25/12/2020"]).column.datetime_format == "%d/%m/%Y"
    assert column_of([f"{i % 3 + 29}/02/2021" for i in range(30)]).column.type == "category"


def test_years_of_two_digits_are_the_newest_that_give_no_date_in_the_future():
    births = [date(1940 + i, 1 + i % 12, 13 + i % 15) for i in range(61)]
    cells = [day.strftime("%m/%d/%y") for day in births]
    summary, this = read(two_columns("a", cells))[0], datetime.now(UTC).year
    found = summary.columns[0]
    assert found.column.first_year == this - 99
    assert f"{this - 99} to {this}" in found.reason
    assert any(one["code"] == "ambiguous_dates" for one in summary.warnings)
    before_2000 = read(two_columns("a", cells[:60]))[0]
    assert all(one["code"] != "ambiguous_dates" for one in before_2000.warnings)
    days = [(day - date(1970, 1, 1)).total_seconds() for day in births]
    assert encode_cells(pa.array(cells), found.column).tolist() == days
    tomorrow = (datetime.now(UTC) + timedelta(days=2)).date()
    if tomorrow.year == this:
        later = [f"{tomorrow:%m/%d/%y}", *cells]
        assert column_of(later).column.first_year == this - 100


def test_row_numbers_are_told_from_years_and_from_columns_without_names():
    assert column_of([str(1950 + i) for i in range(ROWS)]).column.type == "integer"
    for first in (0, 1):
        numbered = two_columns("n", [str(first + i) for i in range(ROWS)])
        counted = read(numbered)[0].columns[0]
        assert (counted.column.type, counted.reason) == ("ignored", "It counts the rows.")
        stated = read(numbered, types={"n": "integer"})[0].columns[0]
        assert stated.column.type == "integer"
    for name, step in (("", 3), ("user_id", 7919)):
        numbers = [str(1000 + i * step % 5000) for i in range(ROWS)]
        assert read(two_columns(name, numbers))[0].columns[0].column.type == "ignored"


def test_names_that_few_rows_share_are_kept_and_not_modelled_until_a_type_is_stated():
    players = two_columns("player", (f"player {i % 500}" for i in range(3000)))
    found = read(players)[0].columns[0]
    assert found.column.type == "ignored"
    assert "500 values" in found.reason
    assert "category" in found.reason
    stated = read(players, types={"player": "category"})[0].columns[0].column
    assert (stated.type, stated.other) == ("category", True)
    towns = two_columns("town", (f"town {i % 120 if i < 2900 else i}" for i in range(3000)))
    assert read(towns)[0].columns[0].column.type == "category"
    for free in (["x" * 129] * 9, [f"note {i % 10_001} x" for i in range(30_000)]):
        assert "free text" in column_of(free).reason
    rare = column_of([("a", "b", "c")[min(i % 7, 2)] for i in range(70)], max_levels=1)
    assert (rare.column.levels, rare.column.other) == (("c",), True)
    assert list(rare.level_counts) == [50, 20]


@pytest.mark.parametrize(("slip", "has_levels"), [(9, True), (10, False), (-3, True), (-4, False)])
def test_a_slip_far_from_the_other_values_is_no_level(slip, has_levels):
    cells = [str(1 + i % 5) for i in range(400)]
    cells[7] = str(slip)
    assert bool(column_of(cells).column.levels) is has_levels


@pytest.mark.parametrize(("count", "has_levels"), [(20, True), (21, False)])
def test_twenty_whole_numbers_at_most_are_levels_without_being_asked_for(count, has_levels):
    cells = [str(i % count) for i in range(20 * count)]
    assert bool(column_of(cells).column.levels) is has_levels


def test_levels_of_megabytes_are_refused_before_the_table_is_stored():
    names, cells = (
        [f"c{i}" for i in range(12)],
        [f"{'x' * 120}{row % 4000}" for row in range(40_000)],
    )
    data = "\n".join([",".join(names), *(",".join([cell] * 12) for cell in cells)])
    with pytest.raises(TableError, match="`max_levels`") as refused:
        read(data.encode(), types=dict.fromkeys(names, "category"), max_levels=4096)
    assert refused.value.slug == "limit-metadata"


def amounts(name: str, cell: Callable[[int], object]) -> str:
    """A file of 90 cells, and numbers beside them."""
    return f"{name},b\n" + "".join(f"{cell(i)},{i * i}.5\n" for i in range(90))


@settings(max_examples=15, deadline=None, derandomize=True)
@given(
    st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=8), min_size=2, max_size=40)
)
def test_any_texts_are_a_column_whose_cells_come_back(cells):
    cells = [cell.replace("\0", "").replace("\r", " ") for cell in cells]
    column = column_of(cells).column
    if column.type == "category" and column.levels and isinstance(column.levels[0], str):
        numbers = encode_cells(pa.array(cells), column)
        back = decode_cells(numbers, column).to_pylist()
        assert all(b is None or b == c.strip() for b, c in zip(back, cells, strict=True))


REGIONS = ("West", "west", "East", "West ", "North West", "north  west")
MESSY = (
    "datum;region;umsatz\n"
    + "".join(
        f"{day % 28 + 1:02}.{day % 12 + 1:02}.2025;{REGIONS[day % 6]};{day % 50},{day % 100:02}\n"
        for day in range(240)
    )
    + "Gesamtsumme;;5.880,00\n"
).encode()


def remedies(summary: TableSummary, code: str) -> list[Any]:
    found = [one for one in summary.warnings if one["code"] == code]
    assert found, [one["code"] for one in summary.warnings]
    return [(one["option"], one["value"]) for each in found for one in each["remedies"]]


def test_the_remedies_of_a_messy_table_mend_it() -> None:
    raw, _ = read(MESSY)
    assert [column.column.type for column in raw.columns] == ["category", "category", "number"]
    drop = ("drop_rows", ["Gesamtsumme"])
    assert remedies(raw, "totals") == [drop]
    assert drop in remedies(raw, "unreadable")
    assert remedies(raw, "similar_levels") == [("merge_levels", ["region"])]
    mended, numbers = read(MESSY, drop_rows=["Gesamtsumme"], merge_levels=["region"])
    day, region, amount = (column.column for column in mended.columns)
    assert (mended.rows, day.type, amount.decimal) == (240, "datetime", ",")
    assert sorted(map(str, region.levels)) == ["East", "North West", "West"]
    assert list(mended.columns[1].level_counts) == [120, 80, 40]
    assert np.bincount(numbers[:, 1].astype(int)).tolist() == [120, 80, 40]
    assert [one["code"] for one in mended.warnings] == ["dropped"]
    assert "1 row was left out, the first of them row 241" in mended.warnings[0]["detail"]


def test_rows_to_score_have_merged_levels_in_any_spelling() -> None:
    region = read(MESSY, merge_levels=["region"])[0].columns[1].column
    west = region.levels.index("West")
    cells = pa.array(["wEST", " West", "NORTH WEST", "South"])
    north = region.levels.index("North West")
    assert encode_cells(cells, region).tolist() == [west, west, north, -1]


REMEDIES = [
    ("a,b\n" + "1,2.5\n" * 30, "constant", ("exclude", ["a"])),
    ("1,2\n" + "1.5,2.5\n" * 30, "numeric_header", ("header", False)),
    (amounts("a", lambda i: 2 * i * i + 0.25), "collinear", ("exclude", ["b"])),
    (
        amounts("a", lambda i: -999.5 if i % 9 == 0 else f"{i}.5"),
        "sentinel",
        ("na_values", ["-999.5"]),
    ),
    (
        amounts("d", lambda i: f"0{i % 9 + 1}/0{i % 7 + 1}/2021"),
        "ignored",
        ("datetime_format", "%m/%d/%Y"),
    ),
    (amounts("d", lambda i: f"note {i}"), "ignored", ("types", {"d": "category"})),
]


@pytest.mark.parametrize(("text", "code", "wanted"), REMEDIES)
def test_a_remedy_ends_its_warning(text: str, code: str, wanted: tuple[str, Any]) -> None:
    summary, _ = read(text.encode())
    assert wanted in remedies(summary, code)
    mended, _ = read(text.encode(), **dict([wanted]))
    column = next((one["column"] for one in summary.warnings if one["code"] == code), None)
    left = [one for one in mended.warnings if one["code"] == code and one["column"] == column]
    assert all("caller" in one["detail"] for one in left), left


RANDOM = np.random.default_rng(0)


def test_spikes_stand_out_of_what_is_beside_them():
    values = RANDOM.normal(size=20_000)
    assert find_spikes(values) == find_spikes(np.ones(500)) == []
    assert find_spikes(RANDOM.poisson(30, 20_000).astype(float)) == []
    zeros = np.where(RANDOM.random(20_000) < 0.1, 0.0, np.exp(values))
    sentinels = np.where(RANDOM.random(20_000) < 0.02, -999.0, zeros)
    assert find_spikes(sentinels) == [-999.0, 0.0]
    round_ones = np.where(RANDOM.random(20_000) < 0.9, np.round(values, 1), values)
    assert len(find_spikes(round_ones)) <= MAX_SPIKES


@pytest.mark.parametrize(
    ("beside", "fewest"), [(np.arange(300.0), 20), (RANDOM.normal(size=300), 10)]
)
def test_a_spike_on_a_grid_takes_more_rows_than_among_values_that_no_two_rows_share(
    beside: NDArray[np.float64], fewest: int
) -> None:
    for count, spikes in ((fewest, [7.0]), (fewest - 1, [])):
        assert find_spikes(np.append(beside[beside != 7], [7.0] * count)) == spikes


def test_any_number_of_values_that_many_rows_share_are_spikes_beside_a_continuous_part():
    shared = np.log(np.arange(1.0, 41.0))
    column = np.concatenate([RANDOM.choice(shared, 3000), RANDOM.normal(5.0, 0.3, 1000)])
    assert find_spikes(column) == sorted(shared)
    assert find_spikes(np.round(RANDOM.normal(0.0, 3.0, 4000), 1)) == []  # a smooth grid


@pytest.mark.parametrize(
    ("column", "ordinal"),
    [
        (4.5 * RANDOM.integers(0, 23, 3000), True),
        (np.log(1.0 + RANDOM.poisson(5.0, 3000)), True),
        (RANDOM.poisson(5.0, 3000) / 3, True),
        (np.round(RANDOM.normal(61.0, 1.5, 3000), 1), False),  # a tenth is a decimal
        (np.append(RANDOM.normal(size=1500), np.zeros(1500)), False),
        (np.repeat(4.5 * np.arange(100), 3), False),  # too few rows for each
        (np.repeat(4.5 * np.arange(300), 20), False),  # too many values
    ],
)
def test_a_column_of_few_values_that_are_no_decimals_is_ordinal(column, ordinal):
    values, counts = np.unique(column, return_counts=True)
    assert is_ordinal(values, counts) == ordinal


def test_the_step_of_a_grid_is_what_all_values_are_multiples_of():
    assert grid_step(np.array([0.0, 4.5, 9.0, 31.5])) == pytest.approx(4.5)
    assert grid_step(np.round(np.arange(0, 20) / 3, 6)) == pytest.approx(1 / 3, rel=1e-6)
    assert grid_step(np.log(np.arange(1.0, 20.0))) == 0.0


def counted(*counts: int) -> NDArray[np.float64]:
    """A column of the values 0, 1, 2, ..., each as often as is said."""
    return np.repeat(np.arange(len(counts), dtype=float), counts)


@pytest.mark.parametrize("mirrored", [False, True])
def test_a_spike_is_compared_with_the_five_values_on_each_side_of_it(mirrored):
    """Without any one of them, or with one more, or with itself, another median would decide."""
    far = [15] * 300
    for count, is_spike in ((150, True), (149, False)):  # the median of five 10 and five 50 is 30
        counts = [*far, 10, *[10] * 5, count, *[50] * 5, 50, *far]
        place = counts.index(count)
        if mirrored:
            counts, place = counts[::-1], len(counts) - 1 - place
        assert find_spikes(counted(*counts)) == ([place] if is_spike else [])


@pytest.mark.parametrize("mirrored", [False, True])
def test_at_an_end_a_spike_has_neighbours_on_one_side_alone(mirrored):
    far = [30] * 300
    for count, is_spike in ((150, True), (149, False)):  # the median of 10, 10, 30, 40 and 40 is 30
        counts = [count, 10, 40, 10, 40, 30, 5, *far, *[5] * 5]
        place = 0
        if mirrored:
            counts, place = counts[::-1], len(counts) - 1
        assert find_spikes(counted(*counts)) == ([place] if is_spike else [])


def test_a_sample_is_the_same_of_the_same_rows_in_pieces_and_its_quantiles_are_values_of_it():
    values, whole, pieces = RANDOM.normal(size=(1, 40_000)), Sample(1), Sample(1)
    whole.update(values)
    for piece in np.split(values, 5, axis=1):
        pieces.update(piece)
    assert np.array_equal(whole.rows(), pieces.rows())
    assert 10_000 < whole.rows().size < whole.size
    assert set(quantiles(np.array([1.0, 2.0, 4.0])).values()) == {1.0, 2.0, 4.0}


def test_zero_bounds_what_comes_near_it_and_never_below():
    values = np.linspace(0.0, 9.0, 50)
    assert lower_bound(values, "none") == lower_bound(values + 1.0, "none") == 0.0
    assert lower_bound(values + 100.0, "none") is lower_bound(values - 0.1, "none") is None
    assert lower_bound(values + 100.0, "log") == 0.0


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (RANDOM.normal(size=5000), "none"),
        (RANDOM.random(5000), "none"),
        (RANDOM.normal(100, 3, size=5000), "none"),
        (np.exp(RANDOM.normal(size=5000)), "log"),
        (RANDOM.standard_t(1.5, size=5000), "asinh"),
        (np.concatenate([RANDOM.normal(0, 1e-3, 2500), RANDOM.normal(9, 1e-3, 2500)]), "quantiles"),
        (np.ones(5000), "none"),
        ((np.arange(5000.0) % 15) ** 3, "none"),
        (np.arange(10.0), "none"),
    ],
)
def test_the_scale_of_a_column_is_the_one_that_fits_its_values(values, expected):
    shuffled = np.random.default_rng(1).permutation(values)
    assert choose_transform(shuffled, decimals=None)[0] == expected


NUMBER = Column(name="pressure")


def readings(*more: float, seed: int = 0) -> np.ndarray:
    values = np.random.default_rng(seed).normal(60, 5, size=500).round(1)
    return np.concatenate([values, more])


@pytest.mark.parametrize("spikes", [(), (-999.0,)])
def test_a_number_of_several_cells_far_from_all_others_is_a_sentinel(spikes):
    column = Column(name="pressure", spikes=spikes)
    assert find_sentinels(readings(*[-999.0] * 5), column) == [-999.0]


def test_several_sentinels_of_a_column_are_all_named(accept):
    values = readings(*[-999.0] * 30, *[9999.0] * 30)
    summary = accept(npy(np.column_stack([values, values**2])), TableFormat.NPY)
    found = {one["column"]: one["detail"] for one in summary.warnings if one["code"] == "sentinel"}
    assert "-999, 9999 in 11 %" in found["x1"]
    assert "na_values=-999&na_values=9999:" in found["x1"]


def test_single_far_values_popular_ones_and_long_tails_are_no_sentinels():
    assert find_sentinels(readings(-999.0), NUMBER) == []
    assert find_sentinels(readings(*[60.0] * 200), Column(name="x", spikes=(60.0,))) == []
    amounts = np.concatenate([np.zeros(500), np.random.default_rng(0).lognormal(3, 1, 500)])
    assert find_sentinels(amounts, Column(name="x", spikes=(0.0,))) == []
    assert find_sentinels(np.random.default_rng(0).pareto(1, 2000).round(), NUMBER) == []
    assert find_sentinels(np.repeat([1.0, 2.0, 3.0, 99.0], 50), NUMBER) == []
