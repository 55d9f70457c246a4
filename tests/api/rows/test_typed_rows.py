"""Rows of typed columns: from every format to the numbers of a model, and back."""

import csv
import io
import json
from datetime import date
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa  # type: ignore[import-untyped] # it ships no type information
import pytest
from hypothesis import given, settings, strategies as st

from app.problems.problem import Problem
from app.rows.decode import decode_document
from app.rows.model_types import CellCodes, ModelTypes, Roundings
from app.rows.shape import RowsShape
from tabular.columns import UNSEEN, Column
from tabular.errors import TableError
from tabular.formats import TableFormat
from tabular.numbers import round_to
from tests.api.serving import COLUMNS as SERVED, registered, stores
from tests.api.wire import decode
from tests.tables.files import arrow, parquet

JSON, NPY = TableFormat.JSON, TableFormat.NPY
COLUMNS = (
    Column(name="cut", type="category", levels=("Ideal", "Good, really"), missing=True),
    Column(name="price", decimals=2, missing=True),
    Column(name="sold", type="boolean", levels=("no", "yes")),
    Column(name="on", type="datetime", date_only=True),
    Column(name="doors", type="integer", levels=(3.0, 5.0)),
)
NAMES = [column.name for column in COLUMNS]
CELLS: list[list[Any]] = [
    ["Ideal", 0.29, "yes", "2024-02-29", 3],
    ["Good, really", None, "no", "1969-12-31", 5],
    [None, 12, True, "2024-02-29", 5.0],
    ["never seen", "1.5", "1", "2024-03-01", 4],
]
DAY = 86400.0
NUMBERS = np.array(
    [
        [0, 0.29, 1, 19782 * DAY, 3],
        [1, np.nan, 0, -DAY, 5],
        [np.nan, 12, 1, 19782 * DAY, 5],
        [UNSEEN, 1.5, 1, 19783 * DAY, 4],
    ]
)
SHAPE = RowsShape(NAMES, 50, types=ModelTypes(COLUMNS, dim=len(COLUMNS)), ignores_extra=True)
STRICT = RowsShape(NAMES, 50, types=ModelTypes(COLUMNS, dim=len(COLUMNS)))
PLAIN = RowsShape(["a", "b"], 50, ignores_extra=True)


def objects(order: list[int] | None = None, **extra: Any) -> list[dict[str, Any]]:
    places = order or range(len(NAMES))
    return [{NAMES[place]: row[place] for place in places} | extra for row in CELLS]


def from_json(document: object, shape: RowsShape = SHAPE) -> Any:
    return decode(json.dumps(document).encode(), JSON, shape)


def refusal(body: bytes, kind: TableFormat, shape: RowsShape = SHAPE, **parameters: str) -> Problem:
    with pytest.raises(Problem) as caught:
        decode(body, kind, shape, **parameters)
    return caught.value


@pytest.mark.parametrize(
    "document",
    [
        {"rows": objects()},
        {"rows": objects([3, 1, 4, 0, 2])},
        {"rows": objects(comment="=1+1", place={"x": [1]})},
        {"rows": CELLS},
        {"columns": NAMES, "rows": CELLS},
        {"columns": [*NAMES[::-1], "id"], "rows": [[*row[::-1], "r7"] for row in CELLS]},
    ],
)
def test_json_holds_the_cells_of_the_file(document):
    np.testing.assert_array_equal(from_json(document), NUMBERS)


def test_columns_that_the_model_lacks_are_refused_where_the_caller_asks_for_that():
    for document in (
        {"rows": objects(id="r7")},
        {"columns": [*NAMES, "id"], "rows": [[*row, "r7"] for row in CELLS]},
    ):
        problem = refusal(json.dumps(document).encode(), JSON, STRICT)
        assert problem.type.slug == "columns-mismatch"
        assert problem.members["unknown"] == ["id"]


def test_a_missing_column_is_named_beside_those_that_the_model_lacks():
    rows = [
        {("Cut" if name == "cut" else name): cell for name, cell in row.items()}
        for row in objects()
    ]
    problem = refusal(json.dumps({"rows": rows}).encode(), JSON)
    assert (problem.members["missing"], problem.members["unknown"]) == (["cut"], ["Cut"])


def test_a_model_of_plain_numbers_can_leave_columns_out_too():
    rows = [{"a": 1, "id": "r7", "b": None}, {"b": 2.5, "a": 3}]
    np.testing.assert_array_equal(from_json({"rows": rows}, PLAIN), [[1, np.nan], [3, 2.5]])
    body = json.dumps({"rows": [{"a": "1", "b": 2, "c": 3}]}).encode()
    assert refusal(body, JSON, PLAIN).type.slug == "batch-value"


@pytest.mark.parametrize("value", ["dear", "12,5", [1.0]])
def test_a_cell_that_cannot_be_read_names_its_row_its_column_and_what_to_send(value):
    rows = objects()
    rows[2]["price"] = value
    problem = refusal(json.dumps({"rows": rows}).encode(), JSON)
    assert problem.type.slug == "batch-value"
    assert [error.pointer for error in problem.errors] == ["/rows/2/price"]
    assert "'price', row 3" in str(problem.detail)
    assert "a number, such as 0.5" in str(problem.detail)
    assert problem.members == {"column": "price", "row": 3}
    rows[2]["price"] = 10**400
    assert refusal(json.dumps({"rows": rows}).encode(), JSON).type.slug == "value-nonfinite"


def npy(rows: Any, **options: Any) -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array(file, np.array(rows, **options))
    return file.getvalue()


def test_npy_holds_values_and_the_indices_of_texts():
    np.testing.assert_array_equal(decode(npy(NUMBERS, order="F"), NPY, SHAPE), NUMBERS)


@pytest.mark.parametrize(("column", "code"), [(0, 2.0), (0, -2.0), (0, 0.5), (2, np.inf)])
def test_a_number_that_is_no_index_of_a_text_is_refused(column, code):
    rows = NUMBERS.copy()
    rows[1, column] = code
    problem = refusal(npy(rows), NPY)
    assert problem.type.slug == "batch-value"
    assert problem.members == {"column": NAMES[column], "row": 2}
    assert "from 0 to 1" in str(problem.detail)


# The other formats


KINDS = [TableFormat.CSV, TableFormat.NDJSON, TableFormat.ARROW, TableFormat.PARQUET]
EXTRA: dict[str, list[Any]] = {"comment": ["=1+1", "", "x, y", "007"], "count": [1, 2, None, 4]}


def file_of(kind: TableFormat, columns: dict[str, list[Any]], **typed: Any) -> bytes:
    """A file of cells as another program writes it; columns of several kinds become text."""
    names = list(columns)
    lines = [dict(zip(names, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    match kind:
        case TableFormat.CSV:
            text = io.StringIO()
            rows = [["" if cell is None else cell for cell in line.values()] for line in lines]
            csv.writer(text).writerows([names, *rows])
            return text.getvalue().encode()
        case TableFormat.NDJSON:
            return "".join(json.dumps(line) + "\n" for line in lines).encode()
        case _:
            pass
    table = pa.table({name: typed.get(name, cells_of(values)) for name, values in columns.items()})
    return parquet(table) if kind is TableFormat.PARQUET else arrow(table, rows=3)


def cells_of(values: list[Any]) -> pa.Array:
    if len({type(value) for value in values} - {type(None)}) == 1:
        return pa.array(values)
    return pa.array([value if value is None else str(value) for value in values])


def columns_of(order: list[int] | None = None) -> dict[str, list[Any]]:
    places = order or range(len(NAMES))
    return {NAMES[place]: [row[place] for row in CELLS] for place in places}


@pytest.mark.parametrize("kind", KINDS)
def test_every_format_gives_the_numbers_of_the_json_objects(kind):
    for columns in (columns_of(), columns_of([3, 1, 4, 0, 2])):
        np.testing.assert_array_equal(decode(file_of(kind, columns), kind, STRICT), NUMBERS)


@pytest.mark.parametrize("kind", KINDS)
def test_columns_that_the_model_lacks_are_left_out_and_missing_ones_are_named(kind):
    body = file_of(kind, EXTRA | columns_of())
    np.testing.assert_array_equal(decode(body, kind, SHAPE), NUMBERS)
    problem = refusal(body, kind, STRICT)
    assert problem.type.slug == "columns-mismatch"
    assert problem.members["unknown"] == ["comment", "count"]
    problem = refusal(file_of(kind, EXTRA | columns_of([0, 1, 2, 3])), kind)
    assert problem.type.slug == "columns-mismatch"
    assert problem.members["missing"] == ["doors"]
    assert "comment" in problem.members["unknown"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_model_of_plain_numbers_can_leave_texts_out_of_every_format(kind):
    body = file_of(kind, {"id": ["r1", "r2"], "b": [2.5, None], "a": [1.0, 3.0]})
    np.testing.assert_array_equal(decode(body, kind, PLAIN), [[1, 2.5], [3, np.nan]])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("column", "cells", "row", "told"),
    [
        ("price", [0.5, None, "dear", 3], 3, "a number, such as 0.5"),
        ("on", ["2024-02-29", "yesterday", None, "2024-02-29"], 2, "such as 2024-02-29"),
    ],
)
def test_a_bad_cell_is_named_in_every_format(kind, column, cells, row, told):
    problem = refusal(file_of(kind, columns_of() | {column: cells}), kind)
    assert problem.type.slug == "batch-value"
    assert problem.members == {"column": column, "row": row}
    assert told in str(problem.detail)


def test_a_text_after_many_numbers_is_found_in_its_row():
    rows = 60_000
    shape = RowsShape(
        ["a", "b"], rows, types=ModelTypes((Column(name="a"), Column(name="b")), dim=2)
    )
    lines = [f"{row},1.5" for row in range(rows)]
    lines[50_000] = "x,1.5"
    body = "\n".join(["a,b", *lines]).encode()
    problem = refusal(body, TableFormat.CSV, shape)
    assert problem.members == {"column": "a", "row": 50_001}


def test_numbers_of_a_number_column_may_turn_out_to_be_texts_later_in_the_file():
    """Such as a code of missing values that only later rows have."""
    rows = 60_000
    column = Column(name="a", missing=True, na_values=("none",))
    lines = [f"{row},{row}" for row in range(rows)]
    lines[50_000] = "1,' 7 '"
    body = "\n".join(["a,b", *lines]).encode().replace(b"'", b'"')
    shape = RowsShape(["a", "b"], rows, types=ModelTypes((column, Column(name="b")), dim=2))
    values = decode(body, TableFormat.CSV, shape)
    assert values.shape == (rows, 2)
    assert values[50_000].tolist() == [1, 7]
    assert values[50_001].tolist() == [50_001, 50_001]


def test_headerless_csv_is_in_the_order_of_the_model():
    body = file_of(TableFormat.CSV, columns_of()).split(b"\n", 1)[1]
    values = decode(body, TableFormat.CSV, SHAPE, header="absent")
    np.testing.assert_array_equal(values, NUMBERS)
    with pytest.raises(Problem, match="columns"):
        decode(b"1,2\n", TableFormat.CSV, SHAPE, header="absent")


GERMAN = Column(name="a", decimal=",", thousands=".", missing=True, na_values=("n.n.",))
NUMBER_CELLS = [[1.512], [2], ["n.n."], ["1.512,5"], [None]]


@pytest.mark.parametrize("kind", [JSON, TableFormat.NDJSON])
def test_a_number_of_json_that_means_a_gap_is_one(kind):
    column = Column(name="a", missing=True, na_values=("-999",))
    shape = RowsShape(["a"], 50, types=ModelTypes((column,), dim=1))
    body = {JSON: b"[[-999], [1.5]]", TableFormat.NDJSON: b"[-999]\n[1.5]\n"}[kind]
    np.testing.assert_array_equal(decode(body, kind, shape)[:, 0], [np.nan, 1.5])


@pytest.mark.parametrize("kind", [JSON, TableFormat.NDJSON])
def test_a_number_of_json_is_one_whatever_the_marks_of_the_file(kind):
    shape = RowsShape(["a"], 50, types=ModelTypes((GERMAN,), dim=1))
    for cells in (NUMBER_CELLS, NUMBER_CELLS[:2]):
        lines = "".join(f"{json.dumps(row)}\n" for row in cells)
        values = decode((json.dumps(cells) if kind is JSON else lines).encode(), kind, shape)
        expected = [1.512, 2, np.nan, 1512.5, np.nan][: len(cells)]
        np.testing.assert_array_equal(values[:, 0], expected)


@pytest.mark.parametrize("kind", [TableFormat.CSV, TableFormat.NDJSON, JSON])
def test_rows_without_names_may_have_the_columns_that_were_ignored(kind):
    names = ["x2", "x4"]
    types = ModelTypes(tuple(Column(name=name, missing=True) for name in names), dim=2)
    shape = RowsShape(names, 50, types=types, ignores_extra=True)
    rows = [["r1", 0.5, "-", 7, None], ["r2", 1.5, "-", 8, None]]
    match kind:
        case TableFormat.CSV:
            body = "r1,0.5,-,7,\nr2,1.5,-,8,\n"
        case TableFormat.NDJSON:
            body = "\n".join(map(json.dumps, rows))
        case _:
            body = json.dumps(rows)
    values = decode(body.encode(), kind, shape, header="absent")
    np.testing.assert_array_equal(values, [[0.5, 7], [1.5, 8]])
    whole = RowsShape(["x1", "x2"], 50, types=types, ignores_extra=True)
    assert refusal(body.encode(), kind, whole, header="absent").type.slug == "dimension-mismatch"


@pytest.mark.parametrize("kind", [TableFormat.ARROW, TableFormat.PARQUET])
def test_arrow_types_are_read_for_what_they_are(kind):
    days = ["2024-02-29", "1969-12-31", "2024-02-29", "2024-03-01"]
    body = file_of(
        kind,
        columns_of(),
        cut=pa.array([row[0] for row in CELLS]).dictionary_encode(),
        sold=pa.array([True, False, True, True]),
        on=pa.array([date.fromisoformat(day) for day in days]),
        doors=pa.array([3, 5, 5, 4], pa.int8()),
        price=pa.array([0.29, None, 12, 1.5], pa.float64()),
    )
    np.testing.assert_array_equal(decode(body, kind, SHAPE), NUMBERS)


JSON_CELLS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-5, 10**20),
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from(["Ideal", " Ideal ", "yes", "NO", "3", "5.0", "2024-02-29", "", "NA", "x"]),
    st.text(max_size=3),
    st.just([1]),
)


@settings(max_examples=100)
@given(rows=st.lists(st.tuples(*[JSON_CELLS] * len(COLUMNS)), min_size=1, max_size=4))
def test_remembered_cells_are_those_that_were_never_seen(rows):
    """A row comes to the same whatever came before it, and whatever is beside it."""
    apart = [outcome(lambda row=row: CellCodes(COLUMNS).rows([row])) for row in rows]
    for row, alone in zip(rows, apart, strict=True):
        again = outcome(lambda row=row: REMEMBERED.rows([row]))
        assert type(again) is type(alone)
        if isinstance(alone, np.ndarray):
            np.testing.assert_array_equal(again, alone)
    together = outcome(lambda: REMEMBERED.rows(rows))
    if all(isinstance(alone, np.ndarray) for alone in apart):
        np.testing.assert_array_equal(together, np.concatenate(apart))
    else:
        assert isinstance(together, TableError)


REMEMBERED = CellCodes(COLUMNS)


def outcome(call: Any) -> Any:
    try:
        return call()
    except TableError as error:
        return error


def test_the_memory_of_cells_is_bounded():
    codes = CellCodes([COLUMNS[0]], most_texts=10)
    for start in range(0, 100, 4):
        values = codes.rows([[f"level {start + number}"] for number in range(4)])
        assert (values == UNSEEN).all()
    assert codes.rows([["Ideal"]] + [[f"x{n}"] for n in range(50)])[0, 0] == 0


def test_the_first_row_says_what_there_is_instead_of_a_column():
    shape = RowsShape(["a", "b"], 50, ignores_extra=True)
    with pytest.raises(Problem, match=r"Missing: b\. Unknown: c, d\.") as caught:
        decode_document(b'[{"a": 1, "c": 1, "d": 2}, {"a": 2, "e": 3}]', shape)
    assert caught.value.members["missing"] == ["b"]


# Samples of plain numbers, which text shows with the decimals of the data, whole ones without


def roundings(decimals: list[int | None]) -> Roundings:
    return Roundings([Column(name=str(at), decimals=n) for at, n in enumerate(decimals)])


def test_rounding_is_that_of_typed_tables():
    values = np.random.default_rng(0).normal(0, 100, (500, 4))
    for decimals in range(8):
        expected = round_to(values, decimals)
        found = roundings([decimals] * 4).apply(values)
        np.testing.assert_array_equal(found, expected)
        assert not np.signbit(found[found == 0]).any()


def test_what_is_no_whole_number_of_64_bits_stays_as_it_is():
    for bad in (np.nan, -np.inf, 1e300):
        rows = roundings([0, 0, 0, 0]).apply(np.full((1, 4), bad))
        np.testing.assert_array_equal(rows, np.full((1, 4), bad))
    assert ModelTypes((Column(name="a"), Column(name="b")), dim=2).roundings is None


def test_samples_of_a_model_of_plain_numbers_look_like_the_data(client):
    types = [
        Column(name=SERVED[0], type="integer", decimals=0).to_dict(),
        Column(name=SERVED[1], decimals=1).to_dict(),
        *(Column(name=name).to_dict() for name in SERVED[2:]),
    ]
    version = registered(*stores(client), name="rounded", types=types)
    path = f"/v1/models/{version.ref}/sample"
    body = {"n": 50, "seed": 1}
    lines = client.post(path, json=body, headers={"Accept": "text/csv"}).text.splitlines()[1:]
    cells = [line.split(",") for line in lines]
    assert all(row[0].lstrip("-").isdigit() for row in cells)
    assert all(len(row[1].partition(".")[2]) <= 1 for row in cells)
    answer = client.post(path, json=body)
    assert answer.status_code == 200, answer.text
    rows = answer.json()["rows"]
    assert all(isinstance(row[0], int) for row in rows)
    assert [[float(cell) for cell in row] for row in cells] == rows
    whole = client.post(path, json=body, headers={"Accept": "application/x-npy"})
    exact = np.load(io.BytesIO(whole.content))
    assert (exact[:, 0] != np.rint(exact[:, 0])).all(), "formats of numbers hold all digits"
    scored = client.post(f"/v1/models/{version.ref}/log_prob", json={"rows": rows})
    assert None not in scored.json()["log_prob"]
    extra = [dict(zip(SERVED, rows[0], strict=True)) | {"more": 1}]
    refused = client.post(f"/v1/models/{version.ref}/log_prob", json={"rows": extra})
    assert refused.status_code == 422


@pytest.mark.parametrize("missing", [False, True])
def test_samples_of_numbers_with_units_look_like_the_data_in_every_format(client, missing):
    types = [Column(name=n, decimals=1, unit="kg", missing=missing).to_dict() for n in SERVED]
    version = registered(*stores(client), name="units", types=types)
    ask = partial(client.post, f"/v1/models/{version.ref}/sample", json={"n": 9, "seed": 1})
    found = np.load(io.BytesIO(ask(headers={"Accept": "application/x-npy"}).content))
    assert found.tolist() == ask().json()["rows"] == found.round(1).tolist()
