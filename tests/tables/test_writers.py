import csv
import io
from typing import Any

import numpy as np
import pyarrow as pa  # type: ignore[import-untyped] # it ships no type information
import pyarrow.parquet as pq  # type: ignore[import-untyped] # as above
import pytest

from tabular.columns import Column
from tabular.formats import Output
from tabular.typed_rows import TypedRows, encode_columns
from tabular.writers import WRITERS, TableHead, text_places, unused_name

SINGLE, DOUBLE = np.dtype(np.float32), np.dtype(np.float64)
COLUMNS = [
    np.array([0.1, np.nan, 3e38], dtype=np.float32),
    np.array([1 / 3, -np.inf, 5e-324]),
]


def written(output: Output, columns: list[Any], *, block: int = 2, **head: Any) -> bytes:
    names = head.get("names", [f"c{index}" for index in range(len(columns))])
    table = TableHead(names, [column.dtype for column in columns], len(columns[0]))
    writer = WRITERS[output](table)
    blocks = (
        writer.rows([column[start : start + block] for column in columns])
        for start in range(0, table.rows, block)
    )
    return b"".join([writer.start(), *blocks, writer.end()])


def test_parquet_keeps_precisions_and_gathers_blocks_to_row_groups(monkeypatch):
    monkeypatch.setattr("tabular.writers.GROUP_ROWS", 2)
    content = io.BytesIO(written("parquet", COLUMNS, block=1))
    table = pq.read_table(content)
    assert [str(field.type) for field in table.schema] == ["float", "double"]
    for column, original in zip(table.columns, COLUMNS, strict=True):
        np.testing.assert_array_equal(column.to_numpy(), original)
    assert pq.ParquetFile(content).metadata.num_row_groups == 2


def test_csv_gives_back_every_number_of_its_precision():
    lines = list(csv.reader(io.StringIO(written("csv", COLUMNS).decode())))
    assert lines[0] == ["c0", "c1"]
    assert [line[0] for line in lines[1:3]] == ["0.1", "nan"]
    for index, original in enumerate(COLUMNS):
        values = np.array([line[index] for line in lines[1:]], dtype=original.dtype)
        np.testing.assert_array_equal(values, original)


@pytest.mark.parametrize("drops_zeros", [False, True])
def test_lines_of_csv_end_as_rfc_4180_says_whatever_writes_them(drops_zeros):
    rows = np.array([[1.0, 0.5], [-2.0, np.nan], [3.0, 1e300], [4.0, 1e-7]])
    head = TableHead(["a", "b"], [DOUBLE, DOUBLE], len(rows), drops_zeros=drops_zeros)
    writer = WRITERS["csv"](head)
    text = (writer.start() + writer.rows(rows[:2]) + writer.rows(rows[2:])).decode()
    lines = text.split("\n")
    assert "\n" not in "".join(lines)
    np.testing.assert_array_equal(
        np.array([line.split(",") for line in lines[1:-1]], np.float64), rows
    )
    assert (".0," in text) is not drops_zeros


def test_csv_has_the_decimal_marks_of_its_columns_and_is_read_back():
    columns = [
        Column(name="price", decimal=",", thousands=".", decimals=3),
        Column(name="size", decimals=1),
    ]
    typed = TypedRows(columns, ["log_prob"])
    rows = np.array([[1.234, 0.5, -1.5], [-1234567.5, 2.0, 0.0], [np.nan, 1.0, -2.0]])
    writer = WRITERS["csv"](TableHead(typed.schema.names, [], len(rows), schema=typed.schema))
    table = list(
        csv.DictReader(io.StringIO((writer.start() + writer.cells(typed.batch(rows))).decode()))
    )
    assert [line["price"] for line in table] == ["1,234", "-1234567,5", ""]
    assert [line["log_prob"] for line in table] == ["-1.5", "0", "-2"]
    cells = [pa.array([line[column.name] for line in table]) for column in columns]
    np.testing.assert_array_equal(encode_columns(cells, columns, rows=len(rows)), rows[:, :2])


def test_no_name_of_a_column_is_a_formula_to_a_spreadsheet():
    names = ['=cmd("x")', "a,b"]
    header = written("csv", COLUMNS, names=names).splitlines()[0].decode()
    assert next(csv.reader([header])) == ['\'=cmd("x")', "a,b"]


@pytest.mark.parametrize("count", [1, 2])
def test_npy_has_one_dimension_for_one_column(count):
    columns = COLUMNS[-count:]
    values = np.load(io.BytesIO(written("npy", columns)), allow_pickle=False)
    assert values.dtype == DOUBLE
    expected = columns[0] if count == 1 else np.column_stack(columns)
    np.testing.assert_array_equal(values, expected)


@pytest.mark.parametrize("output", ["parquet", "csv", "npy"])
def test_equal_tables_are_equal_bytes(output):
    assert written(output, COLUMNS) == written(output, COLUMNS)


def test_blocks_are_bounded_by_rows_and_by_numbers():
    assert TableHead(["a"], [DOUBLE], 10**9).block_rows == 131_072
    assert TableHead(["a"] * 1_000, [SINGLE] * 1_000, 10**9).block_rows == 1_000
    assert TableHead(["a"] * 10**7, [SINGLE] * 10**7, 10**9).block_rows == 1


def test_a_name_that_is_taken_gets_longer():
    assert unused_name("log_prob", ["x", "log_prob", "log_prob_"]) == "log_prob__"


def test_what_a_csv_file_writes_as_numbers_is_no_text():
    columns = [
        Column(name="plain"),
        Column(name="whole", decimals=0),
        Column(name="grouped", thousands=",", decimals=2),
        Column(name="comma", decimal=",", decimals=2),
        Column(name="level", type="category", levels=("1", "2")),
        Column(name="day", type="datetime", datetime_format="%Y-%m-%d"),
        Column(name="note", type="ignored"),
    ]
    schema = TypedRows(columns, ["log_prob"]).schema
    texts = [schema.names[at] for at in text_places(schema)]
    assert texts == ["comma", "level", "day", "note"]
