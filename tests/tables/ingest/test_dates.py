"""Columns of dates, periods and durations in any spelling."""

import re
from datetime import UTC, date, datetime, timedelta
from typing import Any
from unittest.mock import Mock

import numpy as np
import pyarrow as pa  # type: ignore[import-untyped] # it ships no type information
import pytest

from tabular.calendar.formats import check_format, compiled, look_like_dates, pattern_of
from tabular.calendar.names import NAMES, month_numbers
from tabular.calendar.parts import ShapedParts
from tabular.cells import decode_cells, encode_cells, try_encode
from tabular.columns import Column
from tabular.errors import TableError
from tests.tables.columns import column_of, read

ZONED = {
    "%Y-%m-%d %H:%M:%S EST": "2024-03-{d:02} 10:{d:02}:00 EST",
    "%-m/%-d/%Y %-I:%M %p (CET)": "3/{d}/2024 1:{d:02} PM (CET)",
    "%Y-%m-%dT%H:%M:%S%z[America/New_York]": "2024-03-{d:02}T10:{d:02}:00-05:00[America/New_York]",
}


@pytest.mark.parametrize("form", ZONED)
def test_the_name_of_a_zone_is_a_text_behind_a_date(form: str) -> None:
    cells = [ZONED[form].format(d=n % 28 + 1) for n in range(90)]
    found = column_of(cells)
    assert (found.column.type, found.column.datetime_format) == ("datetime", form)
    numbers = encode_cells(pa.array(cells), found.column)
    assert numbers[1] - numbers[0] == 86_460
    assert (
        encode_cells(decode_cells(numbers, found.column), found.column).tolist() == numbers.tolist()
    )


@pytest.mark.parametrize("share", [3, 2])
def test_a_date_that_stands_for_no_date_is_a_spike(share: int) -> None:
    cells = [
        "9999-12-31" if n % share else f"20{n % 17 + 10}-0{n % 9 + 1}-{n % 28 + 1:02}"
        for n in range(900)
    ]
    found = column_of(cells)
    column = found.column
    assert (column.type, len(column.spikes)) == ("datetime", 1)
    assert found.reason.endswith("the same value: 9999-12-31.")
    assert decode_cells(np.array(column.spikes), column).to_pylist() == ["9999-12-31"]


def test_a_date_has_one_of_two_names_of_a_zone_and_no_other_words() -> None:
    cells = [f"2024-0{n % 9 + 1}-01 10:{n % 60:02} E{'SD'[3 < n % 9 < 8]}T" for n in range(90)]
    assert column_of(cells).column.datetime_format == "%Y-%m-%d %H:%M EST|%Y-%m-%d %H:%M EDT"
    others = [f"2024-0{n % 9 + 1}-01 10:{n % 60:02} {('NEW', 'OLD')[n % 2]}" for n in range(90)]
    assert column_of(others).column.type != "datetime"


@pytest.mark.parametrize(
    ("form", "expected"),
    [
        ("{y}q{q}", "%Yq%q"),
        ("{y}M{m:02}", "%YM%m"),
        ("{y}m{m}", "%Ym%-m"),
        ("{y}年{m}月", "%Y年%-m月"),
        ("{y}-{m:02}-01 {m:02}", "%Y-%m-%d %H"),
        ("{m} Stunden {q} Minuten", "h m s"),
        ("{m} heures et {q} minutes", "h m s"),
        ("{q} weeks, {m} days", "h m s"),
    ],
)
def test_other_spellings_of_periods_are_dates(form: str, expected: str) -> None:
    cells = [form.format(y=2000 + n % 23, m=n % 12 + 1, q=n % 4 + 1) for n in range(200)]
    assert column_of(cells).column.datetime_format == expected


def test_dates_of_eight_digits_are_dates_where_they_come_as_numbers():
    column = column_of([f"202101{i % 28 + 1:02}" for i in range(40)]).column
    cells = pa.array([20210102, None, 20210131])
    assert decode_cells(encode_cells(cells, column), column).to_pylist() == [
        *("20210102", None, "20210131")
    ]


def test_numbers_that_few_of_which_are_months_are_numbers():
    for cells in (["200001", "200002"] * 20, [str(200001 + i) for i in range(0, 400, 7)]):
        assert column_of(cells).column.type == "integer"


def test_ambiguous_dates_are_text_until_their_format_is_known():
    cells = [f"{i % 12 + 1:02}/{(i * 5) % 12 + 1:02}/2020" for i in range(120)]
    assert column_of(cells).column.type == "category"
    found = column_of(cells, datetime_format="%d/%m/%Y").column
    assert (found.type, found.datetime_format) == ("datetime", "%d/%m/%Y")
    cells[50] = "31/01/2020"
    assert column_of(cells).column.datetime_format == "%d/%m/%Y"
    cells[50] = "01/31/2020"
    assert column_of(cells).column.datetime_format == "%m/%d/%Y"


def test_names_side_by_side_take_no_time_with_the_cube_of_a_texts_length() -> None:
    column = Column(name="a", type="datetime", datetime_format="%B%A%a %Y")
    with pytest.raises(TableError):
        encode_cells(pa.array(["a" * 100_000]), column)
    [found] = encode_cells(pa.array(["MayXY 2020"]), column)  # as before
    assert found == datetime(2020, 5, 1, tzinfo=UTC).timestamp()


@pytest.mark.parametrize("form", ["%B%A%a %Y", "%A%b %Y", "%d/%m/%Y|%Y %a%B", "de:%A%B %Y"])
def test_formats_of_names_side_by_side_are_refused(form: str) -> None:
    with pytest.raises(ValueError, match="nothing in between"):
        check_format(form)
    check_format(re.sub("%([aAbB])", r"%\1 ", form))


@pytest.mark.parametrize("form", ["%d %B %Y", "%a, %d %b %Y", "%A %d de %B de %Y"])
def test_patterns_of_names_have_no_class_of_all_letters(form: str) -> None:
    assert r"\p" not in pattern_of(form)


@pytest.mark.parametrize("month", ["August", "août", "сентября", "März"])
def test_months_have_letters_of_any_script(month: str) -> None:
    language = next(name for name in NAMES if month.lower() in month_numbers(name))
    column = Column(name="a", type="datetime", datetime_format=f"{language}:%d %B %Y")
    numbers, bad = try_encode(
        pa.array([f"1 {month} 2020", f"1 {month}1 2020", "1 a!b 2020"]), column
    )
    assert bad.tolist() == [False, True, True]
    assert np.isfinite(numbers[0])


@pytest.mark.parametrize("form", ["%Ba%Aa%a %Y", "%d %b %Y", "%Y-%m-%d %I %p", "Q%q %Y"])
def test_formats_with_names_are_not_tried_as_fixed_places(form: str) -> None:
    pattern = Mock(groupindex=compiled(form).groupindex)
    assert ShapedParts.of(pa.array(["a" * 200]), pattern) is None
    pattern.match.assert_not_called()


@pytest.mark.parametrize(
    ("form", "text"),
    [
        ("%Y-%bT%H:%M", "2020-MayT10:30"),
        ("%d-%B%pof %I %Y", "1-Maypmof 3 2020"),
        ("%Y%bQ%d", "2020MayQ1"),
    ],
)
def test_letters_may_follow_a_name(form: str, text: str) -> None:
    check_format(form)
    assert look_like_dates([text], form)


def ambiguous(i: int) -> str:
    """Return a date in no order whose day may be its month."""
    return f"{i % 12 + 1:02}/{i * 5 % 12 + 1:02}/2020"


SETTLED = {
    "order": ("", lambda i: f"{i % 3 + 1:02}/{i // 3 + 1:02}/2020", "%d/%m/%Y", "in order"),
    "order down": ("", lambda i: f"{9 - i // 4:02}/{9 - i % 4:02}/2020", "%m/%d/%Y", "in order"),
    "another column": ("31/12/2020", ambiguous, "%d/%m/%Y", "other dates"),
    "AM and PM": ("", lambda i: f"{ambiguous(i)} 1:{i:02} PM", "%m/%d/%Y %-I:%M %p", "AM and PM"),
}


@pytest.mark.parametrize("kind", SETTLED)
def test_days_and_months_are_told_apart_with_a_warning(kind: str) -> None:
    beside, make, form, why = SETTLED[kind]
    rows = "".join(f"{make(i)},{beside}\n" for i in range(36))
    summary = read(f"a,b\n{rows}".encode())[0]
    assert (summary.columns[0].column.type, summary.columns[0].column.datetime_format) == (
        "datetime",
        form,
    )
    told = [w["detail"] for w in summary.warnings if w["code"] == "ambiguous_dates"]
    assert [why in detail and form in detail for detail in told] == [True]


def test_dates_of_a_table_that_begin_with_either_tell_nothing_about_others() -> None:
    rows = "".join(f"{ambiguous(i)},31/12/2020,12/31/2020\n" for i in range(36))
    summary = read(f"a,b,c\n{rows}".encode())[0]
    assert [c.column.type for c in summary.columns] == ["category", "datetime", "datetime"]


def test_dates_of_every_time_come_back():
    start = datetime(2020, 1, 1, tzinfo=UTC)
    cells = [
        (start + timedelta(seconds=i * 12345)).strftime("%Y-%m-%d %H:%M:%S") for i in range(60)
    ]
    found = column_of(cells).column
    numbers = encode_cells(pa.array(cells), found)
    assert decode_cells(numbers, found).to_pylist() == cells


@pytest.mark.parametrize(
    ("cells", "form"),
    [
        (("Mar 24", "Dec 23"), "%b %y"),
        (("Jan-20", "Feb-21"), "%b-%y"),
        (("03/2024", "12/2023"), "%m/%Y"),
    ],
)
def test_months_are_dates(accept, cells, form):
    column = (
        accept(("a,b\n" + "".join(f"{n},{cells[n % 2]}\n" for n in range(30))).encode())
        .columns[1]
        .column
    )
    assert (column.type, column.datetime_format) == ("datetime", form)


PERIODS = {
    "quarters": ("{y}Q{q}", "%YQ%q"),
    "quarters before the year": ("Q{q} {y}", "Q%q %Y"),
    "weeks": ("{y}-W{w:02d}", "%G-W%V"),
    "elapsed hours": ("{h}:{m:02d}:{s:02d}", "%E:%M:%S"),
    "days and times": ("{d} days {q:02d}:{m:02d}:{s:02d}", "%D days %H:%M:%S"),
    "durations of ISO 8601": ("PT{h}H{m}M{s}S", "P"),
    "signed": ("{sign}{h:02d}:{m:02d}:{s:02d}", "%0E:%M:%S"),
    "signed, both signs": ("{both}{h}:{m:02d}", "+%E:%M"),
    "signed, of ISO 8601": ("{sign}PT{h}H{m}M{s}S", "P"),
    "signed, with letters": ("{sign}{h}h {m}m {s}s", "h m s"),
    "laps": ("{q}:{s:02d}.{h:02d}1", "%N:%S.%f"),
}


@pytest.mark.parametrize("kind", PERIODS)
def test_periods_and_durations_are_values_that_come_back_as_texts(kind: str) -> None:
    form, expected = PERIODS[kind]
    cells = [
        form.format(
            y=2000 + i % 23,
            q=1 + i % 4,
            w=1 + i % 52,
            h=1 + i % 90,
            m=1 + i % 59,
            s=1 + i * 7 % 59,
            d=i % 8,
            sign="-" * (i % 3 == 0),
            both="+-"[i % 3 == 0],
        )
        for i in range(200)
    ]
    found = column_of(cells)
    assert (found.column.type, found.column.datetime_format) == ("datetime", expected)
    numbers = encode_cells(pa.array(cells), found.column)
    assert decode_cells(numbers, found.column).to_pylist() == cells
    # A sample beside the start of a period is of that period, not of the one before.
    if "Y" in expected or "G" in expected:
        assert decode_cells(numbers - 80_000, found.column).to_pylist() == cells


def test_durations_below_nothing_are_read_with_their_sign() -> None:
    # The last as pandas and Python write it: a day less, and a time more.
    for cells, found in (
        (["-00:12:30", "01:00:00", "30:00:00"], [-750, 3600, 108_000]),
        (["-1:05", "+0:10", "25:00"], [-3900, 600, 90_000]),
        (["-1 days +23:59:50", "0 days 00:10:00", "2 days 00:00:01"], [-10, 600, 172_801]),
        (["-1 day, 23:59:50", "1 day, 0:10:00", "2 days, 0:00:01"], [-10, 87_000, 172_801]),
    ):
        column = column_of(cells * 20).column
        assert (column.type, column.low) == ("datetime", None)
        assert encode_cells(pa.array(cells), column).tolist() == found
        again = decode_cells(np.array(found, np.float64), column)
        assert encode_cells(again, column).tolist() == found


def test_ratios_are_no_times() -> None:
    assert column_of([("16:9", "4:3", "21:9")[i % 3] for i in range(90)]).column.type == "category"


def test_weeks_that_a_year_lacks_are_none() -> None:
    column = Column(name="week", type="datetime", datetime_format="%G-W%V", date_only=True)
    seconds = encode_cells(pa.array(["2020-W53", "2021-W01"]), column)
    assert np.diff(seconds) == 7 * 86_400
    with pytest.raises(TableError, match="row 1"):
        encode_cells(pa.array(["2021-W53"]), column)


@pytest.mark.parametrize(("other", "form"), [("%d.%m.%Y", "%d.%m.%Y"), ("%m/%d/%Y", "%m/%d/%Y")])
def test_dates_in_two_formats_are_each_read_in_the_one_that_fits(other: str, form: str) -> None:
    days = [date(2015, 1, 1) + timedelta(days=37 * i % 2800) for i in range(150)]
    cells = [day.strftime("%Y-%m-%d" if i % 2 else other) for i, day in enumerate(days)]
    found = column_of(cells)
    assert set(str(found.column.datetime_format).split("|")) == {"%Y-%m-%d", form}
    numbers = encode_cells(pa.array(cells), found.column)
    assert numbers.tolist() == [(day - date(1970, 1, 1)).days * 86_400 for day in days]


def test_dates_in_three_formats_are_each_read_in_the_one_that_fits() -> None:
    days = [date(2015, 1, 1) + timedelta(days=37 * i % 2800) for i in range(150)]
    forms = ["%m/%d/%Y", "%b %d, %Y", "%Y-%m-%d"]
    cells = [day.strftime(forms[i * i % 3 + (i > 20 and i % 7 == 0)]) for i, day in enumerate(days)]
    found = column_of(cells)
    assert set(str(found.column.datetime_format).split("|")) == set(forms)
    numbers = encode_cells(pa.array(cells), found.column)
    assert numbers.tolist() == [(day - date(1970, 1, 1)).days * 86_400 for day in days]


def test_dates_in_formats_that_could_be_each_other_are_no_dates() -> None:
    forms = ["{m:02}/{d:02}/2023", "2023-{m:02}-{d:02}", "Mar {d}, 2023"]
    cells = [forms[i % 3].format(m=i % 11 + 1, d=i % 12 + 1) for i in range(90)]
    assert column_of(cells).column.type != "datetime"


@pytest.mark.parametrize(
    ("form", "expected"),
    [
        ("{m}/{d}/2023, {h}:05 PM", "%-m/%-d/%Y, %-I:%M %p"),
        ("Jan {d}, 2023, {h}:05:00 AM", "%b %-d, %Y, %-I:%M:%S %p"),
        ("2023년 {m:02d}월 {d:02d}일", "%Y년 %m월 %d일"),
        ("{d}º de marzo de 2023", "es:%-d de %B de %Y"),
        ("1er juillet 20{d:02}", "fr:%-d %B %Y"),
        ("March {d}th, 2023", "%B %-d, %Y"),
        ("[{d:02}/Mar/2023:{h:02}:05:00 +0000]", "[%d/%b/%Y:%H:%M:%S %z]"),
        ("Fri Mar {d:02} {h:02}:05:00 2023", "%a %b %d %H:%M:%S %Y"),
        ("{d:02}MAR2023", "%d%b%Y"),
        ("2023-W{d:02}-3", "%G-W%V-%u"),
        ("202303{d:02}T{h:02}0500Z", "%Y%m%dT%H%M%SZ"),
        ("2023-03-{d:02} {h:02}:05:00 +0000", "%Y-%m-%d %H:%M:%S %z"),
        ("3/{d}/2023 {h:02}:05 am", "%-m/%-d/%Y %I:%M %P"),
        ("{d:02}/03/2023 {h}:05:00 p. m.", "%d/%m/%Y %-I:%M:%S %p"),
    ],
)
def test_dates_that_programs_of_other_countries_write_are_dates(form: str, expected: str) -> None:
    cells = [form.format(m=1 + i % 12, d=1 + i % 28, h=1 + i % 12) for i in range(90)]
    assert column_of(cells).column.datetime_format == expected


@pytest.mark.parametrize("language", NAMES)
def test_dates_with_months_of_any_language_come_back_as_they_are(language: str) -> None:
    names = NAMES[language]
    for months, form in ((names.months, "{}. {} 2{:03}"), (names.short_months, "{:02}-{}-{}")):
        cells = [form.format(1 + i % 28, months[i % 12], 10 + i % 80) for i in range(90)]
        found = column_of(cells).column
        assert found.type == "datetime"
        numbers = encode_cells(pa.array(cells), found)
        assert decode_cells(numbers, found).to_pylist() == cells
        assert [int(m) for m in numbers.astype("M8[s]").astype("M8[M]").astype(int) % 12] == [
            i % 12 for i in range(90)
        ]


@pytest.mark.parametrize(
    ("times", "step_s"),
    [
        (["08:00", "09:15", "23:30"], 900),
        (["08:00:00", "12:00:00"], 14_400 // 4),
        (["08:00:07", "12:00:00"], 0),
        (["00:00:10", "00:00:05.5"], 0),
        (["00:00:10", "00:00:05"], 5),
    ],
)
def test_the_step_of_a_clock_is_one_that_all_dates_are_on(
    accept: Any, times: Any, step_s: int
) -> None:
    lines = [f"2024-05-{day:02} {time}" for day, time in enumerate(times * 12, 1) if day < 31]
    [column] = accept("\n".join(["at", *lines]).encode()).columns
    assert (column.column.type, column.column.step_s) == ("datetime", step_s)
