"""CSV files as programs write them for people: titles, units, totals, and uneven or aligned rows."""

import numpy as np
import pytest

from tabular.formats import ParseOptions, TableFormat
from tabular.ingest.parse import parse_table
from tabular.typed_table import open_typed
from tests.tables.columns import read

ROWS = [(f"2024-01-{day:02d}", "ab"[day % 2], f"{day}.5") for day in range(1, 31)]


def body(separator=","):
    return "\n".join(separator.join(row) for row in ROWS)


def names(summary):
    return [column.name for column in summary.columns]


def codes(summary):
    return [w["code"] for w in summary.warnings if w["code"] in {"skipped", "uneven", "unreadable"}]


def framed(rows, rule="+---+---+---+"):
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([rule, lines[0], rule, *lines[1:], rule])


LAYOUTS = {
    "title": f"Report for May,,\nof the north,,\n,,\nday,kind,v\n{body()}",
    "units": f"day,kind,v\nd,-,m/s\n{body()}",
    "totals": f"day,kind,v\n{body()}\nTotal,,465.0\nSource: the register",
    "balance": f"day,kind,v\n{body()}\n\n,Closing balance,465.0",
    "totals-without-a-word": f"day,kind,v\n{body()}\n\n,,465.0",
    "balance-of-a-day": f"day,kind,v\n{body()}\n,Solde au 31/01/2024,465.0",
    "padded": f"day,kind,v\n{body()}\n,,\nTotal,,465.0\n(1) as measured,,\n.. = not known,,",
    "stars": f"day,kind,v\n{body()}\n**,Grand total,465.0",
    "comments": "# logger 3\nday,kind,v\n" + body().replace("\n", "\n# restart\n") + "\n#end",
    "empty": f"day,kind,v\n{body()}\n,,\n,,\n,,\n",
    "repeated": f"day,kind,v\n{body()}\nday,kind,v\n{body()[:-1]}6",
    "carriage-returns": f"day,kind,v\r\n{body()}".replace("\n", "\r") + "\rday,kind,v",
    "framed": framed([("day", "kind", "v"), *ROWS]) + "\n30 rows in set (0.00 sec)",
    "printed": "Report\n\n" + framed([("day", "kind", "v"), *ROWS], rule="-" * 30),
    "markdown": framed([("day", "kind", "v"), *ROWS], rule="|:--|---|--:|"),
    "ruled": f" day | kind | v\n-----+------+---\n{body(' | ')}\n(30 rows)",
    "attributes": "% of 2024\n@relation days\n\n@attribute day date\n@ATTRIBUTE 'kind' {a, b}\n"
    f"@attribute v real\n\n@data\n{body()}",
    "widths": "# c\n# d\nday\tkind\tv\n20d\t5s\t14n\n" + body("\t"),
    "total-of": f"day,kind,v\n{body()}\nTotal: all days,--,465.0",
    "fields": "#Version: 1.0\n#Fields: day kind v\n" + body(" "),
}


@pytest.mark.parametrize("text", LAYOUTS.values(), ids=LAYOUTS)
def test_lines_that_are_no_rows_are_left_out_and_named(accept, text):
    summary = accept(text.encode())
    assert names(summary) == ["day", "kind", "v"]
    assert summary.rows % 30 == 0
    assert [c.column.type for c in summary.columns] == ["datetime", "category", "number"]
    assert not any(column.missing_count for column in summary.columns)
    assert set(codes(summary)) == {"skipped"}


@pytest.mark.parametrize("gap", ["\n", "\n\n"])
def test_a_last_row_without_its_first_cell_is_a_row(accept, gap):
    """Read it as a row where no blank line parts it from the others, or blank lines part all."""
    text = gap.join(",".join(row) for row in ROWS)
    assert accept(f"day,kind,v{gap}{text}{gap},dry,3.5".encode()).rows == 31


def test_a_line_of_dashes_in_quotes_is_part_of_its_cell(accept):
    text = "\n".join(f'{row[0]},"up\n----\ndown {row[1]}",{row[2]}' for row in ROWS)
    summary = accept(f"day,text,v\n{text}".encode())
    assert (summary.rows, codes(summary)) == (30, [])
    assert summary.columns[1].column.levels[0].startswith("up\n----\n")


def test_a_time_in_brackets_is_one_value_of_a_log(accept):
    lines = [
        f"10.0.{n % 9}.{n} - {'-' if n % 3 else 'anna'} [01/Feb/2024:10:{n:02}:00 +0100]"
        f' "GET /{n % 2} [a b] HTTP/1.1" 200 {n * 37}'
        for n in range(50)
    ]
    summary = accept("\n".join(lines).encode())
    columns = [column.column for column in summary.columns]
    assert [c.type for c in columns[3:5]] == ["datetime", "category"]
    assert columns[4].levels[0].endswith("[a b] HTTP/1.1")
    assert len(columns) == 7


def test_names_in_two_lines_are_joined(accept):
    summary = accept(f",price,price\nday,kind,euros\n{body()}".encode())
    assert names(summary) == ["day", "price kind", "price euros"]


def test_names_that_come_again_are_joined_with_those_of_their_groups(accept):
    rows = "\n".join(f"a{n % 3},{n},{n * 7 % 11},{n * 5 % 13},{n % 9},{n}.5" for n in range(30))
    head = "Trial,,,,,\n,before,,after,,\nwho,low,high,low,high,rate\n"
    summary = accept(f"{head}{rows}".encode())
    after = ["after low", "after high", "after rate"]
    assert names(summary) == ["who", "before low", "before high", *after]
    assert (summary.rows, summary.columns[2].column.type) == (30, "integer")


def test_a_second_line_that_fills_the_gaps_of_the_header_names_columns(accept):
    rows = "\n".join(f"{n * n},{n},{n % 5},{(n + 1) % 5},{n}.5,note" for n in range(30))
    head = "answer,at,How good is,,when,\n,,the price,the service,,Comments"
    summary = accept(f"{head}\n{rows}".encode())
    good = ["How good is the price", "How good is the service"]
    assert names(summary) == ["answer", "at", *good, "when", "when Comments"]
    assert (summary.rows, codes(summary)) == (30, ["skipped"])
    # A row of data without some values is none of names.
    gaps = f"a,at,b,,when,\n4,,,,1.5,note\n{rows}"
    assert accept(gaps.encode()).rows == 31


def test_a_row_below_two_of_names_may_name_the_first_column_alone(accept):
    rows = "\n".join(f"{'ab'[n % 2]},{n}.5,{n * 7 % 11}" for n in range(30))
    summary = accept(f",price,price\n,low,high\nshop,,\n{rows}".encode())
    assert (names(summary), summary.rows) == (["shop", "price low", "price high"], 30)


@pytest.mark.parametrize("ends", [";", ";;;"])
def test_rows_that_end_with_separators_are_below_their_header(accept, ends):
    text = "\n".join(";".join(row) + ends for row in ROWS)
    summary = accept(f"day;kind;v\n{text}".encode())
    assert (names(summary)[:3], summary.rows, codes(summary)) == (["day", "kind", "v"], 30, [])
    assert {column.column.type for column in summary.columns[3:]} == {"ignored"}


def test_most_rows_may_lack_their_last_cells(accept):
    text = "\n".join("|".join([*row, "note"][: 4 - (n % 3 > 0)]) for n, row in enumerate(ROWS))
    summary = accept(f"day|kind|v|more\n{text}".encode())
    assert (summary.rows, codes(summary)) == (30, ["uneven"])
    assert [column.missing_count for column in summary.columns] == [0, 0, 0, 20]


@pytest.mark.parametrize("gap", ["  ", "\t ", "    "])
def test_aligned_columns_are_told_by_runs_of_blanks(accept, gap):
    text = "\n".join(f" {gap.join(row)}{' ' * (at % 3)}" for at, row in enumerate(ROWS))
    summary = accept(f"  day {gap} kind {gap} v\n{text}\n".encode())
    assert (names(summary), summary.rows) == (["day", "kind", "v"], 30)


def test_numbers_between_equally_many_blanks_have_no_empty_columns_between_them(accept):
    rows = "\n".join(f"{n % 9}   {n * 7 % 9}" for n in range(30))
    summary = accept(f"a   b\n{rows}\n".encode())
    assert (names(summary), summary.rows) == (["a", "b"], 30)


def test_a_header_in_quotes_may_span_lines(accept):
    summary = accept(f'day,"how\nmuch, really",v\n{body()}'.encode())
    assert (names(summary)[1], summary.rows) == ("how much, really", 30)


def test_apostrophes_quote_where_all_names_are_in_them(accept):
    text = "\n".join(",".join(f"'{cell}'" for cell in row) for row in ROWS)
    summary = accept(f"'day','kind','v'\n{text}".encode())
    assert names(summary) == ["day", "kind", "v"]
    assert summary.columns[2].column.type == "number"


@pytest.mark.parametrize("unit", ["kg", "°C"])
def test_one_column_of_numbers_with_a_unit_is_one_column(accept, unit):
    summary = accept(("size\n" + "".join(f"{n % 9} {unit}\n" for n in range(200))).encode())
    assert (names(summary), summary.rows, codes(summary)) == (["size"], 200, [])


@pytest.mark.long
def test_a_cell_of_megabytes_is_read(accept):
    rows = body().split("\n")
    rows[20] = f"2024-01-21,{'x' * 5_000_000},1.5"
    summary = accept(("day,kind,v\n" + "\n".join(rows)).encode())
    assert (summary.rows, summary.columns[1].column.other) == (30, True)


def test_rows_without_values_at_the_end_are_rows_where_they_are_few(accept):
    assert accept(f"day,kind,v\n{body()}\n,,\n".encode()).rows == 31


def test_a_long_run_of_blanks_is_joined_at_once(accept):
    rows = ["   ".join(row) for row in ROWS]
    rows[9] = f"2024-01-10{' ' * 400_000}a   1.5"
    assert accept(("day   kind   v\n" + "\n".join(rows)).encode()).rows == 30


@pytest.mark.parametrize("text", LAYOUTS.values(), ids=LAYOUTS)
def test_a_file_to_score_has_the_same_rows_as_its_upload(tmp_path, text):
    source, stored = tmp_path / "a.csv", tmp_path / "a.npy"
    source.write_bytes(text.encode())
    summary = parse_table(source, stored, format=TableFormat.CSV)
    columns = [one.column for one in summary.columns]
    rows = open_typed(
        source,
        format=TableFormat.CSV,
        options=ParseOptions(),
        columns=columns,
        choose=lambda names, _: [names.index(column.name) for column in columns],
    )
    np.testing.assert_array_equal(np.concatenate(list(rows.chunks)), np.load(stored))
    codes = {"skipped", "uneven"}
    told = [[w for w in found if w["code"] in codes] for found in (rows.warnings, summary.warnings)]
    assert told[0] == told[1]


def test_aligned_rows_are_no_remarks_at_the_end(accept):
    rows = "\n".join(
        f"USW{i % 3:05d}  20230{1 + i % 9}01  {i * 7 % 50:5d}  word" for i in range(60)
    )
    found = accept(f"STATION   DATE      TMAX   KIND\n{rows}".encode())
    assert (found.rows, len(found.columns)) == (60, 4)


def test_a_statement_of_a_bank_begins_below_its_balance(accept):
    head = '"Konto:";"DE12"\n\n"Von:";"1.1."\n"Stand vom 31.12.:";"1.234,56 EUR"\n\n'
    rows = "\n".join(
        f'"{1 + i % 28:02d}.01.2023";"Laden {i % 3}";"{"-" * (i % 2)}{i * 37 % 900},{i % 90 + 10}";"EUR"'
        for i in range(60)
    )
    found = accept(f"{head}Tag;Zweck;Betrag;Währung\n{rows}".encode())
    assert [c.name for c in found.columns] == ["Tag", "Zweck", "Betrag", "Währung"]
    assert found.columns[2].column.decimal == ","


COMMENTED = {
    "names": "% logger 3\n% t x y\n",
    "no-names": "# written by a program\n",
    "slashes": "// logger 3\n// rate 100\nt,x,y\n",
}


@pytest.mark.parametrize("top", COMMENTED.values(), ids=COMMENTED)
def test_comments_of_other_programs_are_no_rows_and_may_name_the_columns(accept, top):
    separator, mark = ("," if "," in top else " "), top.split(" ")[0]
    lines = [separator.join((f"{n / 7:.3f}", f"{n % 9}.5", f"-{n % 5}.25")) for n in range(40)]
    if separator == ",":
        lines.insert(20, f"{mark} restart")
    summary = accept((top + "\n".join(lines)).encode())
    assert names(summary) == (["x1", "x2", "x3"] if top == COMMENTED["no-names"] else list("txy"))
    assert summary.rows == 40
    assert not any(column.missing_count for column in summary.columns)


def test_a_byte_order_mark_between_joined_files_is_no_text(accept):
    mark, half = "\ufeff", "day,kind,v\n" + body() + "\n"
    summary = accept((mark + half + mark + half).encode())
    assert summary.rows == 60
    assert [c.column.type for c in summary.columns] == ["datetime", "category", "number"]
    assert not any(column.missing_count for column in summary.columns)


def test_a_header_that_comes_again_may_have_names_that_begin_with_digits(accept):
    header = "day,kind,3P%"
    summary = accept(f"{header}\n{body()}\n{header}\n{body()}".encode())
    assert summary.rows == 60
    assert [c.column.type for c in summary.columns] == ["datetime", "category", "number"]


OTHER_TABLES = {
    "wider": "\nitem,price,sold,rating\n" + "tea,3.5,yes,4\njam,2.5,no,5\n" * 9,
    "as-wide": "\n\nitem,price,sold\n" + "tea,3.5,7\njam,2.5,9\n" * 9,
    "titled": ",,\nSecond table,,\nitem,price,sold\n" + "tea,3.5,7\njam,2.5,9\n" * 9,
    "carriage-returns": "\r\nitem,price,sold\r\n" + "tea,3.5,7\r\njam,2.5,9\r\n" * 9,
}


@pytest.mark.parametrize("below", OTHER_TABLES.values(), ids=OTHER_TABLES)
def test_a_table_below_a_blank_line_is_left_out_and_its_line_named(accept, below):
    end = "\r\n" if "\r" in below else "\n"
    data = f"day,kind,v\n{body()}\n".replace("\n", end) + below
    summary = accept(data.encode())
    assert summary.rows == 30
    assert [c.column.type for c in summary.columns] == ["datetime", "category", "number"]
    line = data.replace("\r", "").split("\n").index(below.replace("\r", "").split("\n")[-20]) + 1
    (told,) = [w["detail"] for w in summary.warnings if w["code"] == "skipped"]
    assert f"begins in line {line} " in told


NOT_OTHER = {
    "rows": "day,kind,v\n" + body() + "\n\n" + body(),
    "header": "day,kind,v\n" + body() + "\n\nday,kind,v\n" + body(),
    "gaps": "day,kind,v\n" + body() + "\n,,\n" + body(),
    "in-a-cell": "day,kind,v\n"
    + body()
    + '\n2024-03-01,"a\n\nb,c,d\n1,2,3\n1,2,3\n1,2,3\n",1.5\n'
    + body(),
}


@pytest.mark.parametrize("text", NOT_OTHER.values(), ids=NOT_OTHER)
def test_blank_lines_alone_begin_no_table(accept, text):
    summary = accept(text.encode())
    assert summary.rows in {60, 61}
    assert not any("Another table" in w["detail"] for w in summary.warnings)


def test_a_far_other_table_is_found_in_any_block(accept):
    rows = "".join(f"2024-01-01,a,{n}.25\n" for n in range(120_000))
    other = "item,price,sold\n" + "tea,3.5,7\n" * 20
    summary = accept(f"day,kind,v\n{rows}\n{other}".encode())
    assert summary.rows == 120_000
    assert any("begins in line 120003 " in w["detail"] for w in summary.warnings)


def test_rows_that_name_totals_of_others_are_told(accept):
    rows = [f"{day},{kind},{v}" for day, kind, v in ROWS]
    rows[10:10] = [",a total,60.0"]
    rows[21:21] = [",Grand Total,110.0"]
    summary = accept(("day,kind,v\n" + "\n".join(rows)).encode())
    (told,) = [w for w in summary.warnings if w["code"] == "totals"]
    assert told["column"] == "kind"
    assert told["detail"].startswith("2 cells name totals, the first in row 11.")
    ordinary = accept(("day,kind,v\n" + body().replace(",a,", ",total,")).encode())
    assert "totals" not in {w["code"] for w in ordinary.warnings}, "half of the rows are no sums"


def test_a_quote_that_is_never_closed_is_named_by_its_line(refuse):
    rows = body().split("\n")
    rows[13] = rows[13].replace(",a,", ',"a,')
    told = refuse(("day,kind,v\n" + "\n".join(rows)).encode())
    assert told.slug == "dataset-parse"
    assert "It begins in line 15:" in told.detail


LINES = "".join(f"{i}.5,{'uvw'[i % 3]}\n" for i in range(40))


@pytest.mark.parametrize(
    ("top", "skipped"),
    [
        ("a,b\n", False),
        ("# exported today\n# units: mM, s, h\n\na,b\n", True),
        ("# exported today\n#a,b\n", True),
        ("Report of all sites\n\nFrom 2020\na,b\n", True),
        ("Report, of all sites, from 2020\r\n\r\na,b\r\n", True),
    ],
)
def test_lines_above_a_header_are_left_out_with_a_warning(top, skipped):
    summary, stored = read((top + LINES).encode())
    assert [c.name.lstrip("#") for c in summary.columns] == ["a", "b"]
    assert len(stored) == 40
    assert ("skipped" in [w["code"] for w in summary.warnings]) is skipped


@pytest.mark.parametrize("mark", [",", ";", "\t", " "])
def test_row_names_as_r_writes_them_are_a_column_without_a_name(mark):
    rows = "".join(f'"Car {i}"{mark}{i}.5{mark}{i % 3}\n' for i in range(40))
    summary, _ = read((f'"mpg"{mark}"gear"\n' + rows).encode())
    assert [(c.name, c.column.type) for c in summary.columns] == [
        *(("x1", "ignored"), ("mpg", "number"), ("gear", "integer"))
    ]


def test_a_separator_after_the_last_value_is_no_row_name():
    summary, stored = read(("a,b\n" + LINES.replace("\n", ",\n")).encode())
    assert [(c.name, c.column.type) for c in summary.columns] == [
        *(("a", "number"), ("b", "category"), ("x3", "ignored"))
    ]
    assert stored[1].tolist() == [1.5, 1.0]


def test_a_single_column_of_sentences_has_no_lines_above_it():
    words = ["so it is", "that, they say, is it", "well"]
    rows = "".join(f'"{words[i % 3]}"\n' for i in range(40))
    summary, stored = read(("said\n" + rows).encode())
    assert [c.name for c in summary.columns] == ["said"]
    assert len(stored) == 40


def test_a_first_line_of_data_is_told_by_its_decimals():
    summary, _ = read(("5.1,setosa\n" + LINES).encode())
    assert "numeric_header" in [w["code"] for w in summary.warnings]
    summary, _ = read(b"country,2001,2002\n" + b"".join(b"c%d,%d,2\n" % (i, i) for i in range(9)))
    assert "numeric_header" not in [w["code"] for w in summary.warnings]
