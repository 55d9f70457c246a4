"""Options that mend a table: rows that are left out, levels that are merged, and the remedies of warnings."""

from typing import Any

import numpy as np
import pyarrow as pa  # type: ignore[import-untyped] # it ships no type information
import pytest

from tabular.cells import encode_cells
from tabular.formats import TableSummary
from tests.tables.files import read

REGIONS = ("West", "west", "East", "West ", "North West", "north  west")
MESSY = (
    "datum;region;umsatz\n"
    + "".join(
        f"{day % 28 + 1:02}.{day % 12 + 1:02}.2025;{REGIONS[day % 6]};{day % 50},{day % 100:02}\n"
        for day in range(240)
    )
    + "Gesamtsumme;;5.880,00\n"
).encode()


def remedies(summary: TableSummary, code: str) -> list[Any]:
    found = [one for one in summary.warnings if one["code"] == code]
    assert found, [one["code"] for one in summary.warnings]
    return [(one["option"], one["value"]) for each in found for one in each["remedies"]]


def test_the_remedies_of_a_messy_table_mend_it() -> None:
    raw, _ = read(MESSY)
    assert [column.column.type for column in raw.columns] == ["category", "category", "number"]
    drop = ("drop_rows", ["Gesamtsumme"])
    assert remedies(raw, "totals") == [drop]
    assert drop in remedies(raw, "unreadable")
    assert remedies(raw, "similar_levels") == [("merge_levels", ["region"])]
    mended, numbers = read(MESSY, drop_rows=["Gesamtsumme"], merge_levels=["region"])
    day, region, amount = (column.column for column in mended.columns)
    assert (mended.rows, day.type, amount.decimal) == (240, "datetime", ",")
    assert sorted(map(str, region.levels)) == ["East", "North West", "West"]
    assert list(mended.columns[1].level_counts) == [120, 80, 40]
    assert np.bincount(numbers[:, 1].astype(int)).tolist() == [120, 80, 40]
    assert [one["code"] for one in mended.warnings] == ["dropped"]
    assert "1 row was left out, the first of them row 241" in mended.warnings[0]["detail"]


def test_rows_to_score_have_merged_levels_in_any_spelling() -> None:
    region = read(MESSY, merge_levels=["region"])[0].columns[1].column
    west = region.levels.index("West")
    cells = pa.array(["wEST", " West", "NORTH WEST", "South"])
    north = region.levels.index("North West")
    assert encode_cells(cells, region).tolist() == [west, west, north, -1]


REMEDIES = [
    ("a,b\n" + "1,2.5\n" * 30, "constant", ("exclude", ["a"])),
    ("1,2\n" + "1.5,2.5\n" * 30, "numeric_header", ("header", False)),
    (
        "a,b\n" + "".join(f"{i * i}.25,{2 * i * i}.5\n" for i in range(90)),
        "collinear",
        ("exclude", ["b"]),
    ),
    (
        "a,b\n" + "".join(f"{i * i}.25,{-999 if i % 9 == 0 else i}.5\n" for i in range(90)),
        "sentinel",
        ("na_values", ["-999.5"]),
    ),
    (
        "d,b\n" + "".join(f"0{i % 9 + 1}/0{i % 7 + 1}/2021,{i * i}.5\n" for i in range(90)),
        "ignored",
        ("datetime_format", "%m/%d/%Y"),
    ),
    (
        "d,b\n" + "".join(f"note {i},{i * i}.5\n" for i in range(90)),
        "ignored",
        ("types", {"d": "category"}),
    ),
]


@pytest.mark.parametrize(("text", "code", "wanted"), REMEDIES)
def test_a_remedy_ends_its_warning(text: str, code: str, wanted: tuple[str, Any]) -> None:
    summary, _ = read(text.encode())
    assert wanted in remedies(summary, code)
    mended, _ = read(text.encode(), **dict([wanted]))
    column = next((one["column"] for one in summary.warnings if one["code"] == code), None)
    left = [one for one in mended.warnings if one["code"] == code and one["column"] == column]
    assert all("caller" in one["detail"] for one in left), left
