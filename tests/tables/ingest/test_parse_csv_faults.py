"""Group A of the fault catalogue, rows 1 to 25: bad CSV files, one test a row or case."""

import numpy as np
import pytest

from tabular.formats import ParseOptions, TableFormat
from tabular.readers.layout import find_layout
from tabular.readers.section import Section
from tabular.readers.text import open_text
from tests.tables.files import npy

NPY = TableFormat.NPY


@pytest.mark.parametrize("data", [b"", b"\xef\xbb\xbf", b"\n\r\n"])
def test_an_empty_csv_is_refused(refuse, data):
    assert refuse(data).slug == "dataset-empty"


@pytest.mark.parametrize("data", [b"a,b", b"a,b\n", b"a,b\r\n\r\n"])
def test_a_csv_of_a_header_alone_is_refused(refuse, data):
    assert refuse(data).slug == "dataset-empty"


def test_one_row_is_too_few_and_the_problem_says_how_many_are_needed(refuse):
    error = refuse(b"a,b\n1,2\n")
    assert error.slug == "dataset-too-small"
    assert "needs 2" in error.detail


def test_one_column_is_a_table(accept):
    assert [c.name for c in accept(b"a\n1\n2\n4\n").columns] == ["a"]


def test_too_many_columns_are_refused_from_the_header(refuse):
    header = ",".join(f"c{i}" for i in range(10_000)).encode()
    error = refuse(header + b"\nthese,are,not,rows\n")
    assert error.slug == "limit-columns"
    assert "4096" in error.detail


def test_a_header_longer_than_a_block_is_refused_by_its_columns(refuse):
    assert refuse(b"c," * 400_000 + b"c\n").slug == "limit-columns"
    assert refuse(b"c" * 800_000 + b"\n").slug == "dataset-parse"


@pytest.mark.parametrize("bad", [b"1,2,3", b"1"])
def test_a_ragged_row_is_refused_with_its_number(refuse, bad):
    error = refuse(b"a,b\n1,2\n\n2,3\n" + bad + b"\n4,5\n")
    assert (error.slug, error.row) == ("dataset-parse", 3)
    assert "Row 3" in error.detail


def test_the_row_number_counts_over_all_blocks(refuse):
    rows = b"".join(b"%d,%d.5\n" % (i, i * i) for i in range(100_000))
    error = refuse(b"a,b\n" + rows + b"7,8,9\n" * 20_000)
    assert (error.slug, error.row) == ("dataset-parse", 100_001)


def test_a_few_uneven_rows_among_many_keep_their_places(accept):
    rows = [b"%d,x,%d.5" % (i, i * i) for i in range(60_000)]
    rows[2], rows[50_000], rows[59_999] = b"2", b"50000,x,1.5,more", b"59999,x"
    summary = accept(b"a,b,c\n" + b"\n".join(rows))
    assert summary.rows == 60_000
    assert [column.missing_count for column in summary.columns] == [0, 1, 2]
    warning = next(w for w in summary.warnings if w["code"] == "uneven")
    assert "2 rows have fewer values" in warning["detail"]
    assert "first in row 3" in warning["detail"]
    assert ". Row 50001 has" in warning["detail"]


def test_a_huge_field_is_refused(refuse):
    error = refuse(b"a,b\n1,2\n1," + b"7" * 20_000_000 + b"\n3,4\n")
    assert error.slug == "dataset-parse"


def test_a_latin_1_file_is_read_with_a_warning_and_refused_as_utf_8(refuse, accept):
    data = "é,b\n1,2\n2,3\n".encode("latin-1")
    summary = accept(data)
    assert summary.columns[0].name == "é"
    assert [w["code"] for w in summary.warnings if w["code"] == "encoding"] == ["encoding"]
    assert refuse(data, encoding="utf-8").slug == "dataset-encoding"


def test_utf_16_with_its_mark_is_read(accept):
    assert accept("é,b\n1,2\n2,3\n".encode("utf-16")).columns[0].name == "é"


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
def test_utf_16_without_its_mark_is_read_and_refused_as_utf_8(refuse, accept, encoding):
    data = "a,b\n1,2\n2,3\n".encode(encoding)
    assert [column.name for column in accept(data).columns] == ["a", "b"]
    assert refuse(data, encoding="utf-8").slug == "dataset-encoding"


def test_a_byte_order_mark_is_no_part_of_the_name(accept):
    assert accept(b"\xef\xbb\xbfa,b\n1,2\n2,4\n").columns[0].name == "a"
    assert accept(b"\xef\xbb\xbf1,2\n2,4\n", header=False).columns[0].min == 1.0


def test_nul_bytes_are_left_out(accept):
    summary = accept(b"a,b\n1,x\n2,x\x00\n3,x\n")
    assert summary.columns[1].column.levels == ("x",)


@pytest.mark.parametrize(
    ("header", "names"),
    [
        ("a,a,a", ["a", "a_2", "a_3"]),
        ("é,e\u0301,b", ["é", "é_2", "b"]),
        ("a,a,a_2", ["a", "a_3", "a_2"]),
        (",b,", ["x1", "b", "x3"]),
    ],
)
def test_duplicate_and_empty_names_are_mended_with_a_warning(accept, header, names):
    summary = accept(f"{header}\n1,2,4\n2,3,7\n".encode())
    assert [column.name for column in summary.columns] == names
    assert "renamed" in [warning["code"] for warning in summary.warnings]


@pytest.mark.parametrize("formula", [b"=1+1", b"@SUM(A1)", b"+cmd", b"-2+3"])
def test_a_formula_is_no_number_and_is_not_echoed(refuse, accept, formula):
    data = b"a,b\n1,2\n3," + formula + b"\n"
    error = refuse(data, types={"b": "number"})
    assert (error.slug, error.column) == ("dataset-dtype", "b")
    assert formula.decode() not in str(error.errors) + error.detail
    assert accept(data).columns[1].column.type == "category"


@pytest.mark.parametrize("value", [b"1e400", b"-1e400", b"inf", b"-Infinity"])
def test_an_infinite_value_is_a_gap_with_a_warning(accept, refuse, stored, value):
    data = b"a,b\n1,2\n2,3\n3," + value + b"\n"
    [warning] = [w for w in accept(data).warnings if w["code"] == "nonfinite"]
    assert (warning["column"], warning["detail"].split()[:4]) == ("b", ["1", "of", "3", "cells"])
    assert "row 3" in warning["detail"]
    np.testing.assert_array_equal(stored(), [[1, 2], [2, 3], [3, np.nan]])
    assert accept(data, missing="drop").rows_dropped == 1
    error = refuse(data, missing="error")
    assert (error.slug, error.column, error.row) == ("dataset-nonfinite", "b", 3)


@pytest.mark.parametrize("value", [b"NaN", b"", b"NA", b" NA", b" ", b"null", b'"NA"', b"?"])
def test_a_missing_value_is_refused_or_its_row_dropped(refuse, accept, value):
    data = b"a,b\n1,2\n2," + value + b"\n3,5\n"
    error = refuse(data, missing="error")
    assert (error.slug, error.column, error.row) == ("dataset-nonfinite", "b", 2)
    assert accept(data).columns[1].missing_count == 1
    summary = accept(data, missing="drop")
    assert (summary.rows, summary.rows_dropped) == (2, 1)
    warning = next(w for w in summary.warnings if w["code"] == "missing")
    assert "1 of 3 rows" in warning["detail"]
    assert "row 2" in warning["detail"]


def test_a_table_of_missing_values_is_empty_or_too_small(refuse):
    assert refuse(b"a,b\n1,\n,2\n", missing="drop").slug == "dataset-empty"
    assert refuse(b"a,b\n1,\n2,2\n", missing="drop").slug == "dataset-too-small"


@pytest.mark.parametrize("options", [{}, {"delimiter": ";"}, {"decimal": ","}])
def test_decimal_commas_and_another_delimiter_are_read(accept, stored, options):
    accept(b"a;b\n1,5;2\n2,5;3\n", **options)
    assert stored().tolist() == [[1.5, 2.0], [2.5, 3.0]]


@pytest.mark.parametrize(
    "data",
    [
        b'a,b\n1,"2\n3,4\n5,6\n',
        b'a,b\n1,2\n3,"4',
        b'a,b\n1,2\n3,"4\n',
        b'a,"b\n1,2\n3,4\n',
        b"a,b\n" + b"1,2\n3,4\n" * 50_000 + b'1,"2\n' + b"1,2\n3,4\n" * 100_000,
    ],
    ids="ABCDE",
)
def test_an_unclosed_quote_is_refused(refuse, data):
    assert refuse(data).slug == "dataset-parse"


@pytest.mark.parametrize("value", [b"1e308", b"-1.7e308", b"1.1e37"])
def test_a_value_beyond_what_models_compute_with_is_a_gap(accept, refuse, value):
    data = b"a,b\n1,2\n" + value + b",3\n2,4\n"
    summary = accept(data)
    assert ("nonfinite", "a") in [(w["code"], w["column"]) for w in summary.warnings]
    assert (summary.columns[0].missing_count, summary.columns[0].max) == (1, 2)
    error = refuse(data, missing="error")
    assert (error.slug, error.column, error.row) == ("dataset-range", "a", 2)


def test_the_largest_values_have_finite_statistics(accept):
    column = accept(b"a,b\n1e37,2\n-1e37,3\n").columns[0]
    assert (column.mean, column.std) == (0.0, 1e37)


def test_denormal_columns_are_constant(refuse, accept, stored):
    data = b"a,b\n1e-320,2\n2e-320,3\n5e-324,5\n"
    error = refuse(data, constant="error")
    assert (error.slug, error.column) == ("dataset-constant-column", "a")
    summary = accept(data)
    assert summary.columns[0].column.type == "ignored"
    assert stored().tolist() == [[2.0], [3.0], [5.0]]


def test_a_small_spread_that_float32_can_scale_is_kept(accept):
    assert accept(b"a,b\n1e-36,2\n2e-36,3\n5e-36,5\n").columns[0].std > 1e-36


def test_a_constant_column_is_refused_and_named(refuse):
    error = refuse(b"a,b,c\n1,2,3\n1,3,3\n1,4,3\n", constant="error")
    assert (error.slug, error.column) == ("dataset-constant-column", "a")
    assert [name for name, _ in error.errors] == ["a", "c"]
    assert "'a', 'c'" in error.detail


def test_a_constant_column_is_dropped_or_kept_on_demand(accept, stored):
    data = b"a,b,c\n1,2,3\n1,3,3\n1,5,3\n"
    dropped = accept(data, constant="drop")
    assert [c.name for c in dropped.columns] == ["b"]
    assert stored().tolist() == [[2.0], [3.0], [5.0]]
    kept = accept(data, constant="keep")
    assert [c.std for c in kept.columns] == [0.0, pytest.approx(1.2472191289246473), 0.0]
    assert [c.column.levels for c in kept.columns] == [(1,), (), (3,)]
    for summary in (dropped, kept):
        warned = [w["column"] for w in summary.warnings if w["code"] == "constant"]
        assert warned == ["a", "c"]


@pytest.mark.parametrize(("slope", "offset"), [(1.0, 0.0), (-2.5, 3.0)])
def test_linear_dependence_is_a_warning(accept, slope, offset):
    x = np.random.default_rng(0).normal(size=(1000, 2))
    summary = accept(npy(np.column_stack([x, offset + slope * x[:, 1]])), NPY)
    [warning] = [w for w in summary.warnings if w["code"] == "collinear"]
    assert warning["column"] == "x3"
    assert "'x2'" in warning["detail"]
    assert "'x1'" not in warning["detail"]


@pytest.mark.parametrize("constant", ["error", "drop"])
def test_identical_rows_are_refused(refuse, constant):
    error = refuse(b"a,b\n1,2\n1,2\n1,2\n", constant=constant)
    assert error.slug == "dataset-constant-column"
    assert "all rows are the same" in error.detail


def test_whole_numbers_and_few_values_have_their_types(accept):
    rng = np.random.default_rng(0)
    columns = [
        rng.integers(0, 1_000_000, 500),
        rng.choice([0.5, 1.5, 2.25], 500),
        rng.normal(size=500),
    ]
    summary = accept(npy(np.column_stack(columns)), NPY)
    typed = [column.column for column in summary.columns]
    assert [column.type for column in typed] == ["integer", "number", "number"]
    assert [column.levels for column in typed] == [(), (0.5, 1.5, 2.25), ()]
    assert summary.warnings == []


@pytest.mark.parametrize(
    ("name", "mended"),
    [
        ("a\u202eb", "ab"),
        ("\u2066x", "x"),
        ("a\u200bb", "ab"),
        ("a\u0007b", "ab"),
        ("x" * 129, "x" * 128),
        ("x" * 10_000, "x" * 128),
        ("", "x2"),
        (" ", "x2"),
        ("a\u2028b", "ab"),
    ],
)
def test_a_deceptive_or_long_name_is_mended_and_not_echoed(accept, name, mended):
    summary = accept(f"b,{name}\n1,2\n2,3\n".encode())
    assert summary.columns[1].name == mended
    [warning] = [w for w in summary.warnings if w["code"] == "renamed"]
    assert not name.strip() or name not in warning["detail"]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("🙂", "🙂"),
        ("👩\u200d🔬", "👩\u200d🔬"),
        ("e\u0301", "é"),
        ("x" * 128, "x" * 128),
        ("مساحة", "مساحة"),
        ('"a, b"', "a, b"),
    ],
)
def test_any_other_name_is_kept_in_normal_form(accept, name, expected):
    assert accept(f"b,{name}\n1,2\n2,3\n".encode()).columns[1].name == expected


@pytest.mark.parametrize("name", ["../../etc/passwd", "/dev/null", "C:\\x"])
def test_a_name_like_a_path_is_a_name(accept, tmp_path, name):
    assert accept(f"{name},b\n1,2\n2,3\n".encode()).columns[0].name == name
    assert {p.name for p in tmp_path.iterdir()} == {"upload", "table.npy"}


def test_a_name_like_sql_is_a_name(accept):
    data = b'"x""; DROP TABLE job;--",b\n1,2\n2,3\n'
    assert accept(data).columns[0].name == 'x"; DROP TABLE job;--'


@pytest.mark.long
@pytest.mark.parametrize("cell", [b"q", b"q\0", b'"\0"'])
def test_a_line_without_an_end_is_refused_after_some_mebibytes(refuse, tmp_path, cell):
    assert (
        refuse(b"a,b\n" + b"1,2\n" * 200_000 + b"3," + cell * (30_000_001 // len(cell))).slug
        == "dataset-parse"
    )
    text = open_text(tmp_path / "upload", None)
    section = Section(text, find_layout(text, ParseOptions()))
    while len(section.read(1 << 20)) < 1 << 20:
        pass
    assert section._file.tell() < 10_000_000
    section.close()


@pytest.mark.parametrize("row", [b"1\n", b"1,2,3,4\n"])
def test_a_file_of_uneven_rows_is_refused_by_the_first_of_them(refuse, row):
    error = refuse(b"a,b\n" + b"1,2\n2,5\n" * 100 + row * 400_000)
    assert (error.slug, error.row) == ("dataset-parse", 201)


@pytest.mark.parametrize("rows", [30, 900])
def test_most_rows_with_one_value_of_three_are_refused(refuse, accept, rows):
    lone = [f"{n},x,{n * n}" if n % 4 == 0 else f"{n}" for n in range(rows)]
    assert refuse(("a,b,c\n" + "\n".join(lone)).encode()).slug == "dataset-parse"
    two = [line if "," in line else f"{line},y" for line in lone]
    assert accept(("a,b,c\n" + "\n".join(two)).encode()).rows == rows


def test_a_last_line_of_blanks_is_looked_at_once(accept, refuse):
    rows = b'"a" b"\n1 2\n3 4\n2 7\n5 1'
    assert accept(rows + b" " * 16_000 + b"\n", delimiter=" ").rows == 4
    error = refuse(rows + b" " * 500_000 + b"\n", delimiter=" ")
    assert (error.slug, error.row) == ("dataset-parse", 4)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ('{"a": 1, "b": "x"}\n{"a": 2, "b": "y"}\n', "NDJSON"),
        ('\ufeff[\n  {"a": 1, "b": 2}]', "JSON"),
        ("[[1, 2], [3, 4]]", "JSON"),
        ("<!DOCTYPE html>\n<p>Sign in, please</p>", "HTML"),
        ('<?xml version="1.0"?>\n<rows a="1,2"/>', "XML"),
    ],
)
def test_text_of_another_format_is_not_read_as_rows(refuse, text, found):
    error = refuse(text.encode())
    assert (error.slug, found in str(error)) == ("media-type", True)


def test_lines_that_are_quoted_as_a_whole_are_told(refuse):
    lines = ['"a;b;c"', *(f'"{n};{n * n};x"' for n in range(30))]
    error = refuse("\n".join(lines).encode())
    assert (error.slug, "quotes around whole lines" in str(error)) == ("dataset-shape", True)
