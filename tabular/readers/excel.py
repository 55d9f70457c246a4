"""Excel workbooks: one sheet of an .xlsx file, as the rows and columns that it shows."""

from collections.abc import Iterator, Sequence
from datetime import date, datetime, time, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa  # type: ignore[import-untyped] # it ships no type information
from python_calamine import CalamineError, CalamineWorkbook

from tabular.errors import TableError
from tabular.formats import ParseOptions, TableWarning, remedy, warning
from tabular.readers.dialect import lines_above
from tabular.source import Source, check_columns, default_names, mend_names

_STEP_ROWS = 4096
_SHOWN = 10


def open_excel(path: Path, options: ParseOptions) -> Source:
    """Open a sheet of a workbook: the one that the options name, or else the first.

    Its first row with more than one cell names the columns, unless the options say that it is a row. Columns of
    numbers, dates or truth values alone keep their types; others are text.

    Raises:
        TableError: It is no workbook, has no such sheet, or the sheet has no rows.
    """
    rows, sheets, warnings = _rows(path, options)
    above = next((at for at, row in enumerate(rows) if sum(cell != "" for cell in row) > 1), 0)
    if above:
        warnings.append(lines_above(above, "Row"))
    while len(rows) > above and not any(cell != "" for cell in rows[-1]):
        rows.pop()
    first = rows[above] if len(rows) > above else []
    named = options.header is not False and any(isinstance(cell, str) and cell for cell in first)
    body = rows[above + named :]
    if not body:
        raise TableError("dataset-empty", "The sheet has no rows below its header.")
    check_columns(len(first), options=options)
    given = [_text(cell) or "" for cell in first] if named else default_names(len(first))
    names, nameless, renamed = mend_names(given)
    columns = [_column([row[at] for row in body]) for at in range(len(names))]
    table = pa.table(columns, names=[str(at) for at in range(len(names))])

    def batches() -> Iterator[pa.RecordBatch]:
        yield from table.to_batches(max_chunksize=_STEP_ROWS)

    return Source(
        names=names,
        dtypes=[str(column.type) for column in columns],
        types=[column.type for column in columns],
        named=named,
        nameless=nameless,
        batches=batches,
        warnings=[*warnings, *renamed],
        found={"header": named, "sheet": sheets[0] if options.sheet is None else options.sheet},
        sheets=sheets,
    )


def _rows(
    path: Path, options: ParseOptions
) -> tuple[list[list[Any]], list[str], list[TableWarning]]:
    """Return the cells of the sheet, the names of all sheets, and the warning that there are others."""
    try:
        with CalamineWorkbook.from_path(path) as book:
            sheets = book.sheet_names
            sheet = options.sheet if options.sheet is not None else next(iter(sheets), "")
            if sheet not in sheets:
                known = ", ".join(map(repr, sheets[:_SHOWN]))
                raise TableError(
                    "dataset-parse", f"The workbook has no such sheet; it has {known}."
                )
            rows = book.get_sheet_by_name(sheet).to_python(skip_empty_area=True)
    except CalamineError:
        text = "The file is no .xlsx workbook, is damaged, or needs a password."
        raise TableError("dataset-parse", text) from None
    if options.sheet is None and len(sheets) > 1:
        text = f"The workbook has {len(sheets)} sheets; the first is read. Name another by sheet=."
        choose = remedy("sheet", None, "Choose the sheet")
        return rows, sheets, [warning("skipped", None, text, choose)]
    return rows, sheets, []


def _column(cells: Sequence[Any]) -> pa.Array:
    kinds = {type(cell) for cell in cells if cell != ""}
    values = [None if cell == "" else cell for cell in cells]
    if kinds <= {int, float} and kinds:
        return pa.array(values, pa.float64())
    if kinds == {bool}:
        return pa.array(values, pa.bool_())
    if kinds and kinds <= {date, datetime}:
        moments = [
            datetime(c.year, c.month, c.day) if type(c) is date else c  # noqa: DTZ001 - as the sheet shows it
            for c in values
        ]
        return pa.array(moments, pa.timestamp("ms"))
    return pa.array(map(_text, values), pa.string())


def _text(cell: Any) -> str | None:  # noqa: ANN401 - a cell of any type
    if cell is None or isinstance(cell, str):
        return cell
    if isinstance(cell, bool):
        return "true" if cell else "false"
    if isinstance(cell, float) and cell.is_integer():
        return str(int(cell))
    if isinstance(cell, date | datetime | time):
        return cell.isoformat()
    return str(cell.total_seconds()) if isinstance(cell, timedelta) else str(cell)
