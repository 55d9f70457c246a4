"""First lines of CSV files: names of the columns, or a row."""

import pytest

ROWS = [(f"2024-01-{day:02d}", "ab"[day % 2], f"{day}.5") for day in range(1, 31)]


def names(summary):
    return [column.name for column in summary.columns]


@pytest.mark.parametrize(
    "form", ["{d},{k},{v}", "{d} 10:00,{n},{v}", "{n}.5D+0{n},{v}.25,{n}", "{d},{n}%,{v}"]
)
def test_a_first_line_like_the_others_is_a_row(accept, form):
    rows = (form.format(d=d, k=k, v=v, n=n % 9) for n, (d, k, v) in enumerate(ROWS))
    summary = accept("\n".join(rows).encode())
    assert (names(summary), summary.rows) == (["x1", "x2", "x3"], 30)
    assert "numeric_header" in [w["code"] for w in summary.warnings]


@pytest.mark.parametrize("header", ["Country,2000,2001,2002", "300.5,301.0,301.5,302.0"])
def test_names_that_are_numbers_in_steps_stay_names(accept, header):
    rows = "\n".join(f"{n % 3},{n * 7 % 11}.5,{n * 5 % 13}.25,{n}.75" for n in range(40))
    assert names(accept(f"{header}\n{rows}".encode())) == header.split(",")


LIKE_CELLS = {
    "percent": "25%,50%,75%\n{a}%,{b}%,{c}%",
    "hours": "1h,6h,24h\n{a}h,{b}h,{c}h",
    "money": "$10,$20,$50\n${a},${b},${c}",
    "clock": "08:00,12:00,18:00\n0{d}:30,1{d}:15,0{e}:45",
    "ranges": "0-9,10-19,20-29\n{d}-9,1{d}-19,2{e}-29",
    "estimate": "2020,2021,2022E\n{a},{b},{c}E",
    "falling": "75%,50%,25%\n{a}%,{b}%,{c}%",
    "signs": "-5%,0%,5%\n-{a}%,{b}%,{c}%",
}


@pytest.mark.parametrize("form", LIKE_CELLS.values(), ids=LIKE_CELLS)
def test_names_in_steps_that_are_written_like_the_cells_stay_names(accept, form):
    header, row = form.split("\n")
    cells = (
        {"a": n, "b": n * 7 % 31, "c": n * 5 % 13, "d": n % 9, "e": n * 5 % 9} for n in range(40)
    )
    rows = "\n".join(row.format(**one) for one in cells)
    summary = accept(f"{header}\n{rows}".encode())
    assert (names(summary), summary.rows) == (header.split(","), 40)


@pytest.mark.parametrize("index", ["{n}", "city {n}"])
def test_the_gap_above_an_index_with_a_gap_is_no_cell(accept, index):
    """Check what pandas writes of a pivot table whose index has a missing value."""
    rows = "\n".join(
        f"{index.format(n=n) if n != 3 else ''},{n * 7 % 11},{n * 5 % 13},{n}" for n in range(20)
    )
    summary = accept(f",2019,2020,2021\n{rows}".encode())
    assert (names(summary)[1:], summary.rows) == (["2019", "2020", "2021"], 20)


@pytest.mark.parametrize("ends", ["sd", "ss"])
def test_rows_of_short_times_are_no_widths_of_fields(accept, ends):
    rows = "\n".join(f"{n * 7 % 40 + 1}{ends[0]},{n * 5 % 31 + 1}{ends[1]}" for n in range(30))
    assert accept(f"latency,timeout\n{rows}".encode()).rows == 30
