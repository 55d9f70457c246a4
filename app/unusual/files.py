"""Files of unusual rows, for spreadsheets."""

import csv
import io

from xlsxwriter import Workbook  # type: ignore[import-untyped] # it ships no type information

from app.unusual.views import ReasonView, UnusualView
from tabular.typed_rows import JsonCell
from tabular.writers import FORMULA_STARTS

_CSV = "text/csv"
_EXCEL = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"
MEDIA_TYPES = {_CSV: "csv", _EXCEL: "xlsx"}
"""Suffixes of files by their media types."""

_MAX_CHARACTERS = 32_767  # of a cell of Excel
_OWN = ["row", "held_out", "rank", "log_prob", "reasons", "review"]


def unusual_file(view: UnusualView, media_type: str) -> tuple[bytes, str]:
    """Return a file of the rows of a view, and its suffix: what is known of each row, then its cells."""
    head: list[JsonCell] = [*_OWN, *view.columns]
    rows: list[list[JsonCell]] = [
        [
            row.row,
            row.held_out,
            row.rank,
            row.log_prob,
            "; ".join(map(told_reason, row.reasons)),
            row.review,
            *(row.cells[name] for name in view.columns),
        ]
        for row in view.rows
    ]
    write = _csv if media_type == _CSV else _workbook
    return write([head, *rows]), MEDIA_TYPES[media_type]


def told_reason(reason: ReasonView) -> str:
    """Return a reason as a person reads it: `Total ($) 11205: usual here 900 to 1400`."""
    usual = "other values"
    if reason.usual is not None:
        usual = f"{reason.usual.low} to {reason.usual.high}"
    elif reason.levels:
        usual = " or ".join("missing" if one is None else str(one) for one in reason.levels)
    value = "missing" if reason.value is None else reason.value
    return f"{reason.column} {value}: usual here {usual}"


def _csv(rows: list[list[JsonCell]]) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    for row in rows:
        writer.writerow([f"'{c}" if _is_formula(c) else c for c in row])
    return text.getvalue().encode()


def _workbook(rows: list[list[JsonCell]]) -> bytes:
    file = io.BytesIO()
    # Texts stay texts: no formulas, links or numbers are made of them.
    options = {
        "in_memory": True,
        "strings_to_formulas": False,
        "strings_to_urls": False,
        "strings_to_numbers": False,
        "nan_inf_to_errors": True,
    }
    book = Workbook(file, options)
    sheet = book.add_worksheet("Unusual rows")
    bold = book.add_format({"bold": True})
    for at, row in enumerate(rows):
        cells = [one[:_MAX_CHARACTERS] if isinstance(one, str) else one for one in row]
        sheet.write_row(at, 0, cells, None if at else bold)
    sheet.freeze_panes(1, 0)
    book.close()
    return file.getvalue()


def _is_formula(cell: JsonCell) -> bool:
    return isinstance(cell, str) and cell.startswith(FORMULA_STARTS)
