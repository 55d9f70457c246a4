"""Cells as the file had them, beside the numbers of a table: rows, and types that are changed."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa  # type: ignore[import-untyped] # it ships no type information
import pyarrow.parquet as pq  # type: ignore[import-untyped] # as above
import pytest

from tabular.columns import Column
from tabular.formats import ParseOptions, TableFormat, TableSummary
from tabular.ingest.retype import StoredFiles, retype_table
from tabular.kept_cells import CellsWriter, KeptCells
from tabular.typed_rows import TypedRows
from tests.tables.files import Accept

ROWS = [
    [f"town {i % 40}", f"{i % 28 + 1:02}/03/2021", f"${i + 1}.50", str(i), f"note {i}", "xy"[i % 2]]
    for i in range(300)
]
NAMES = ["town", "day", "price", "count", "note", "kind"]
CSV = "\n".join([",".join(NAMES), *(",".join(row) for row in ROWS)]).encode()


@pytest.fixture
def cells(tmp_path: Path) -> Callable[[TableSummary, range], list[dict[str, Any]]]:
    """Rows of the table that was stored last."""

    def read(summary: TableSummary, rows: range) -> list[dict[str, Any]]:
        columns = [column.column for column in summary.columns]
        values = np.load(tmp_path / "table.npy")[rows.start : rows.stop : rows.step]
        kept = KeptCells(tmp_path / "table.parquet" if summary.cells else None, columns)
        found: list[dict[str, Any]] = kept.fill(TypedRows(columns).batch(values), rows).to_pylist()
        return found

    return read


def test_rare_texts_are_one_level_of_the_model_and_stay_as_they_are_in_the_rows(
    accept: Accept, cells: Any
) -> None:
    summary = accept(CSV, max_levels=3)
    town = summary.columns[0].column
    assert (len(town.levels), town.other) == (3, True)
    found = cells(summary, range(300))
    assert [row["town"] for row in found] == [row[0] for row in ROWS]
    assert [row["day"] for row in found] == [row[1] for row in ROWS]
    assert [row["note"] for row in found] == [row[4] for row in ROWS]
    assert found[7]["price"] == 8.5
    assert cells(summary, range(5, 300, 97)) == found[5:300:97]


def test_cells_are_read_across_row_groups(tmp_path: Path) -> None:
    texts = [f"{'x' * 5000}{i}" for i in range(5000)]
    path = tmp_path / "cells.parquet"
    with CellsWriter(path, [pa.string()]) as writer:
        for start in range(0, 5000, 700):
            some = pa.array(texts[start : start + 700])
            writer.write(pa.record_batch([some], names=["0"]))
    assert pq.read_metadata(path).num_row_groups > 1
    column = Column(name="a", type="ignored")
    kept = KeptCells(path, [column])
    rows = range(10, 4990, 83)
    batch = pa.record_batch([pa.nulls(len(rows), pa.string())], names=["a"])
    assert kept.fill(batch, rows).column(0).to_pylist() == texts[10:4990:83]
    assert [i for piece in kept.pieces(rows) for i in piece] == list(rows)


def test_rows_that_are_dropped_have_no_cells(accept: Accept, cells: Any) -> None:
    data = "a,b\n" + "".join(f"{'' if i % 5 == 0 else f'{i}.5'},t{i % 3}\n" for i in range(50))
    summary = accept(data.encode(), missing="drop")
    assert (summary.rows, summary.rows_dropped) == (40, 10)
    expected = [{"a": i + 0.5, "b": f"t{i % 3}"} for i in range(50) if i % 5]
    assert cells(summary, range(40)) == expected


def test_a_table_of_floats_is_its_own_cells_until_a_column_is_not_modelled(
    accept: Accept, cells: Any, tmp_path: Path
) -> None:
    np.save(tmp_path / "upload.npy", np.arange(20.0).reshape(10, 2) ** 2)
    summary = accept((tmp_path / "upload.npy").read_bytes(), TableFormat.NPY)
    assert (summary.cells, (tmp_path / "table.parquet").exists()) == (False, False)
    changed = retyped(tmp_path, summary, None, x1="ignored")
    assert [column.column.type for column in changed.columns] == ["ignored", "integer"]
    assert [float(row["x1"]) for row in cells(changed, range(10))] == [
        4.0 * i * i for i in range(10)
    ]


def retyped(
    tmp_path: Path, summary: TableSummary, cells: Path | None, **types: Any
) -> TableSummary:
    stored = StoredFiles(
        table=tmp_path / "table.npy",
        cells=cells,
        columns=[column.to_dict() for column in summary.columns],
        warnings=summary.warnings,
    )
    again = retype_table(stored, tmp_path / "again.npy", types, ParseOptions())
    (tmp_path / "again.npy").replace(tmp_path / "table.npy")
    (tmp_path / "again.parquet").replace(tmp_path / "table.parquet")
    return again


def test_types_change_and_change_back_without_loss(
    accept: Accept, cells: Any, tmp_path: Path
) -> None:
    first = accept(CSV)
    before = cells(first, range(300))
    beside = tmp_path / "table.parquet"
    changed = retyped(tmp_path, first, beside, price="category", town="ignored", note="category")
    types = {column.name: column.column.type for column in changed.columns}
    assert (types["price"], types["town"], types["note"]) == ("category", "ignored", "category")
    assert cells(changed, range(300))[0]["price"] == "$1.50"
    back = retyped(tmp_path, changed, beside, price="number", town="category", note="ignored")
    assert back.sha256 == first.sha256
    assert cells(back, range(300)) == before


def test_tables_of_former_versions_which_kept_some_cells_are_read_and_retyped(
    accept: Accept, cells: Any, tmp_path: Path
) -> None:
    first = accept(CSV, max_levels=3)
    whole = pq.read_table(tmp_path / "table.parquet")
    pq.write_table(whole.select(["4"]), tmp_path / "old.parquet")  # the ignored column alone
    columns = [column.column for column in first.columns]
    values = np.load(tmp_path / "table.npy")
    kept = KeptCells(tmp_path / "old.parquet", columns)
    row = kept.fill(TypedRows(columns).batch(values), range(300)).to_pylist()[9]
    assert (row["note"], row["town"], row["price"]) == ("note 9", "*other*", 10.5)
    again = retyped(tmp_path, first, tmp_path / "old.parquet", note="category", price="ignored")
    assert again.rows == 300
    assert cells(again, range(300))[9]["note"] == "note 9"
