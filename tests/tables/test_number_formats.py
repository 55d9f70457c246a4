"""Numbers as text: found in a file, and written as the file has them."""

# ruff: noqa: RUF001  files have dashes of print

import csv
import io
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pyarrow as pa  # type: ignore[import-untyped] # it ships no type information
import pytest
from hypothesis import given, strategies as st

from tabular.cells import decode_cells, encode_cells
from tabular.columns import Column
from tabular.formats import ColumnSummary, TableFormat
from tabular.ingest.parse import parse_table
from tabular.numerals import format_numbers, with_formats
from tabular.typed_rows import TypedRows
from tabular.writers import CsvTable, TableHead

ROWS = 60
AMOUNTS = [round((i - 20) * 321.25 + 0.5, 2) for i in range(ROWS)]


def column_of(folder: Path, cells: list[str]) -> ColumnSummary:
    """Return the type of a column beside one of text."""
    buffer = io.StringIO()
    writer = csv.writer(buffer)
    writer.writerow(["column", "beside"])
    writer.writerows([cell, "ab"[i % 2]] for i, cell in enumerate(cells))
    (folder / "upload").write_bytes(buffer.getvalue().encode())
    return parse_table(folder / "upload", folder / "table.npy", format=TableFormat.CSV).columns[0]


def german(value: float) -> str:
    return f"{abs(value):,.2f}".replace(",", "x").replace(".", ",").replace("x", ".")


SPELLINGS = {
    "0.00;-0.00": [f"{value:.2f}" for value in AMOUNTS],
    "0.0 kg;-0.0 kg": [f"{i}.{i % 10} kg" for i in range(ROWS)],
    "$#,##0.00;-$#,##0.00": [f"{'-' * (v < 0)}${abs(v):,.2f}" for v in AMOUNTS],
    "#,##0.00;(#,##0.00)": [f"({-v:,.2f})" if v < 0 else f"{v:,.2f}" for v in AMOUNTS],
    "#.##0,00+;#.##0,00-": [german(v) + ("-" if v < 0 else "+") for v in AMOUNTS],
    "#\u202f##0 €;-#\u202f##0 €": [f"{i * 1234:,} €".replace(",", "\u202f") for i in range(ROWS)],
    "Fr. #'##0.–;-Fr. #'##0.–": [
        f"Fr. {1000 + i * 321:,}.–".replace(",", "'") for i in range(ROWS)
    ],
    "₹#,##,##0;-₹#,##,##0": [f"₹{i + 10},{i % 9}0,{i % 9}00" for i in range(ROWS)],
    "+0.0%;-0.0%": [f"{(i * 7 % 50 - 25) / 2 + 0.1:+.1f}%" for i in range(ROWS)],
    "0,00;-0,00": [f"-{i},50" for i in range(ROWS)],
    "+0;-0": [f"{(i - 9) * i * i:+d}" for i in range(ROWS)],
    "#,##0.00 Cr;#,##0.00 Dr": [f"{abs(v):,.2f} {'DC'[v >= 0]}r" for v in AMOUNTS],
    "'0;'-0": [f"'{i * 9 - 5}" for i in range(ROWS)],
    "0/100;-0/100": [f"{i}/100" for i in range(ROWS)],
    "0,# m2;-0,# m2": [f"{i},{i % 4 + 1}{'5' * (i % 2)} m2" for i in range(ROWS)],
}


@pytest.mark.parametrize("form", SPELLINGS)
def test_numbers_are_written_as_the_file_has_them(form: str, tmp_path: Path) -> None:
    column = column_of(tmp_path, SPELLINGS[form]).column
    assert column.number_format == form
    values = encode_cells(pa.array(SPELLINGS[form]), column)
    written = TypedRows([column]).batch(values[:, None])
    head = TableHead(names=["column"], dtypes=[np.dtype(float)], rows=ROWS, schema=written.schema)
    lines = bytes(CsvTable(head).cells(written)).decode()
    assert [line for (line,) in csv.reader(io.StringIO(lines))] == SPELLINGS[form]


@pytest.mark.parametrize(
    "cells",
    [
        [f"{i}.{i * 7 % 10}1" for i in range(ROWS)],  # no zero at the end
        [f"{i / 8}" for i in range(ROWS)],
        [f"{i:05.1f}" for i in range(ROWS)],
        [f"{i}.5E-03" for i in range(ROWS)],
        [f".{i}5" for i in range(ROWS)],
    ],
)
def test_other_numbers_are_written_as_they_are(cells: list[str], tmp_path: Path) -> None:
    assert column_of(tmp_path, cells).column.number_format == ""


def test_decimals_that_come_late_are_not_cut(tmp_path: Path) -> None:
    cells = [f"{i % 97}.{i % 89:02}" for i in range(3000)]
    assert column_of(tmp_path, cells).column.number_format == "0.00;-0.00"
    assert column_of(tmp_path, [*cells, "3.125"]).column.number_format == ""


def test_a_format_that_is_none_changes_nothing() -> None:
    numbers = pa.array([1.5, None, -2.0])
    for form in ("", "kg", "0.00", "0;0;0"):
        assert format_numbers(numbers, form).to_pylist() == ["1.5", None, "-2"]


@given(
    values=st.lists(st.integers(-(10**9), 10**9), min_size=1, max_size=20),
    form=st.sampled_from(sorted(SPELLINGS)),
)
def test_written_numbers_are_read_again(values: list[int], form: str) -> None:
    found = {
        "€": "€",
        "kg": "kg",
        "$": "$",
        "%": "%",
        "/100": "/100",
        "m2": "m2",
        "₹": "₹",
        "Fr.": "Fr.",
    }
    unit = next((sign for sign in found if sign in form), "")
    digits = form.split(";", 1)[0].split("#", 1)[-1]
    thousands = (
        {",": ",", ".": ".", "'": "'", "\u202f": " "}.get(digits[0], "") if "##" in form else ""
    )
    decimal = "," if "0,0" in form or "0,#" in form else "."
    decimals = 2 if ".00" in form or ",00" in form else 0
    column = Column(
        name="a",
        decimal=decimal,
        thousands=thousands,
        unit=unit,
        number_format=form,
        decimals=decimals,
    )
    cells = decode_cells(np.array(values) / 10.0**decimals, column)
    again = encode_cells(format_numbers(cells, form), column)
    assert again.tolist() == cells.to_pylist()


READ = {
    "trailing plus": (["1.234,56+", "7,00-"], [1234.56, -7.0]),
    "four and more": (["3", "4+"], [3.0, np.nan]),
    "angles": (["46°30'00.0\"N", "8°15'36\"W", "12°30'", "-1.5"], [46.5, -8.26, 12.5, -1.5]),
    "no such angle": (["46°61'N"], [np.nan]),
    "thousands": (["1.1K", "2M", "35"], [1100.0, 2e6, 35.0]),
}


@pytest.mark.parametrize("kind", READ)
def test_numbers_with_marks_are_read(kind: str) -> None:
    units = {"angles": "° ' \"", "no such angle": "° ' \"", "thousands": "K|M|B|T"}
    dots = kind == "trailing plus"
    column = Column(
        name="a",
        unit=units.get(kind, ""),
        decimal="," if dots else ".",
        thousands="." if dots else "",
        na_values=("4+", "46°61'N"),
    )
    texts, values = READ[kind]
    assert encode_cells(pa.array(texts), column).tolist() == pytest.approx(values, nan_ok=True)


def test_kinds_of_columns_that_are_no_plain_numbers(tmp_path: Path) -> None:
    kinds = {
        "duration": [f"{i % 9}h {i % 60}m" if i % 9 else f"{i % 60}m" for i in range(ROWS)],
        "clock": [f"{i % 24}時{i % 60:02}分" for i in range(ROWS)],
        "account": [f"40{i % 8:02}-{i % 2 + 10}" for i in range(ROWS)],
        "angle": [f"{i % 90}°{i % 60}'{i % 60}.5\"N" for i in range(ROWS)],
        "size": [f"{i * i + 1} sq.ft." for i in range(ROWS)],
    }
    found = {kind: column_of(tmp_path, cells).column for kind, cells in kinds.items()}
    assert {kind: column.type for kind, column in found.items()} == {
        "duration": "datetime",
        "clock": "datetime",
        "account": "category",
        "angle": "number",
        "size": "integer",
    }
    seconds = encode_cells(pa.array(kinds["duration"][:11]), found["duration"])
    assert seconds[10] == 3600 + 10 * 60
    assert decode_cells(seconds, found["duration"]).to_pylist()[1:] == kinds["duration"][1:11]


@pytest.mark.parametrize("unit", ["", " kg"])
def test_numbers_of_thousands_of_decimals_have_no_format(tmp_path: Path, unit: str) -> None:
    def form(decimals: int) -> str:
        return column_of(
            tmp_path, [f"{i}.5{'0' * (decimals - 1)}{unit}" for i in range(ROWS)]
        ).column.number_format

    assert form(40) == f"0.{'0' * 40}{unit};-0.{'0' * 40}{unit}"
    assert form(41) == form(5_000) == ""
    assert format_numbers(pa.array([1.5]), f"0.{'0' * 5_000};-0.0").to_pylist() == ["1.5"]


def test_columns_with_formats_are_set_at_once():
    columns = [Column(name=f"{n}", decimals=1, number_format="0.0 kg;-0.0 kg") for n in range(3)]
    batch = TypedRows(columns, ["score"]).batch(np.array([[1.5, -2.0, np.nan, 0.5]]))
    watched = Mock(wraps=batch, schema=batch.schema, columns=batch.columns)
    written = with_formats(watched)
    assert written.to_pylist() == [{"0": "1.5 kg", "1": "-2.0 kg", "2": None, "score": 0.5}]
    watched.set_column.assert_not_called()
