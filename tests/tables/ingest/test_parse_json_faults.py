"""Bad JSON and NDJSON tables (groups A and B of the fault catalogue), and odd good ones."""

import json

import numpy as np
import orjson
import pyarrow as pa  # type: ignore[import-untyped] # it ships no type information
import pytest
from hypothesis import given, settings, strategies as st

from tabular.errors import TableError
from tabular.formats import ParseOptions, TableFormat, TableSummary
from tabular.ingest.parse import parse_table, parse_table_isolated
from tabular.open import open_cells
from tabular.readers import json as json_reader
from tabular.source import rows_per_chunk
from tests.attempts import attempts
from tests.tables.files import Accept, Refuse, arrow

JSON, NDJSON, ARROW = TableFormat.JSON, TableFormat.NDJSON, TableFormat.ARROW
GRID = np.arange(12.0).reshape(4, 3) ** 2


@pytest.fixture
def accept(accept: Accept) -> Accept:
    """Accept content as everywhere else; JSON may be given as the document."""

    def parse(data: object, kind: TableFormat = JSON, **options: object) -> TableSummary:
        body = data if isinstance(data, bytes) else json.dumps(data).encode()
        return accept(body, kind, **options)

    return parse


@pytest.fixture
def refuse(refuse: Refuse) -> Refuse:
    def parse(data: object, kind: TableFormat = JSON, **options: object) -> TableError:
        return refuse(data, kind, **options)

    return parse


def names(summary: TableSummary) -> list[str]:
    return [column.name for column in summary.columns]


def lines(*rows: object) -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


@pytest.mark.parametrize(
    "document",
    [
        {"rows": [[1, 2.5], [3, -4e1]], "columns": ["a", "b"]},
        {"columns": ["a", "b"], "rows": [[1, 2.5], [3, -4e1]]},
        {"rows": [{"a": 1, "b": 2.5}, {"b": -40, "a": 3}]},
        [{"a": 1, "b": 2.5}, {"a": 3, "b": -40}],
    ],
)
def test_every_form_of_a_json_document_is_the_same_table(accept, stored, document):
    for body in (json.dumps(document), json.dumps(document, indent=3) + "\n"):
        assert names(accept(body.encode())) == ["a", "b"]
        assert stored().tolist() == [[1, 2.5], [3, -40]]


def test_lists_without_names_are_called_x1_to_xd(accept):
    assert names(accept([[1, 2], [3, 5]])) == ["x1", "x2"]
    assert names(accept(lines([1, 2], [3, 5]), NDJSON)) == ["x1", "x2"]


def test_lines_of_objects_may_order_their_columns_as_they_like(accept, stored):
    body = b'\r\n {"a": 1, "b:": 2}\r\n\n{"b:":5,"a":null}\r\n{"a":3,"b:":7}'
    assert names(accept(body, NDJSON, missing="drop")) == ["a", "b:"]
    assert stored().tolist() == [[1, 2], [3, 7]]


NAMES = st.text('abcdefg{}[],:"\\\u00e9\u4e16', min_size=1, max_size=9)
TABLES = st.integers(1, 3).flatmap(
    lambda width: st.lists(
        st.lists(st.integers(-99, 99) | st.floats(-9, 9), min_size=width, max_size=width),
        min_size=2,
        max_size=40,
    )
)


@settings(max_examples=attempts(60), deadline=None, derandomize=True)
@given(
    rows=TABLES,
    keys=st.lists(NAMES | st.sampled_from(["}", '"]', "\\", "},{", "a:"]), min_size=3, unique=True),
    form=st.sampled_from(["lists", "named", "named first", "objects", "bare"]),
    indent=st.sampled_from([None, 0, 2]),
    block=st.integers(1, 64),
)
def test_documents_and_lines_are_read_whatever_their_names_and_layout(
    tmp_path_factory, rows, keys, form, indent, block
):
    keys = keys[: len(rows[0])]
    objects = [dict(zip(keys, row, strict=True)) for row in rows]
    document = {
        "lists": {"rows": rows},
        "named": {"rows": rows, "columns": keys},
        "named first": {"columns": keys, "rows": rows},
        "objects": {"rows": objects},
        "bare": objects,
    }[form]
    folder = tmp_path_factory.mktemp("json")
    (folder / "upload").write_text(json.dumps(document, indent=indent))
    (folder / "lines").write_text("\n".join(map(json.dumps, objects)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_reader, "BLOCK_BYTES", block)
        options = ParseOptions(constant="keep")
        for file, kind in (("upload", JSON), ("lines", NDJSON)):
            parse_table(folder / file, folder / "table.npy", format=kind, options=options)
            assert np.load(folder / "table.npy").tolist() == rows


JSON_FAULTS = {
    "045 ragged": ([[1, 2], [3]], "dataset-shape"),
    "mixed": ([[1], {"a": 1}], "dataset-shape"),
    "047 NaN": (b"[[1, NaN], [1, 2]]", "json-nonfinite"),
    "048 infinite": (b"[[1, 1e400], [1, 2]]", "dataset-nonfinite"),
    "048 huge integer": (b"[[1, 1%b], [1, 2]]" % (b"0" * 310), "dataset-nonfinite"),
    "052 deep": (b"[" * 100_000, "json-depth"),
    "054 long number": (b"[[1, 1.%b], [1, 2]]" % (b"0" * 2000), "json-number"),
    "055 duplicate key": (b'[{"a": 1, "a": 2}, {"a": 3}]', "json-duplicate-key"),
    "055 duplicate rows": (b'{"rows": [[1], [2]], "rows": [[1], [2]]}', "json-duplicate-key"),
    "nested": ([[1, [2]], [1, 2]], "dataset-dtype"),
    "nested object": ({"rows": [{"a": {"b": 1}}, {"a": 2}]}, "dataset-dtype"),
    "empty": (b"", "dataset-empty"),
    "blank": (b" \n ", "dataset-empty"),
    "no rows": ({"rows": []}, "dataset-empty"),
    "no columns": ([[], []], "dataset-shape"),
    "empty objects": ([{}, {}], "dataset-shape"),
    "scalars": ([1, 2], "dataset-shape"),
    "a number": (b"1", "dataset-shape"),
    "other member": ({"rows": [[1], [2]], "data": 1}, "dataset-shape"),
    "other member first": ({"data": 1, "rows": [[1], [2]]}, "dataset-shape"),
    "names of other length": ({"rows": [[1], [2]], "columns": ["a", "b"]}, "dataset-shape"),
    "names no strings": ({"rows": [[1], [2]], "columns": [1]}, "dataset-shape"),
    "names no list": ({"rows": [[1], [2]], "columns": "a"}, "dataset-shape"),
    "surrogate": (b'[{"\\ud800": 1}, {"\\ud800": 2}]', "dataset-encoding"),
    "byte order mark": (b"\xef\xbb\xbf[[1], [2]]", "json-encoding"),
    "latin-1": ('[{"ä": 1}, {"ä": 2}]'.encode("latin-1"), "json-encoding"),
    "trailing comma": (b"[[1], [2],]", "json-syntax"),
    "double comma": (b"[[1],, [2]]", "json-syntax"),
    "no comma": (b"[[1] [2]]", "json-syntax"),
    "junk after": (b"[[1], [2]] x", "json-syntax"),
    "one row": ([[1]], "dataset-too-small"),
    "zip": (b"PK\x03\x04" + bytes(30), "media-type"),
}


@pytest.mark.parametrize(("data", "slug"), JSON_FAULTS.values(), ids=list(JSON_FAULTS))
def test_a_bad_json_document_is_refused(refuse, data, slug):
    assert refuse(data).slug == slug


def test_ids_that_json_has_as_texts_are_ids(accept):
    rows = [{"user_id": f"{n * 7919 % 997}", "x": f"{n * n}", "y": n * 0.5} for n in range(50)]
    columns = accept(json.dumps(rows).encode(), JSON).columns
    assert [column.column.type for column in columns] == ["ignored", "integer", "number"]


def test_a_document_of_another_form_says_where_its_rows_seem_to_be(refuse):
    rows = [{"a": n, "b": n * n} for n in range(5)]
    assert "in 'data': send" in refuse({"meta": {"n": 5}, "data": rows}).detail
    assert "seem to be columns" in refuse({"a": [1, 2], "b": [3, 4]}).detail


@pytest.mark.parametrize(
    ("rows", "kind", "numbers"),
    [
        ([[1, "1.5"], [1, 2]], "number", [1.5, 2.0]),
        ([[1, True], [1, False]], "boolean", [1.0, 0.0]),
        ([[1, "u"], [1, None], [1, "u"]], "category", [0.0, np.nan, 0.0]),
        ([[1, None], [1, 2], [1, 5]], "integer", [np.nan, 2.0, 5.0]),
        ([[1, 10**30], [1, 2.5]], "number", [1e30, 2.5]),
    ],
)
def test_cells_of_json_are_typed(accept, stored, rows, kind, numbers):
    for body, form in ((rows, JSON), (lines(*rows), NDJSON)):
        summary = accept(body, form)
        assert summary.columns[1].column.type == kind
        assert np.array_equal(stored()[:, 1], numbers, equal_nan=True)


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        ({"rows": [[1, 2], [2, 3]], "columns": ["a", "a"]}, ["a", "a_2"]),
        ([{"": 1, "b": 2}, {"": 2, "b": 3}], ["x1", "b"]),
        ([{"": 1, "x1": 2}, {"": 2, "x1": 3}], ["x1_2", "x1"]),
    ],
)
def test_names_of_json_are_mended(accept, document, expected):
    summary = accept(document)
    assert names(summary) == expected
    assert "renamed" in [warning["code"] for warning in summary.warnings]


NDJSON_FAULTS = {
    "045 ragged": (lines([1, 2], [3]), "dataset-shape"),
    "047 NaN": (b"[1]\n[NaN]\n", "json-nonfinite"),
    "052 deep": (b"[" * 100_000, "json-depth"),
    "054 long number": (b"[1]\n[1.%b]\n" % (b"0" * 2000), "json-number"),
    "055 duplicate key": (b'{"a": 1}\n{"a": 1, "a": 2}\n', "json-duplicate-key"),
    "empty": (b"\n \r\n", "dataset-empty"),
    "two rows on a line": (b"[1] [2]\n[3]\n", "json-syntax"),
    "a row on two lines": (b"[1,\n2]\n", "json-syntax"),
    "a number": (b"1\n2\n", "dataset-shape"),
    "byte order mark": (b"\xef\xbb\xbf[1]\n[2]\n", "json-encoding"),
    "utf-16": ("[1]\n[2]\n".encode("utf-16"), "json-encoding"),
    "one endless line": (b"[" + b" " * 5_000_000, "dataset-parse"),
}


@pytest.mark.parametrize(("data", "slug"), NDJSON_FAULTS.values(), ids=list(NDJSON_FAULTS))
def test_bad_json_lines_are_refused(refuse, data, slug):
    assert refuse(data, NDJSON).slug == slug


@pytest.mark.parametrize("kind", [JSON, NDJSON])
def test_objects_may_lack_members_and_hold_others(accept, stored, kind):
    rows = [{"a": 1, "b": 2}, {"a": 2}, {"c": 0.5, "a": 3}, {"b": 4, "at": {"x": 1, "y": [2]}}]
    summary = accept(rows if kind is JSON else lines(*rows), kind)
    assert [(c.name, c.column.type) for c in summary.columns] == [
        *(("a", "integer"), ("b", "integer"), ("c", "number"), ("at", "ignored"))
    ]
    nan = np.nan
    expected = [[1, 2, nan], [2, nan, nan], [3, nan, 0.5], [nan, 4, nan]]
    np.testing.assert_array_equal(stored(), expected)


@pytest.mark.long
def test_lines_of_next_to_nothing_are_read_in_pieces(tmp_path):
    names = [f"x{i}" for i in range(1000)]
    (tmp_path / "a").write_bytes(lines(dict.fromkeys(names, 1.5), *({} for _ in range(5000))))
    source = open_cells(tmp_path / "a", format=TableFormat.NDJSON, options=ParseOptions())
    pieces = [batch.num_rows for batch in source.read(source.text)]
    assert (sum(pieces), max(pieces)) == (5001, rows_per_chunk(1000))


@pytest.mark.long
def test_a_fault_in_a_long_table_is_told_by_line_row_and_column(refuse):
    good = [{"a": i, "b": i * i} for i in range(50_000)]
    error = refuse(lines(*good, {"a": 1, "b": [2]}), NDJSON)
    assert (error.column, error.row) == ("b", 50_001)
    error = refuse(lines(*good) + b'\n{"a": 1,, "b": 2}', NDJSON)
    assert "Line 50002" in error.detail
    error = refuse([*good, {"a": 1, "b": {"c": 2}}])
    assert (error.column, error.row) == ("b", 50_001)
    error = refuse({"rows": [list(row.values()) for row in good] + [[1]]})
    assert error.row == 50_001


# Arrow


def test_a_document_beyond_its_limit_is_refused_with_the_format_for_such_tables(refuse):
    size = json_reader.MAX_DOCUMENT_BYTES
    error = refuse(b"[[1], [2]]" + b" " * size)
    assert error.slug == "dataset-too-large"
    assert "32 MiB" in error.detail
    assert "NDJSON" in error.detail


@pytest.mark.long
@pytest.mark.parametrize("kind", [NDJSON, ARROW])
def test_a_table_larger_than_the_memory_is_parsed_in_pieces(tmp_path, kind):
    rows, columns = 250_000, 15
    x = np.random.default_rng(0).integers(0, 10**6, (rows, columns)).astype(np.float64)
    match kind:
        case TableFormat.ARROW:
            table = pa.table({f"x{i}": x[:, i] for i in range(columns)})
            (tmp_path / "upload").write_bytes(arrow(table))
        case _:
            text = orjson.dumps(x, option=orjson.OPT_SERIALIZE_NUMPY)
            (tmp_path / "upload").write_bytes(text[1:-1].replace(b"],[", b"]\n["))
    summary = parse_table_isolated(
        tmp_path / "upload", tmp_path / "table.npy", format=kind, memory_bytes=180 << 20
    )
    assert (summary.rows, len(summary.columns)) == (rows, columns)


@pytest.mark.parametrize("mebibytes", range(60, 81))  # of 60, 63, 64, 70, 71 and 72 it said else
def test_a_parser_without_memory_for_its_arithmetic_says_so(tmp_path, mebibytes):
    table = pa.table({f"x{i}": np.random.default_rng(i).random(10_000) for i in range(15)})
    (tmp_path / "upload").write_bytes(arrow(table))
    with pytest.raises(TableError) as refused:
        parse_table_isolated(
            tmp_path / "upload",
            tmp_path / "table.npy",
            format=ARROW,
            memory_bytes=mebibytes << 20,
        )
    assert refused.value.slug == "dataset-too-large"
