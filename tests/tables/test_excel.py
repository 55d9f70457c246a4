"""Workbooks of Excel."""

import io
from collections.abc import Sequence
from datetime import datetime, time, timedelta
from typing import Any

import openpyxl  # type: ignore[import-untyped] # it ships no type information
import pytest
from openpyxl.cell.rich_text import CellRichText  # type: ignore[import-untyped] # as above

from tabular.formats import TableFormat
from tests.tables.files import Accept, Refuse

EXCEL = TableFormat.EXCEL
START = datetime(2021, 3, 1, 12, 0, 0, 250_000)  # noqa: DTZ001 - a workbook knows no zones
ROWS = [
    [i * 1.5, i * i, "red" if i % 3 else "blue", START + timedelta(days=i), i % 2 == 0]
    for i in range(60)
]
NAMES = ["length", "count", "colour", "day", "flag"]


def workbook(**sheets: Sequence[Sequence[Any]]) -> bytes:
    book = openpyxl.Workbook()
    book.remove(book.active)
    for name, rows in sheets.items():
        sheet = book.create_sheet(name)
        for row in rows:
            sheet.append(row)
    content = io.BytesIO()
    book.save(content)
    return content.getvalue()


def test_cells_keep_their_types(accept: Accept, stored: Any) -> None:
    summary = accept(workbook(data=[NAMES, *ROWS]), EXCEL)
    types = {column.name: column.column.type for column in summary.columns}
    assert types == dict(
        zip(NAMES, ["number", "integer", "category", "datetime", "boolean"], strict=True)
    )
    assert stored()[:, 0].tolist() == [row[0] for row in ROWS]
    assert (stored()[:, 3] % 1).tolist() == [0.25] * len(ROWS)


def test_gaps_titles_and_empty_rows_at_the_end_are_no_values(accept: Accept) -> None:
    rows: list[list[Any]] = [
        ["a report"],
        [],
        ["a", "b"],
        *([i + 0.5, None if i % 4 == 0 else i * i] for i in range(40)),
        [None, None],
        [CellRichText("")],
    ]
    summary = accept(workbook(data=rows), EXCEL)
    assert (summary.rows, [c.missing_count for c in summary.columns]) == (40, [0, 10])
    assert any(one["code"] == "skipped" for one in summary.warnings)


def test_numbers_beside_a_gap_in_the_first_row_are_no_names(accept: Accept) -> None:
    rows: list[list[Any]] = [[1.5, None, 2.5], *([i + 0.25, i * 0.5, i * i] for i in range(40))]
    summary = accept(workbook(data=rows), EXCEL)
    assert (summary.rows, [column.name for column in summary.columns]) == (41, ["x1", "x2", "x3"])


def test_a_first_row_of_texts_is_a_row_where_the_caller_says_so(accept: Accept) -> None:
    summary = accept(workbook(data=[["one"], ["two"], ["one"]]), EXCEL, header=False)
    assert (summary.rows, [column.name for column in summary.columns]) == (3, ["x1"])


def test_a_sheet_is_named_or_the_first(accept: Accept, refuse: Refuse) -> None:
    book = workbook(one=[["a"], [1.5], [2.5], [4.5]], two=[["b"], [1.5], [9.5]])
    summary = accept(book, EXCEL)
    assert [column.name for column in summary.columns] == ["a"]
    assert any("sheet=" in one["detail"] for one in summary.warnings)
    assert accept(book, EXCEL, sheet="two").columns[0].name == "b"
    assert "'one', 'two'" in refuse(book, EXCEL, sheet="three").detail
    assert refuse(workbook(data=[["a", "b"]]), EXCEL).slug == "dataset-empty"


@pytest.mark.parametrize("content", [b"a,b\n1,2\n", b"PK\x03\x04nothing", b""])
def test_what_is_no_workbook_is_refused(refuse: Refuse, content: bytes) -> None:
    assert refuse(content, EXCEL).slug in {"media-type", "dataset-parse"}


@pytest.mark.parametrize(
    ("cell", "text"),
    [
        (7, "7"),
        (True, "true"),
        (START, "2021-03-01T12:00:00.250000"),
        (time(1, 2), "01:02:00"),
        (timedelta(days=1), "86400.0"),
    ],
)
def test_mixed_cells_are_text(accept: Accept, cell: Any, text: str) -> None:
    rows: list[list[Any]] = [["a", "b"], *([cell if i % 3 else "zz", i * 1.5] for i in range(40))]
    assert accept(workbook(data=rows), EXCEL).columns[0].column.levels == (text, "zz")
