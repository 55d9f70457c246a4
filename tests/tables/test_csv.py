"""CSV files as programs and people write them: the rows that are read, and the lines that are refused or named."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tabular.formats import ParseOptions, TableFormat, TableWarning
from tabular.rows import open_source
from tests.tables.files import Refuse

ROWS = [[f"{i}.5", "red" if i % 3 else "green, dark", f"{i * i}"] for i in range(40)]
NAMES = ["height", "colour", "count"]


@pytest.fixture
def cells(tmp_path: Path) -> Callable[..., tuple[list[str], list[list[str]], dict[str, str]]]:
    """Reads the bytes of a file, and gives names, rows of text and warnings by code."""

    def read(data: bytes, **options: Any) -> tuple[list[str], list[list[str]], dict[str, str]]:
        path = tmp_path / "upload"
        path.write_bytes(data)
        source = open_source(path, TableFormat.CSV, ParseOptions(**options))
        rows = [
            list(row)
            for batch in source.batches()
            for row in zip(*(column.to_pylist() for column in batch.columns), strict=True)
        ]
        return source.names, rows, {one["code"]: one["detail"] for one in source.warnings}

    return read


def lines(rows: list[list[str]], mark: str = ",", *, end: str = "\n") -> str:
    quoted = (
        [f'"{cell}"' if mark in cell or "\n" in cell else cell for cell in row] for row in rows
    )
    return "".join(mark.join(row) + end for row in quoted)


@pytest.mark.parametrize(
    ("mark", "end"), [(",", "\n"), (",", "\r"), (";", "\r\n"), ("\t", "\n"), ("|", "\r\n")]
)
def test_any_separator_and_line_end_is_found(cells, mark, end):
    names, rows, warnings = cells(lines([NAMES, *ROWS], mark, end=end).encode())
    assert (names, rows, warnings) == (NAMES, ROWS, {})


def test_decimal_commas_between_semicolons_are_no_separators(cells):
    table = [[f"{i},25", f"{i},5"] for i in range(20)]
    assert cells(lines(table, ";").encode(), header=False)[1] == table


def test_runs_of_blanks_separate_the_values_of_a_file_that_has_nothing_else(cells):
    assert cells(b"a b\n1   2\n3 4\n5  6\n")[:2] == (
        ["a", "b"],
        [["1", "2"], ["3", "4"], ["5", "6"]],
    )
    towns = [["New York"], ["Paris"], ["Los Angeles"]]
    assert cells(lines([["town"], *towns]).encode())[:2] == (["town"], towns)


def test_quoted_values_hold_separators_quotes_and_line_ends(cells):
    table = [["x,y", "1"], ["two\nlines", "2"], ["z", "3"]]
    assert cells(lines([["a", "b"], *table]).encode())[1] == table
    table[1][0] = "x" * 200_000
    assert cells(lines([["a", "b"], *table]).encode())[1] == table
    assert cells(b'a,b\n"say ""no""",1\n"", 2\n')[1] == [['say "no"', "1"], ["", " 2"]]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_unicode_is_found(cells, encoding):
    assert cells("größe,b\n1,é\n2,x\n".encode(encoding))[0] == ["größe", "b"]


def test_another_encoding_is_read_as_cp1252_with_a_warning_or_as_told(cells, refuse):
    names, _, warnings = cells("a,größe\n1,2\n".encode("cp1252"))
    assert (names, "line 1" in warnings["encoding"]) == (["a", "größe"], True)
    assert cells("имя,b\n1,2\n".encode("cp1251"), encoding="cp1251")[0] == ["имя", "b"]
    assert refuse("é,b\n1,2\n".encode("cp1252"), encoding="utf-8").slug == "dataset-encoding"
    assert refuse("a,b\n1,2\n".encode("utf-16-le")).slug == "dataset-encoding"
    assert refuse("a,b\n1,é".encode()[:-1], encoding="utf-8").slug == "dataset-encoding"


@pytest.mark.parametrize("end", ["\n", ",,\n"])  # as spreadsheets write them
def test_lines_above_the_header_are_left_out_and_counted(cells, end):
    above = ["Report of 2024", "made by hand", ""]
    names, rows, warnings = cells((end.join([*above, ""]) + lines([NAMES, *ROWS])).encode())
    assert (names, rows) == (NAMES, ROWS)
    assert "Lines 1 to 3" in warnings["skipped"]


def test_a_line_of_one_text_and_empty_rows_at_the_end_are_left_out_and_counted(cells):
    _, rows, warnings = cells(lines([NAMES, *ROWS]).encode() + b"\nsource: us\n")
    assert rows == ROWS
    assert "line 43" in warnings["skipped"]
    _, rows, warnings = cells(lines([NAMES, *ROWS]).encode() + b",,\n,,\n")
    assert rows == ROWS
    assert "2 rows" in warnings["skipped"]


def test_rows_behind_a_blank_line_are_rows(cells):
    assert cells(lines([NAMES, *ROWS]).encode() + b"\n" + lines(ROWS).encode())[1] == [*ROWS, *ROWS]


def test_short_rows_lack_their_last_cells_and_are_counted(cells):
    _, rows, warnings = cells(b"a,b,c\n1,2,3\n4,5\n6,7,8\nx\n9,9,9\n7\n")
    assert rows == [
        ["1", "2", "3"],
        ["4", "5", ""],
        ["6", "7", "8"],
        ["x", "", ""],
        ["9", "9", "9"],
        ["7", "", ""],
    ]
    assert "3 rows have fewer values" in warnings["uneven"]
    assert "lines 3, 5, 7" in warnings["uneven"]


def test_no_row_is_lost_where_a_short_one_comes_after_thousands(cells):
    table = [[str(i), str(i * i), "x"] for i in range(200_000)]
    table[150_000] = ["150000"]
    rows = cells(lines([["a", "b", "c"], *table]).encode())[1]
    assert len(rows) == 200_000
    assert (rows[149_999][0], rows[150_000], rows[150_001][0]) == (
        "149999",
        ["150000", "", ""],
        "150001",
    )


@pytest.mark.parametrize(
    ("data", "line"),
    [
        (b"a,b\n1,2\n1,2,3\n4,5\n", 3),
        (b"a,b\n1,2\n1,2,3,\n4,5\n", 3),
        (b'a,b\n1,2\n"never closed,2\n3,4\n', 4),
        (b'a,b\n1,"x"y\n3,4,\n5,6,7\n', 2),
        (b"a,b\n" + b"1,2\n" * 300_000 + b"1,2,3\n", 300_002),
    ],
)
def test_a_row_that_cannot_be_read_is_refused_with_its_line(refuse, data, line):
    error = refuse(data)
    assert (error.slug, f"Line {line}" in error.detail) == ("dataset-parse", True)


@pytest.mark.parametrize("data", [b"", b"\xef\xbb\xbf", b"\n\r\n", b"a,b\n"])
def test_a_file_without_rows_is_refused(refuse: Refuse, data: bytes) -> None:
    assert refuse(data).slug == "dataset-empty"


def test_a_file_without_a_header_has_the_names_x1_to_xd(cells):
    for rows in (
        [["1", "2.5"], ["3", "4"], ["5", "6"]],
        [["1", "red"], ["2", "blue"], ["3", "red"]],
        [
            ["1", "2"],
            ["3.5", "4.5"],
            ["5.5", "6.5"],
        ],  # too few decimals to call whole numbers names
    ):
        names, read, warnings = cells(lines(rows).encode())
        assert (names, read) == (["x1", "x2"], rows)
        assert "header=true" in warnings["numeric_header"]
    assert cells(b"1,2\n3,4\n5,6\n", header=True)[0] == ["1", "2"]
    assert cells(b"a,b\n3,4\n5,6\n", header=False)[1][0] == ["a", "b"]
    assert cells(b"a,b\n3,4\na,b\n5,6\n")[0] == ["a", "b"]  # as of two files in one
    assert cells(b"a,b\nb,a\na,a\nb,b\n")[0] == ["x1", "x2"]


def test_whole_numbers_above_decimals_are_names_and_so_are_years_beside_a_text(cells):
    table = [[f"{(i * 37 + j * 11) % 97 / 97:.3f}" for j in range(3)] for i in range(1, 20)]
    names, rows, warnings = cells(b"887,1345,1021\n" + lines(table).encode())
    assert (names, rows) == (["887", "1345", "1021"], table)
    assert "header=false" in warnings["numeric_header"]
    assert cells(b"item,2019,2020\nx,1,2\ny,3,4\n")[0] == ["item", "2019", "2020"]


def test_row_names_of_r_and_separators_at_the_end_of_rows_have_no_name(cells):
    assert cells(b"a,b\nr1,1,2\nr2,3,4\n")[0] == ["x1", "a", "b"]
    assert cells(b"a,b\n1,2,\n3,4,\n")[0] == ["a", "b", "x3"]
    assert cells(b",b\n7,1\n9,2\n")[0] == ["x1", "b"]


def test_of_lines_that_are_longer_than_the_rows_texts_above_a_table_are_no_names(cells):
    table = [["1", "2", "5"], ["3", "5", "6"], ["4", "8", "8"], ["5", "9", "9"]]
    title = "one,two,three,four\n"
    assert cells((title + lines(table)).encode())[0] == ["one", "two", "three", "four"]
    assert cells(f"above\n{title}1,,\n2,,\n3,,\n".encode())[0] == ["one", "two", "three", "four"]
    names, rows, warnings = cells((title + lines([["a", "b", "c"], *table])).encode())
    assert (names, rows, "skipped" in warnings) == (["a", "b", "c"], table, True)


def test_names_that_cannot_stay_are_mended_with_a_warning(cells):
    names, _, warnings = cells(b"a,a,,b\n1,2,3,4\n5,6,7,8\n")
    assert (names, "renamed" in warnings) == (["a", "a_2", "x3", "b"], True)
    assert cells(b"a,a,a_2,b\n1,2,3,4\n5,6,7,8\n")[0] == ["a", "a_3", "a_2", "b"]
    assert cells(b",b,x1\n1,2,3\n5,6,7\n")[0] == ["x1_2", "b", "x1"]
    joined = "👩\u200d🔬"  # one emoji of two
    names, _, warnings = cells(f"{joined},b\u202e\n1,2\n3,4\n".encode())
    assert names == [joined, "b"]
    assert "column 2" in warnings["renamed"]


def test_the_last_total_is_a_row_that_a_warning_names(accept):
    data = "item,v\n" + "".join(f"{'abc'[i % 3]},{i}\n" for i in range(40)) + "Total,780\n"
    summary = accept(data.encode())
    assert (summary.rows, summary.columns[1].max) == (41, 780)
    [warning] = of_code(summary.warnings, "totals")
    assert "41" in warning
    sums = data.replace("Total", "Subtotal,3\nTotal")
    assert of_code(accept(sums.encode()).warnings, "totals")[0].startswith("2 rows name a total")
    films = "film,x\n" + "".join(f"Film {i},{i * i}.5\n" for i in range(40)) + "Menu total,0.5\n"
    assert not of_code(accept(films.encode()).warnings, "totals")


def of_code(warnings: list[TableWarning], code: str) -> list[str]:
    return [one["detail"] for one in warnings if one["code"] == code]
