"""Bad npy and Parquet files, and the types that good ones may have."""

import io
from decimal import Decimal

import numpy as np
import pyarrow as pa  # type: ignore[import-untyped] # it ships no type information
import pytest
from hypothesis import given, settings, strategies as st
from hypothesis.extra import numpy as hnp

from tabular import processes
from tabular.errors import TableError
from tabular.formats import ParseOptions, TableFormat
from tabular.ingest.preview import preview_table
from tabular.ingest.storing import parse_table
from tests.tables.files import EXACT, KINDS, WHOLE, arrow, npy, parquet, parse, write


@pytest.mark.parametrize(
    ("shape", "slug"),
    [
        *(((4,), "dataset-shape"), ((2, 2, 2), "dataset-shape"), ((3, 0), "dataset-shape")),
        ((0, 3), "dataset-empty"),
    ],
)
def test_only_two_dimensions_with_rows_are_a_table(refuse, shape, slug):
    assert refuse(npy(np.zeros(shape)), NPY).slug == slug


def test_an_empty_npy_file_is_told_from_one_that_ends_too_early(refuse):
    assert refuse(b"", NPY).slug == "dataset-empty"
    assert refuse(npy(EXACT)[:40], NPY).slug == "dataset-truncated"


def test_a_bomb_is_refused_from_its_footer_and_a_page_too_large_for_the_memory(refuse, tmp_path):
    zeros = pa.table({"a": np.zeros(16_000_000)})
    bomb = parquet(zeros[:3_000_000], compression="zstd", use_dictionary=False)
    assert len(bomb) < 100_000
    assert refuse(bomb, PARQUET, max_bytes=20_000_000).slug == "dataset-too-large"
    whole = dict.fromkeys(("row_group_size", "data_page_size", "max_rows_per_page"), 1 << 30)
    one_page = parquet(zeros, compression="zstd", use_dictionary=False, **whole)
    (tmp_path / "upload").write_bytes(one_page)
    files = tmp_path / "upload", tmp_path / "table.npy"
    with pytest.raises(TableError) as caught:
        processes.run(parse_table, *files, PARQUET, memory_bytes=100 << 20, alone=True)
    assert caught.value.slug == "dataset-too-large"


CSV, PARQUET, NPY = TableFormat.CSV, TableFormat.PARQUET, TableFormat.NPY
GRID = np.arange(12.0).reshape(4, 3) ** 2


def npy_with_header(header: str, body: bytes = b"") -> bytes:
    text = header.encode()
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + body


def grid_parquet(**settings: object) -> bytes:
    return parquet(pa.table({f"c{i}": GRID[:, i] for i in range(3)}), **settings)


def varint(value: int) -> bytes:
    zigzag, out = value << 1, bytearray()
    while zigzag > 127:
        out.append(zigzag & 127 | 128)
        zigzag >>= 7
    return bytes([*out, zigzag])


def with_footer(data: bytes, old: bytes, new: bytes) -> bytes:
    length = int.from_bytes(data[-8:-4], "little")
    footer = data[-8 - length : -8].replace(old, new)
    return data[: -8 - length] + footer + len(footer).to_bytes(4, "little") + b"PAR1"


def npz() -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, x=GRID)
    return buffer.getvalue()


@pytest.mark.parametrize("descr", ["'|O'", "[('a', '|O')]"])
def test_pickled_objects_are_refused_and_not_executed(refuse, tmp_path, descr):
    canary = tmp_path / "canary"
    body = f"cos\nsystem\n(S'touch {canary}'\ntR.".encode()
    header = f"{{'descr': {descr}, 'fortran_order': False, 'shape': (2, 2), }}\n"
    assert refuse(npy_with_header(header, body), NPY).slug == "dataset-pickle-forbidden"
    assert not canary.exists()


def test_a_header_that_promises_more_than_the_file_is_refused_at_once(refuse):
    header = "{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000, 8), }\n"
    no_limits = {"max_rows": 1 << 62, "max_bytes": 1 << 62}
    assert refuse(npy_with_header(header), NPY, **no_limits).slug == "dataset-truncated"
    assert refuse(npy_with_header(header), NPY).slug == "dataset-truncated"


@pytest.mark.parametrize(
    "data",
    [
        npy_with_header("__import__('os').system('true')"),
        npy_with_header("{'descr': '<f8', 'fortran_order': False, 'shape': (2, 2)"),
        npy_with_header("{'descr': '<f8', 'fortran_order': 0, 'shape': (2, 2), }", bytes(32)),
        npy_with_header("{'descr': '<f8', 'fortran_order': False, 'shape': (-2, 2), }"),
        npy_with_header("{'descr': '<f8', 'shape': (2, 2), }"),
        npy_with_header(
            f"{{'descr': '<f8', 'fortran_order': False, 'shape': (0x{'f' * 3900}, 2)}}"
        ),
        npy_with_header("(" * 9000),
        npy_with_header("{'a': {}, [1]: 2}"),
        b"\x93NUMPY\x01\x00\x10\x00" + b"\xff\x00" * 8,
        b"\x93NUMPY\x02\x00\x00\x00\x00\x80" + b" " * 100,
        b"\x93NUMPY\x09\x00" + npy(GRID)[8:],
        npy(GRID) + b"x",
    ],
    ids=range(12),
)
def test_a_header_that_is_no_literal_is_refused(refuse, data):
    assert refuse(data, NPY).slug == "dataset-parse"


@pytest.mark.parametrize("dtype", ["c8", "M8[s]", "U4", "bool", "V8", "i4,f8", "f16"])
def test_other_types_than_reals_are_refused(refuse, dtype):
    assert refuse(npy(np.zeros((2, 2), dtype)), NPY).slug == "dataset-dtype"


@pytest.mark.parametrize("dtype", ["<f2", ">f4", "<f8", ">f8", "i1", ">i4", "<i8", "u1", ">u8"])
def test_every_real_type_in_either_byte_order_is_the_same_table(accept, stored, dtype):
    summary = accept(npy(GRID.astype(dtype)), NPY)
    assert summary.columns[0].dtype == np.dtype(dtype).name
    assert summary.dtype == ("float32" if dtype[1:] in {"f2", "f4"} else "float64")
    assert stored().dtype == summary.dtype
    assert np.array_equal(stored(), GRID)


def test_fortran_order_is_the_same_table(accept, stored):
    x = np.random.default_rng(0).normal(size=(70_000, 3))
    summary = accept(npy(np.asfortranarray(x)), NPY)
    assert np.array_equal(stored(), x)
    twin = accept(npy(x), NPY)
    assert (summary.columns, summary.sha256) == (twin.columns, twin.sha256)


@pytest.mark.parametrize("order", ["C", "F"])
def test_an_npy_file_cut_anywhere_is_refused(refuse, order):
    whole = npy(np.asarray(GRID, order=order))
    slugs = {refuse(whole[:length], NPY).slug for length in range(len(whole))}
    assert slugs <= {"dataset-empty", "dataset-parse", "dataset-truncated"}


def test_extension_types_are_their_values_and_not_executed(accept, stored, tmp_path):
    canary = tmp_path / "canary"
    metadata = {
        "ARROW:extension:name": "arrow.py_extension_type",
        "ARROW:extension:metadata": f"cos\nsystem\n(S'touch {canary}'\ntR.",
    }
    schema = pa.schema([pa.field("a", pa.float64(), metadata=metadata)])
    accept(parquet(pa.table([[1.0, 2.0]], schema=schema)), PARQUET)
    assert not canary.exists()
    accept(parquet(pa.table({"a": pa.array([True, False]).cast(pa.bool8())})), PARQUET)
    assert stored().tolist() == [[1.0], [0.0]]


@pytest.mark.parametrize("lie", [1 << 62, 1236, 1238])
def test_a_footer_that_lies_about_its_rows_is_refused(refuse, lie):
    honest = parquet(pa.table({"a": np.random.default_rng(0).normal(size=1237)}))
    total = b"\x16" + varint(1237) + b"\x19"
    assert honest.count(total) == 1
    lying = with_footer(honest, total, b"\x16" + varint(lie) + b"\x19")
    assert refuse(lying, PARQUET).slug == "dataset-parse"


def test_a_parquet_file_cut_anywhere_is_refused(refuse):
    whole = grid_parquet()
    for length in (*range(0, len(whole), 7), len(whole) - 8, len(whole) - 1):
        assert refuse(whole[:length], PARQUET).slug == "dataset-parse", length


def test_a_corrupt_page_is_refused(refuse):
    x = np.random.default_rng(0).normal(size=(20_000, 2)).round(1)
    table = pa.table({"a": x[:, 0], "b": x[:, 1]})
    data = bytearray(parquet(table, compression="gzip", use_dictionary=False))
    middle = len(data) // 2
    data[middle : middle + 64] = bytes(64)
    assert refuse(bytes(data), PARQUET).slug == "dataset-parse"


def test_a_wrong_page_checksum_is_refused(refuse, accept):
    settings = {"compression": "none", "use_dictionary": False, "write_page_checksum": True}
    data = bytearray(grid_parquet(**settings))
    accept(bytes(data), PARQUET)
    place = data.index(GRID[:, 1].tobytes())
    data[place + 8] ^= 1  # another number, which could be decoded
    assert refuse(bytes(data), PARQUET).slug == "dataset-parse"


@pytest.mark.parametrize(
    "column",
    [
        pa.array([[1.0], [2.0]]),
        pa.array([{"a": 1.0}, {"a": 2.0}]),
        pa.array([b"1", b"2"]),
        pa.array([[1.0, 2.0], [3.0, 4.0]], pa.list_(pa.float64(), 2)),
    ],
    ids=lambda column: str(column.type),
)
def test_parquet_columns_without_single_values_are_ignored(accept, column):
    summary = accept(parquet(pa.table({"x": [1.0, 2.0], "bad": column, "b": column})), PARQUET)
    assert [c.column.type for c in summary.columns] == ["integer", "ignored", "ignored"]
    assert [w["column"] for w in summary.warnings if w["code"] == "ignored"] == ["bad", "b"]


@pytest.mark.parametrize(
    ("column", "kind", "first"),
    [
        (pa.array(["1.5", "2.5"]).dictionary_encode(), "number", 1.5),
        (pa.array([1, 2], pa.decimal128(9, 2)), "integer", 1.0),
        (pa.array([Decimal("0.35"), Decimal("0.41")]), "number", 0.35),
        (pa.array(["1", "2"]), "integer", 1.0),
        (pa.array(["u", "v"], pa.large_string()), "category", 0.0),
        (pa.array([True, False]), "boolean", 1.0),
        (pa.array([1_500_000, 2_000_000], pa.timestamp("us")), "datetime", 1.5),
        (pa.array([1_500_000, 2_000_000], pa.timestamp("us", "nowhere")), "datetime", 1.5),
        (pa.array([1, 2], pa.date32()), "datetime", 86_400.0),
        (pa.array([1, 2], pa.time32("ms")), "datetime", 0.001),
        (pa.array([1, 2], pa.duration("s")), "integer", 1.0),
    ],
    ids=lambda value: str(getattr(value, "type", value)),
)
def test_parquet_columns_of_other_types_are_typed(accept, stored, column, kind, first):
    summary = accept(parquet(pa.table({"x": [1.0, 2.5], "odd": column})), PARQUET)
    assert summary.columns[1].column.type == kind
    assert stored()[0, 1] == first


@pytest.mark.parametrize(
    ("kind", "wanted", "told"),
    [
        (pa.timestamp("s"), "number", "The file holds datetime values"),
        (pa.timestamp("s"), "category", "The file holds datetime values"),
        (pa.duration("s"), "datetime", "The file holds number values"),
        (pa.duration("s"), "integer", None),
        (pa.decimal128(5, 100), "number", "decimal128, which is not read"),
    ],
    ids=str,
)
def test_a_type_that_the_file_does_not_hold_is_refused(accept, kind, wanted, told):
    column = pa.nulls(2, kind) if pa.types.is_decimal(kind) else pa.array([1, 2], kind)
    data = arrow(pa.table({"x": [1.0, 2.5], "odd": column}))
    if told is None:
        assert accept(data, TableFormat.ARROW, types={"odd": wanted}).columns[1].min == 1.0
        return
    with pytest.raises(TableError, match=told) as caught:
        accept(data, TableFormat.ARROW, types={"odd": wanted})
    assert (caught.value.slug, caught.value.column) == ("dataset-dtype", "odd")


def test_a_moment_in_a_zone_of_any_name_is_shown_as_text(tmp_path):
    table = pa.table({"day": pa.array([1, 2], pa.timestamp("s", "nowhere"))})
    (tmp_path / "upload").write_bytes(parquet(table))
    shown = preview_table(tmp_path / "upload", tmp_path / "table", PARQUET, ParseOptions())
    assert shown.first == [["1970-01-01 00:00:01.000Z"], ["1970-01-01 00:00:02.000Z"]]


def test_a_parquet_name_that_is_not_utf_8_is_refused(refuse):
    data = parquet(pa.table({"zz": [1.0, 2.0]}), store_schema=False)
    assert refuse(with_footer(data, b"zz", b"\xff\xfe"), PARQUET).slug == "dataset-encoding"


@pytest.mark.parametrize("encoded", [False, True])
def test_parquet_texts_that_are_not_utf_8_are_refused(refuse, accept, encoded):
    texts = pa.array(["aaaa", "bbbb"] * 3)
    table = pa.table({"x": np.arange(6.0), "t": texts.dictionary_encode() if encoded else texts})
    settings = {"compression": "none", "write_statistics": False}
    data = parquet(table, **settings)
    accept(data, PARQUET)
    assert refuse(data.replace(b"bbbb", b"b\xe4bb"), PARQUET).slug == "dataset-parse"


@pytest.mark.parametrize(
    ("data", "declared"),
    [
        (b"a,b\n1,2\n2,3\n", PARQUET),
        (grid_parquet(), CSV),
        (npy(GRID), PARQUET),
        (b"\x1f\x8b\x08\x00" + bytes(20), CSV),
        *((npz(), kind) for kind in (NPY, CSV)),
        (b'[{"a": 1}]', CSV),
        (b"<html>", CSV),
    ],
    ids=range(8),
)
def test_content_of_another_format_is_another_media_type(refuse, accept, data, declared):
    assert refuse(data, declared).slug == "media-type"
    assert accept(b"PAR1,PK\n1,2\n2,3\n").columns[0].name == "PAR1"


def test_an_encrypted_parquet_file_says_so(refuse):
    data = b"PARE" + grid_parquet()[4:-4] + b"PARE"
    error = refuse(data, PARQUET)
    assert error.slug == "dataset-parse"
    assert "encrypted" in error.detail


def test_a_huge_outlier_is_a_warning_with_its_row(accept):
    x = np.random.default_rng(0).normal(size=(300, 2))
    x[123, 1] = 1e9
    summary = accept(npy(x), NPY)
    [warning] = [w for w in summary.warnings if w["code"] == "outlier"]
    assert warning["column"] == "x2"
    assert "Row 124 " in warning["detail"]


def test_limits_of_rows_and_bytes_hold_in_every_format(refuse):
    csv = b"a,b,c\n" + b"".join(b"%g,%g,%g\n" % tuple(row) for row in GRID)
    for data, kind in ((csv, CSV), (grid_parquet(), PARQUET), (npy(GRID), NPY)):
        assert refuse(data, kind, max_rows=3).slug == "limit-rows"
        assert refuse(data, kind, max_columns=2).slug == "limit-columns"
        assert refuse(data, kind, max_bytes=95).slug == "dataset-too-large"


LARGEST = float(np.nextafter(np.float32(1e37), np.float32(0)))
ATTEMPTS = settings(max_examples=30, deadline=None, derandomize=True)


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_cut_after_any_byte_is_refused_or_its_summary_is_true(kind):
    for length in range(0, len(WHOLE[kind]), 5):
        cut = WHOLE[kind][:length]
        outcome = parse(cut, kind)
        if outcome is None or cut.endswith(b"-"):  # a sign alone is a gap
            continue
        assert kind in {TableFormat.CSV, TableFormat.NDJSON}  # the others know their length
        summary, stored = outcome
        # The last number may have lost digits, which no reader can see.
        assert np.array_equal(stored[:-1], EXACT[: summary.rows - 1])
        assert np.array_equal(stored[-1, :-1], EXACT[summary.rows - 1, :-1])


@pytest.mark.parametrize("kind", KINDS)
@ATTEMPTS
@given(data=st.data())
def test_a_file_with_bytes_changed_is_refused_or_its_summary_is_true(kind, data):
    damaged = bytearray(WHOLE[kind])
    places = st.integers(0, len(damaged) - 1)
    for place in data.draw(st.lists(places, min_size=1, max_size=3)):
        damaged[place] = data.draw(st.integers(0, 255))
    parse(bytes(damaged), kind)


@ATTEMPTS
@given(data=st.binary(max_size=200), kind=st.sampled_from(KINDS), header=st.booleans())
def test_any_bytes_are_refused_or_their_summary_is_true(data, kind, header):
    magic = {TableFormat.NPY: b"\x93NUMPY\x01\x00", TableFormat.PARQUET: b"PAR1"}.get(kind, b"")
    parse(magic + data, kind, ParseOptions(missing="drop", constant="keep", header=header))


@ATTEMPTS
@given(
    text=st.text(alphabet='01.,-+eE"\n\r; \tnaNx\ufeffé', max_size=80),
    header=st.booleans(),
    delimiter=st.sampled_from([",", ";", "\t", "|", " "]),
)
def test_any_text_is_refused_or_its_summary_is_true(text, header, delimiter):
    options = ParseOptions(missing="drop", constant="keep", header=header, delimiter=delimiter)
    parse(text.encode(), TableFormat.CSV, options)


tables = hnp.arrays(
    st.sampled_from([np.float32, np.float64]),
    hnp.array_shapes(min_dims=2, max_dims=2, min_side=2, max_side=30),
    # Columns of smaller numbers vary by too little to be modelled, and are left out.
    elements=st.floats(-LARGEST, LARGEST, width=32).filter(lambda x: x == 0 or abs(x) > 1e-25)
    | st.sampled_from([0.0, -0.0, 1.0]),
)


@ATTEMPTS
@given(table=tables)
def test_a_random_table_is_the_same_in_every_format(table):
    outcomes = [parse(write(kind, table), kind) for kind in KINDS]
    first = outcomes[0]
    assert first is not None
    rounding = 1e-12 * float(np.abs(table).max())
    for outcome in outcomes:
        assert outcome is not None
        assert np.array_equal(outcome[1], table)
        for one, other in zip(first[0].columns, outcome[0].columns, strict=True):
            if "boolean" in {one.column.type, other.column.type}:  # 0 and 1 in a format of text
                continue
            assert (one.mean, one.std) == pytest.approx((other.mean, other.std), abs=rounding)
            assert one.distinct == other.distinct


@pytest.mark.parametrize(
    ("offset", "order"),
    [(0.0, "shuffled"), (1e6, "sorted"), (1e15, "outlier first"), (-1e15, "sorted")],
)
def test_statistics_keep_their_digits_over_many_chunks_and_a_large_offset(accept, offset, order):
    x = np.random.default_rng(3).integers(-8, 9, (150_000, 2)) + offset
    if order == "sorted":
        x.sort(axis=0)
    elif order == "outlier first":
        x[0] = offset + 4096
    exact = (x - offset).astype(np.longdouble)
    for i, column in enumerate(accept(npy(x), NPY).columns):
        allowed = 0.5e-15 * abs(offset) + 1e-12
        assert column.mean - offset == pytest.approx(float(exact[:, i].mean()), abs=allowed)
        assert column.std == pytest.approx(float(exact[:, i].std()), rel=1e-12)
        assert column.distinct == np.unique(x[:, i]).size
