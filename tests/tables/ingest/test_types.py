"""Types of columns: what is inferred from cells of any type, with any gaps, in any encoding."""

import csv
import io
from datetime import date, timedelta
from typing import Any

import numpy as np
import pyarrow as pa  # type: ignore[import-untyped] # it ships no type information
import pytest
from hypothesis import given, settings, strategies as st

from tabular.cells import decode_cells, encode_cells
from tabular.columns import Column
from tabular.errors import TableError
from tests.attempts import attempts
from tests.tables.columns import column_of, read

ROWS = 40
RANDOM = np.random.default_rng(0)


def german(value: float) -> str:
    return f"{value:,.2f}".replace(",", "x").replace(".", ",").replace("x", ".")


KINDS: dict[str, tuple[Any, str]] = {
    "number": (lambda i: f"{i * 1.37 - 9:.2f}", "number"),
    "integer": (lambda i: str(i * i - 50), "integer"),
    "decimal comma": (lambda i: german(i * 1111.37 - 9), "number"),
    "thousands": (lambda i: f"{i * 1234567 + 1:,}", "integer"),
    "money": (lambda i: f"${i * 1234.5:,.2f}", "number"),
    "percent": (lambda i: f"{i}.5%", "number"),
    "truth": (lambda i: ("Yes", "no", "NO")[i % 3], "boolean"),
    "bits": (lambda i: str(i % 2), "boolean"),
    "words": (lambda i: ("größer", "x,y", 'q"q', "🙂")[i % 4], "category"),
    "codes": (lambda i: f"0{i % 7}", "category"),
    "iso": (lambda i: (date(2020, 1, 1) + timedelta(days=37 * i)).isoformat(), "datetime"),
    "zoned": (lambda i: f"2021-03-{i % 28 + 1:02}T1{i % 10}:00:00+02:00", "datetime"),
    "day first": (lambda i: f"{i % 28 + 1:02}/{i % 12 + 1:02}/2020", "datetime"),
    "month names": (lambda i: f"{i % 28 + 1} Mar {1990 + i}", "datetime"),
    "ids": (lambda i: f"u{i}-{i * 7}", "ignored"),
    "row numbers": (lambda i: str(i + 1), "ignored"),
    "nothing": (lambda _: "", "ignored"),
    "laps": (lambda i: f"{i % 5}:{i % 60:02}.{i * 7 % 100:02}", "datetime"),
    "fractions": (lambda i: f"{i} {i % 2 + 1}/4", "number"),
    "debits and credits": (lambda i: f"{i}.50 {'CD'[i % 2]}r", "number"),
    "months": (lambda i: f"{1990 + i % 7}{i % 12 + 1:02}", "datetime"),
    "signed": (lambda i: f"{(i - 9) * i * i:+d}", "integer"),
    "kept as text": (lambda i: f"'{i * i - 50}", "integer"),
}


MESSY: dict[str, tuple[Any, str, float]] = {
    "a dash for a gap": (lambda i: "-" if i % 9 == 0 else f"{i}.5", "number", 1.5),
    "a bound for a gap": (lambda i: "<0.01" if i % 9 == 0 else f"{i}.5", "number", 1.5),
    "spaces of print": (lambda i: f"{i}\u202f000,50\u00a0€", "number", 1000.5),
    "apostrophes": (lambda i: f"CHF {i}\u2019000.50", "number", 1000.5),
    "accountants": (lambda i: f"({i}.50)" if i % 2 else f"{i}.50", "number", -1.5),
    "currency in parentheses": (lambda i: f"(${i}.50)", "number", -1.5),
    "accountants of a spreadsheet": (
        lambda i: f"$ ({i}.50)" if i % 2 else f"$ {i}.50" if i else "$ -",
        "number",
        -1.5,
    ),
    "flags and footnotes": (
        lambda i: f"{i}.5{('', '', ' p', '', '**', '', ' [1]')[i % 7]}",
        "number",
        1.5,
    ),
    "debits and credits": (lambda i: f"₹ 1,000.50 {'CD'[i % 2]}r", "number", -1000.5),
    "digits of full width": (
        lambda i: str(i * 11).translate({48 + n: 0xFF10 + n for n in range(10)}),
        "integer",
        11.0,
    ),
    "Arabic digits": (lambda i: f"\u0661\u066b{chr(0x660 + i % 9)}", "number", 1.1),
    "kept as text": (lambda i: f"'{i}.5", "number", 1.5),
    "fractions": (lambda i: f"{i % 9} 1/2" if i % 3 else "3/4", "number", 1.5),
    "signs of fractions": (lambda i: f"{i % 9}½" if i % 3 else "2", "number", 1.5),
    "amounts in millions": (lambda i: f"${i}.50{'BM'[i % 2]}", "integer", 1_500_000.0),
    "dates in Persian digits": (
        lambda i: f"2021/01/{i % 28 + 1:02}".translate({48 + n: 0x6F0 + n for n in range(10)}),
        "datetime",
        1609545600.0,
    ),
    "inches": (lambda i: f'{i}.5"', "number", 1.5),
    "heights": (lambda i: f"{i}.5 m ü. M.", "number", 1.5),
    "lakhs and crores": (lambda i: f"\u20b9 {i},00,{i:02},500", "integer", 10_001_500.0),
    "stamps of forms": (
        lambda i: f"2024/03/01 1:{i:02}:00 PM GMT+1" if i else "2024/03/01 1:00:00 PM GMT-0230",
        "datetime",
        1709294460.0,
    ),
    "a unit": (lambda i: f"{i}.5 km²", "number", 1.5),
    "times of day": (lambda i: f"{i % 24:02}:{i:02}", "datetime", 3660.0),
    "afternoons": (lambda i: f"{i % 12 + 1}:{i:02} PM", "datetime", 50460.0),
    "six digits": (lambda i: f"{2000 + i // 12}{i % 12 + 1:02}", "datetime", 949363200.0),
    "eight digits": (lambda i: f"202101{i % 28 + 1:02}", "datetime", 1609545600.0),
}


@pytest.mark.parametrize("kind", MESSY)
def test_numbers_and_times_in_odd_spellings_are_read_and_read_again(kind):
    make, expected, second = MESSY[kind]
    cells = [make(i) for i in range(ROWS)]
    column = column_of(cells).column
    assert column.type == expected
    numbers = encode_cells(pa.array(cells), column)
    assert numbers[1] == second
    assert np.array_equal(
        encode_cells(decode_cells(numbers, column), column), numbers, equal_nan=True
    )


@pytest.mark.parametrize(
    ("cells", "words"),
    [
        (["{}.5%", "0.{}"], "lack the unit %"),
        (["\uff11{}", "\uff12{}"], "digits of another script"),
    ],
)
def test_numbers_that_are_not_what_they_show_are_told(cells, words):
    text = "".join(f"{cells[i % 2].format(i)},{i}\n" for i in range(11, 60))
    told = [w["detail"] for w in read(f"a,b\n{text}".encode())[0].warnings]
    assert [words in detail for detail in told].count(True) == 1


def test_several_words_for_true_and_false_are_truth_values():
    found = column_of([("Yes", "no", "Y", "N", "1", "0", "Yes")[i % 7] for i in range(70)])
    assert (found.column.type, found.column.levels) == ("boolean", ("Yes", "no"))
    cells = pa.array(["y", "N", "1", "yes", "0"])
    assert encode_cells(cells, found.column).tolist() == [0, 1, 0, 0, 1]
    for other in (["yes", "no", "n"], ["t", "f", "n"], ["0", "1", "yes"]):
        assert column_of([other[i % 3] for i in range(70)]).column.type == "category"


def test_versions_are_a_category_with_all_their_texts():
    found = column_of([f"1.{8 + i % 5}" for i in range(120)])
    assert found.column.type == "category"
    assert set(found.column.levels) == {"1.8", "1.9", "1.10", "1.11", "1.12"}
    assert column_of([f"{i % 5}.50" for i in range(120)]).column.type == "number"
    assert (
        column_of([f"{i % 50}.{i % 7}0"[: 3 + i % 2] for i in range(120)]).column.type == "number"
    )


@pytest.mark.parametrize("texts", [["P{}", "Q{}"], ["Car {}"], ["{}+"], ["A{}B"], ["{}-{}"]])
def test_codes_are_no_numbers_with_units(texts):
    cells = [texts[i % len(texts)].format(i % 10, i) for i in range(ROWS)]
    assert column_of(cells).column.type in ("category", "ignored")


@pytest.mark.parametrize("kind", KINDS)
def test_a_column_of_each_kind_has_its_type_and_a_reason(kind):
    make, expected = KINDS[kind]
    found = column_of([make(i) for i in range(ROWS)])
    assert found.column.type == expected
    assert found.reason


ENCODINGS = ["utf-8", "utf-8-sig", "utf-16", "cp1252"]


@pytest.mark.long
@settings(max_examples=attempts(60), deadline=None, derandomize=True)
@given(data=st.data())
def test_any_table_keeps_its_types_and_cells_with_any_gaps_in_any_encoding(data):
    """Cells that are no gap come back as they were, but for the spelling of numbers."""
    known = st.sampled_from(
        [kind for kind in KINDS if kind not in ("nothing", "row numbers", "ids")]
    )
    kinds = data.draw(st.lists(known, min_size=2, max_size=5, unique=True))
    encoding = data.draw(st.sampled_from(ENCODINGS))
    delimiter = data.draw(st.sampled_from([",", ";", "\t", "|"]))
    gap = data.draw(st.sampled_from(["", "NA", "null", "?"]))
    gaps = data.draw(st.lists(st.sets(st.integers(0, 11)), min_size=5, max_size=5))
    columns = [
        [gap if i % 12 in holes else KINDS[kind][0](i) for i in range(ROWS)]
        for kind, holes in zip(kinds, gaps, strict=False)
    ]
    if any(set(cells) == {gap} for cells in columns):
        return
    if encoding == "cp1252":
        columns = [[cell.replace("🙂", "ß") for cell in cells] for cells in columns]
        columns[0][0] = columns[0][0] or gap
    buffer = io.StringIO()
    writer = csv.writer(buffer, delimiter=delimiter)
    writer.writerow([f"spalte ä{i}" for i in range(len(kinds))])
    writer.writerows(zip(*columns, strict=True))
    summary, stored = read(buffer.getvalue().encode(encoding))
    place = 0
    for cells, found in zip(columns, summary.columns, strict=True):
        present = [cell != gap for cell in cells]
        assert found.missing_count == present.count(False)
        if found.column.type == "ignored":
            continue
        numbers = stored[:, place]
        place += 1
        assert np.array_equal(~np.isnan(numbers), present)
        again = encode_cells(decode_cells(numbers, found.column), found.column)
        assert np.array_equal(numbers, again, equal_nan=True)
        if found.column.type in ("category", "datetime"):
            back = decode_cells(numbers, found.column).to_pylist()
            if found.column.datetime_format is not None or found.column.type == "category":
                shown = [c for c, known in zip(cells, present, strict=True) if known]
                assert [b.lstrip("0") for b in back if b is not None] == [
                    c.lstrip("0") for c in shown
                ]


def test_a_few_texts_among_numbers_are_gaps_with_a_warning_that_names_them():
    cells = [f"{i}.5" for i in range(100)]
    cells[7] = cells[20] = "abc"
    summary, stored = read(
        b"a,b\n" + "".join(f"{c},{i * i}\n" for i, c in enumerate(cells)).encode()
    )
    assert (summary.columns[0].column.type, summary.columns[0].missing_count) == ("number", 2)
    [warning] = [w for w in summary.warnings if w["code"] == "unreadable"]
    assert "2 of 100 cells" in warning["detail"]
    assert "'abc' in row 8" in warning["detail"]
    assert np.isnan(stored[[7, 20], 0]).all()


def test_cells_that_are_gaps_at_the_upload_are_gaps_in_rows_that_are_scored():
    cells = [f"{i}.5{'~' * (i % 30 == 0)}" for i in range(900)]
    found = column_of(cells)
    assert (found.column.type, found.missing_count) == ("number", 30)
    assert np.isnan(encode_cells(pa.array(cells), found.column)).sum() == 30
    assert column_of([r"\N" if i % 9 else f"{i}.5" for i in range(900)]).missing_count == 800


def test_numbers_and_a_few_words_of_few_values_are_a_category():
    found = column_of(
        [("1", "2", "3", "A")[i % 4] if i % 9 == 0 else str(i % 3) for i in range(300)]
    )
    assert found.column.type == "category"
    assert "A" in found.column.levels


def test_rare_texts_are_one_level_past_the_largest_number():
    found = column_of([("a", "b", "c")[min(i % 7, 2)] for i in range(70)], max_levels=1)
    assert (found.column.levels, found.column.other) == (("c",), True)
    assert list(found.level_counts) == [50, 20]


def test_levels_of_megabytes_are_refused_before_the_table_is_stored(monkeypatch):
    monkeypatch.setattr("tabular.ingest.storing.MAX_LIST_BYTES", 1000)
    cells = [f"{'x' * 50}{row % 15}" for row in range(15)]
    with pytest.raises(TableError, match="`max_levels`") as refused:
        column_of(cells, types={"column": "category"})
    assert (refused.value.slug, refused.value.column) == ("limit-metadata", "column")
    assert len(column_of(cells, types={"column": "category"}, max_levels=5).column.levels) == 5


def test_a_quoted_cell_may_span_lines():
    summary, stored = read(b'a,b\n"x\ny",1\n"x\ny",2\n"z",4\n')
    assert summary.columns[0].column.levels == ("x\ny", "z")
    assert stored.tolist() == [[0, 1], [0, 2], [1, 4]]


def test_a_column_that_seems_to_hold_numbers_is_read_again_as_text():
    rows = b"".join(b"%d,%d\n" % (i, i * i) for i in range(60_000))
    summary, _ = read(b"a,b\n" + rows + b"n/x,1\n")
    assert summary.columns[0].column.type in {"integer", "number"}
    assert summary.columns[0].missing_count == 1


def test_row_numbers_are_told_from_years_and_from_columns_without_names():
    years = [str(1950 + i) for i in range(ROWS)]
    assert column_of(years).column.type == "integer"
    summary, _ = read(b"".join(b"%d,%d\n" % (i, i * i) for i in range(ROWS)), header=False)
    assert [c.column.type for c in summary.columns] == ["integer", "integer"]
    nameless = b",b\n" + b"".join(b"%d,%d.5\n" % (3 * i + 7, i * i) for i in range(ROWS))
    assert read(nameless)[0].columns[0].column.type == "ignored"
    shuffled = [str(i) for i in RANDOM.permutation(ROWS)]
    data = "UserID,b\n" + "".join(f"{c},{i * i}.5\n" for i, c in enumerate(shuffled))
    assert read(data.encode())[0].columns[0].column.type == "ignored"


@settings(max_examples=attempts(60), deadline=None, derandomize=True)
@given(
    st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=8), min_size=2, max_size=40)
)
def test_any_texts_are_a_column_whose_cells_come_back(cells):
    cells = [cell.replace("\0", "").replace("\r", " ") for cell in cells]
    found = column_of(cells)
    column: Column = found.column
    if column.type == "category" and column.levels and isinstance(column.levels[0], str):
        numbers = encode_cells(pa.array(cells), column)
        back = decode_cells(numbers, column).to_pylist()
        assert all(b is None or b == c.strip() for b, c in zip(back, cells, strict=True))


@pytest.mark.parametrize(
    ("true", "false"),
    [
        ("ja", "nein"),
        ("Oui", "Non"),
        ("SÍ", "NO"),
        ("VRAI", "FAUX"),
        ("ναι", "όχι"),  # noqa: RUF001  Greek
        ("có", "không"),
        (".T.", ".F."),
        ("vero", "falso"),
        ("是", "否"),
    ],
)
def test_words_for_true_and_false_of_other_languages_are_truth_values(accept, true, false):
    column = accept(f"a,b\n1,{true}\n2,{false}\n3,{true}\n".encode()).columns[1].column
    assert (column.type, set(column.levels)) == ("boolean", {true, false})


@pytest.mark.parametrize("gap", ["-", "n.d.", "--", "unknown"])
def test_texts_that_stand_for_no_value_are_gaps_however_many_they_are(accept, gap):
    rows = [
        f"{gap if n % 10 else f'{n}.5'},{gap if n % 5 else f'{n // 100 + 1:02d}-Jan-2020'}"
        for n in range(900)
    ]
    columns = accept(("v,d\n" + "\n".join(rows)).encode()).columns
    assert [column.column.type for column in columns] == ["number", "datetime"]
    assert [column.missing_count for column in columns] == [810, 720]


def test_a_column_of_pairs_says_what_would_make_it_numbers() -> None:
    cells = [f"{47 + i / 100}, {8 + i / 50}" for i in range(60)]
    found = column_of(cells)
    assert (found.column.type, "two numbers" in found.reason) == ("ignored", True)


@pytest.mark.parametrize(
    "name", ["Acct #", "Invoice No.", "order_nr", "Kundennummer", "CustomerNumber", "caseid"]
)
def test_a_column_of_distinct_numbers_with_the_name_of_an_id_is_one(name: str) -> None:
    cells = [str(1000 + i * 7919 % 5000) for i in range(50)]
    text = "\n".join(f"{cell},{i * i}.25" for i, cell in enumerate(cells))
    assert read(f"{name},beside\n{text}".encode())[0].columns[0].column.type == "ignored"
    assert read(f"Number,beside\n{text}".encode())[0].columns[0].column.type == "integer"


OTHER_SPELLINGS = {
    "margins": ([f"±{n % 37 * 3}" for n in range(300)], "integer"),
    "sas": (
        [f"{1 + n % 28:02d}JAN2024:{n % 24:02d}:{n % 60:02d}:{7 * n % 60:02d}" for n in range(300)],
        "datetime",
    ),
    "jira": (
        [f"{1 + n % 28:02d}/Jan/24 {1 + n % 12}:{n % 60:02d} PM" for n in range(300)],
        "datetime",
    ),
    "date": (
        [f"Mon Jan {1 + n % 28:02d} {n % 24:02d}:{n % 60:02d}:07 UTC 2024" for n in range(300)],
        "datetime",
    ),
    "hemispheres": ([f"{n % 90}.{n:03d}° {'EW'[n % 2]}" for n in range(300)], "number"),
}


@pytest.mark.parametrize("kind", OTHER_SPELLINGS)
def test_margins_times_of_programs_and_hemispheres_are_values(kind: str) -> None:
    cells, expected = OTHER_SPELLINGS[kind]
    column = column_of(cells).column
    assert column.type == expected
    values = encode_cells(pa.array(cells), column)
    assert len(np.unique(values)) > 30
    if kind == "hemispheres":
        assert (values[1::2] < 0).all()


def test_an_id_of_more_rows_than_are_compared_is_one() -> None:
    rows = "".join(f"{7 * n % 40_009},{n % 977}.5\n" for n in range(40_000))
    found = read(f"order_id,v\n{rows}".encode())[0].columns[0]
    assert found.column.type == "ignored"
    assert "that were compared" in found.reason
