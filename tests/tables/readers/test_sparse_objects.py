"""Objects that lack most members: what they lack takes neither memory nor time."""

import json
import tracemalloc
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from tabular import cells, typed_rows
from tabular.columns import UNSEEN, Column
from tabular.errors import TableError
from tabular.formats import ParseOptions, TableFormat
from tabular.open import open_cells, open_table
from tabular.typed_table import TypedTable, open_typed

_WIDE = 600  # of which a step has 512 rows
COLUMNS = [
    Column(name="cut", type="category", levels=("Ideal", "Good"), missing=True),
    Column(name="on", type="datetime", missing=True),
    *(Column(name=f"x{place}", missing=True) for place in range(_WIDE - 2)),
]
FULL: dict[str, object] = {
    **{column.name: 0.5 for column in COLUMNS},
    "cut": "Good",
    "on": "1970-01-02",
}


@pytest.fixture
def opened(tmp_path: Path) -> Callable[..., TypedTable]:
    def open_rows(
        *rows: object, columns: Sequence[Column] = COLUMNS, more: bytes = b""
    ) -> TypedTable:
        path = tmp_path / "rows"
        path.write_bytes(b"".join(json.dumps(row).encode() + b"\n" for row in rows) + more)
        return open_typed(
            path,
            format=TableFormat.NDJSON,
            options=ParseOptions(),
            columns=columns,
            choose=lambda names, _: [names.index(column.name) for column in columns],
        )

    return open_rows


@pytest.mark.parametrize("wanted", [2, _WIDE])
def test_members_that_rows_lack_are_not_kept(opened, wanted):
    columns = COLUMNS[:wanted]
    tracemalloc.start()
    try:
        table = opened(FULL, columns=columns, more=b"{}\n" * 12_000)  # 7 million cells
        rows = sum(map(len, table.chunks))
        assert tracemalloc.get_traced_memory()[1] < 32 << 20
    finally:
        tracemalloc.stop()
    assert rows == 12_001


def test_a_column_is_encoded_once_for_the_rows_of_a_block(opened, monkeypatch):
    encoded: list[str] = []
    encode = cells.encode_cells

    def counting(values, column):
        encoded.append(column.name)
        return encode(values, column)

    monkeypatch.setattr(typed_rows, "encode_cells", counting)
    rows = [FULL, *({"cut": "Ideal"} for _ in range(2000)), {"on": "1970-01-03"}]
    numbers = np.concatenate(list(opened(*rows).chunks))
    assert len(encoded) == _WIDE
    assert numbers[0].tolist() == [1, 86400, *[0.5] * (_WIDE - 2)]
    assert numbers[1:, 0].tolist() == [*[0.0] * 2000, pytest.approx(np.nan, nan_ok=True)]
    assert numbers[-1, 1] == 2 * 86400
    assert np.isnan(numbers[1:]).sum() == 2001 * (_WIDE - 1)


@pytest.mark.parametrize("columns", [COLUMNS[:3], COLUMNS])
def test_what_rows_lack_is_the_same_as_null(opened, columns):
    rows: list[dict[str, object]] = [
        FULL,
        {},
        {"on": 5, "cut": "never seen"},
        {"x0": "1.5", "left out": [1]},
        *({} for _ in range(700)),
        {"x0": 2},
        {"cut": None},
    ]
    whole = [{column.name: row.get(column.name) for column in COLUMNS} for row in rows]
    lacking, with_nulls = (
        np.concatenate(list(opened(*some, columns=columns).chunks)) for some in (rows, whole)
    )
    np.testing.assert_array_equal(lacking, with_nulls)
    assert lacking[2, 0] == UNSEEN


def test_the_first_fault_is_that_of_the_first_rows(opened):
    later: list[object] = [*({} for _ in range(600)), {"on": "never"}]
    for rows, name, row in (
        ([FULL, {"x3": "dear"}, {"x1": "dear"}, *later], "x1", 3),  # of rows that go together
        ([FULL, {"x3": "dear"}, *later], "x3", 2),
        ([FULL, *later, {"x3": "dear"}], "on", 602),
        ([FULL, {"x3": "dear"}, *later, 7], None, 604),  # found as the file is opened
    ):
        with pytest.raises(TableError) as caught:
            list(opened(*rows).chunks)
        assert (caught.value.column, caught.value.row) == (name, row)


def test_rows_before_a_fault_have_the_cells_of_its_column(opened):
    table = opened(FULL, *({"x1": place} for place in range(700)), {"x1": "dear"})
    chunks = []
    with pytest.raises(TableError, match="Column 'x1', row 702"):
        chunks.extend(table.chunks)
    assert np.concatenate(chunks)[:, COLUMNS.index(Column(name="x1", missing=True))].tolist() == [
        0.5,
        *range(511),
    ]


def test_the_first_fault_of_a_column_comes_before_a_list_in_later_rows(opened):
    later: list[object] = [*({} for _ in range(600)), {"x1": [1]}]
    table = opened(FULL, {"x1": 1}, {"x1": "dear"}, *later)
    with pytest.raises(TableError, match="Column 'x1', row 3"):
        list(table.chunks)


def test_a_row_that_is_no_object_is_named(tmp_path):
    path = tmp_path / "rows"
    path.write_text(json.dumps(FULL) + "\n" + "{}\n" * 5 + "[1]\n")
    with pytest.raises(TableError, match="Row 7 is not an object"):
        list(open_table(path, format=TableFormat.NDJSON, options=ParseOptions()).chunks)


def test_lists_in_most_cells_that_a_column_has_are_told(tmp_path):
    path = tmp_path / "rows"
    path.write_text(json.dumps(FULL | {"x1": 1}) + "\n" + "{}\n" * 50 + '{"x1": [1]}\n' * 2)
    source = open_cells(path, format=TableFormat.NDJSON, options=ParseOptions())
    assert list(source.unread) == [COLUMNS.index(Column(name="x1", missing=True))]
    assert source.text == {0, 1, *source.unread}


@pytest.mark.parametrize(
    "lines",
    [
        b'{"cut":[1\n2]}\n{},{}\n',
        b"{},{}\n",
        b'{"cut":"\n"}\n',
        b"{}]\n[{}\n",
    ],
)
def test_lines_that_are_json_together_alone_are_refused(opened, lines):
    with pytest.raises(TableError, match=r"Line [23]: The body is not JSON"):
        opened(FULL, more=lines)
