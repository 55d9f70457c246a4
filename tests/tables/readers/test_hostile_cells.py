"""Small files of cells that would take much to read: what they take is counted before it is taken."""

import io
import re
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa  # type: ignore[import-untyped] # it ships no type information
import pytest
from numpy.typing import NDArray

import tabular.arrow.messages
import tabular.readers.csv
from tabular.calendar.parts import ShapedParts
from tabular.cells import encode_cells, try_encode
from tabular.columns import Column
from tabular.errors import TableError
from tabular.formats import ParseOptions, TableFormat
from tabular.numerals import plain_digits, plain_marks
from tabular.readers.arrow import check_stream, is_packed, open_arrow_cells
from tabular.readers.npy import parse_header
from tabular.readers.uneven import UnevenRows
from tabular.source import gather_batches
from tabular.typed_table import open_typed, pieces_of

COLUMNS = (
    Column(name="a", missing=True),
    Column(name="t", type="category", levels=("q", "z"), missing=True),
)
OPTIONS = ParseOptions()


def stream(*batches: pa.RecordBatch, deltas: bool = False) -> bytes:
    buffer = io.BytesIO()
    options = pa.ipc.IpcWriteOptions(emit_dictionary_deltas=deltas)
    with pa.ipc.new_stream(buffer, batches[0].schema, options=options) as writer:
        for batch in batches:
            writer.write_batch(batch)
    return buffer.getvalue()


def rows_of(texts: pa.Array) -> pa.RecordBatch:
    return pa.record_batch([pa.array(np.zeros(len(texts))), texts], names=["a", "t"])


def same_bytes(rows: int, size: int) -> pa.Array:
    """Texts of a size that all lie in the same bytes."""
    views = np.zeros((rows, 4), np.int32)  # length, first four bytes, buffer, offset
    views[:, 0] = size
    views[:, 1] = int.from_bytes(b"xxxx", "little")
    buffers = [None, pa.py_buffer(views.tobytes()), pa.py_buffer(b"x" * size)]
    return pa.Array.from_buffers(pa.string_view(), rows, buffers)


def of_indices(indices: list[int], values: pa.Array) -> pa.DictionaryArray:
    return pa.DictionaryArray.from_arrays(pa.array(indices, pa.int32()), values, safe=False)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "rows"


def read(
    path: Path,
    content: bytes,
    options: ParseOptions = OPTIONS,
    format: TableFormat = TableFormat.ARROW,  # noqa: A002 - the word for it
) -> NDArray[np.float64]:
    path.write_bytes(content)
    table = open_typed(
        path, format=format, options=options, columns=COLUMNS, choose=lambda *_: [0, 1]
    )
    return np.concatenate(list(table.chunks))


def refused(path: Path, content: bytes, options: ParseOptions = OPTIONS) -> str:
    with pytest.raises(TableError) as caught:
        read(path, content, options)
    return caught.value.slug


def test_texts_that_lie_in_the_same_bytes_are_counted_before_they_are_read(path: Path) -> None:
    texts = same_bytes(300, 1 << 20)
    assert refused(path, stream(rows_of(texts))) == "dataset-too-large"
    assert is_packed(path, OPTIONS)
    assert refused(path, stream(rows_of(of_indices([0] * 3, texts)))) == "dataset-too-large"
    assert is_packed(path, OPTIONS)
    few = pa.array(["q", None, "a text that lies elsewhere", "z"], pa.string_view())
    assert read(path, stream(rows_of(few)))[[0, 3], 1].tolist() == [0, 1]


def test_columns_that_lie_in_the_same_bytes_are_refused(path: Path) -> None:
    texts, few = pa.array(["q" * 5000, "z"]), pa.array(["", ""])
    whole = bytearray(stream(pa.record_batch([texts, few], names=["t", "few"])))
    entry = whole.index(struct.pack("<q", 5001)) - 8  # offset and length of the texts
    whole[entry + 32 : entry + 64] = whole[entry - 16 : entry + 16]
    path.write_bytes(whole)
    with pytest.raises(TableError) as caught:
        list(open_arrow_cells(path, OPTIONS).read(frozenset()))
    assert caught.value.slug == "dataset-parse"


def test_a_dictionary_is_made_plain_once_for_all_batches(path: Path) -> None:
    values = pa.array(["q", "z"], pa.large_string())
    path.write_bytes(stream(*[rows_of(of_indices([1, 0], values))] * 3))
    batches = list(open_arrow_cells(path, OPTIONS).read(frozenset()))
    texts = [batch.column(1) for batch in batches]
    assert [text.to_pylist() for text in texts] == [["z", "q"]] * 3
    assert len({text.dictionary.buffers()[2].address for text in texts}) == 1


def test_another_dictionary_is_another(path: Path) -> None:
    one, other = (pa.array(values) for values in (["q", "z"], ["z", "q"]))
    batches = [rows_of(of_indices([0], values)) for values in (one, other, one)]
    assert read(path, stream(*batches))[:, 1].tolist() == [0, 1, 0]


@pytest.mark.parametrize("index", [2, -1])
def test_an_index_outside_of_its_dictionary_is_damage(path: Path, index: int) -> None:
    batch = rows_of(of_indices([0, index], pa.array(["q", "z"])))
    assert refused(path, stream(batch)) == "dataset-parse"


def test_long_texts_of_a_dictionary_count_with_each_piece_of_the_rows(path: Path) -> None:
    values = pa.array(["x" * 1_000_000, "q"])
    batch = rows_of(pa.DictionaryArray.from_arrays(pa.array(np.zeros(400_000, np.int8)), values))
    content = stream(batch)
    rows_alone = 400_000 * 16
    assert refused(path, content, ParseOptions(max_bytes=rows_alone)) == "dataset-too-large"
    assert len(read(path, content)) == 400_000


def growing(batches: int) -> Iterator[pa.RecordBatch]:
    values: list[str] = []
    for number in range(batches):
        values.append(f"{number}")
        yield rows_of(of_indices([number], pa.array(values)))


def test_dictionaries_that_are_extended_without_end_are_refused(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = stream(*growing(30), deltas=True)
    assert len(read(path, content)) == 30
    assert is_packed(path, OPTIONS)
    monkeypatch.setattr(tabular.arrow.messages, "MAX_DELTA_BYTES", 1_000)
    assert refused(path, content) == "dataset-too-large"
    assert len(read(path, stream(*growing(30)))) == 30  # whole ones


@pytest.mark.parametrize("check", [is_packed, check_stream])
def test_thousands_of_empty_batches_are_refused(path: Path, check: Any) -> None:
    empty = pa.record_batch([pa.array([], pa.float64())], names=["a"])
    content = stream(*[empty] * 10_001)
    assert refused(path, content) == "limit-metadata"
    with pytest.raises(TableError) as caught:
        check(path, OPTIONS)
    assert caught.value.slug == "limit-metadata"


def test_further_batches_need_rows(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tabular.arrow.messages, "FREE_MESSAGES", 10)
    one, more = (rows_of(pa.array(["q"] * rows)) for rows in (1, 64))
    assert len(read(path, stream(*[one] * 10))) == 10
    assert refused(path, stream(*[one] * 11)) == "limit-metadata"
    assert len(read(path, stream(*[more] * 30))) == 30 * 64
    assert refused(path, stream(*[more] * 30, *[one] * 11)) == "limit-metadata"
    # A dictionary of its own for each batch, as writers of chunked categories make them.
    texts = [pa.array([f"{turn}-{row}" for row in range(80)]) for turn in range(12)]
    batches = [rows_of(text.dictionary_encode()) for text in texts]
    assert len(read(path, stream(*batches))) == 12 * 80
    few = [rows_of(text.slice(0, 60).dictionary_encode()) for text in texts]
    assert refused(path, stream(*few)) == "limit-metadata"


def test_rows_that_take_no_bytes_are_refused(path: Path) -> None:
    def nulls(rows: int) -> bytes:
        return stream(pa.record_batch([pa.nulls(rows), pa.nulls(rows)], names=["a", "t"]))

    assert len(read(path, nulls(1_000))) == 1_000
    path.write_bytes(nulls(1_000_001))
    with pytest.raises(TableError) as caught:
        is_packed(path, OPTIONS)
    assert caught.value.slug == "limit-rows"
    assert refused(path, nulls(1_000_001)) == "limit-rows"


def test_as_many_uneven_rows_as_others_are_mended_together(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mended, calls = UnevenRows._mended, []

    def counted(rows: UnevenRows, *given: object) -> pa.RecordBatch:
        calls.append(1)
        return mended(rows, *given)  # type: ignore[arg-type]  # as they came

    monkeypatch.setattr(UnevenRows, "_mended", counted)
    lines = [f"{n},q" if n % 3 else f"{n}" for n in range(20_000)]
    rows = read(path, "\n".join(["a,t", *lines, ""]).encode(), format=TableFormat.CSV)
    assert rows[:, 0].tolist() == list(range(20_000))
    assert np.flatnonzero(np.isnan(rows[:, 1])).tolist() == list(range(0, 20_000, 3))
    assert 0 < len(calls) < 10


def test_a_row_of_millions_of_empty_values_is_not_taken_apart(path: Path) -> None:
    table = "a,t\n" + "1,q\n" * 30 + "1,q" + "," * 20_000 + "\n"
    with pytest.raises(TableError, match="Row 31 has 20002 value") as caught:
        read(path, table.encode(), format=TableFormat.CSV)
    assert caught.value.slug == "dataset-parse"


def test_texts_that_come_late_in_many_columns_are_read_in_a_few_passes(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [f"c{place}" for place in range(20)]
    plain, late = ",".join(["0.25"] * 20), ",".join(["\u2212" + "5"] * 20)
    path.write_text("\n".join([",".join(names), *[plain] * 20_000, late, plain]), "utf-8")
    read = tabular.readers.csv._Rows.cells
    passes: list[frozenset[int]] = []

    def noted(rows: Any, text: frozenset[int]) -> Iterator[pa.RecordBatch]:
        passes.append(text)
        return read(rows, text)

    monkeypatch.setattr(tabular.readers.csv._Rows, "cells", noted)
    table = open_typed(
        path,
        format=TableFormat.CSV,
        options=OPTIONS,
        columns=[Column(name=name) for name in names],
        choose=lambda *_: range(20),
    )
    values = np.concatenate(list(table.chunks))
    assert values.shape == (20_002, 20)
    assert (values[20_000] == -5).all()
    assert (np.delete(values, 20_000, axis=0) == 0.25).all()
    assert [len(text) for text in passes] == [0, 1, 2, 3, 20]


def test_digits_of_megabytes_are_left_as_they_are() -> None:
    """To replace them takes the interpreter's lock for as long."""
    digits, powers = "\u0661" * 2_049, "1\u00d710\u2075" * 1_000
    assert plain_digits(pa.array(["\u0661\u0662", digits, None, ""])).to_pylist() == [
        "12",
        digits,
        None,
        "",
    ]
    marks = plain_marks(pa.array(["1\u00d710\u2075", powers, None])).to_pylist()
    assert (marks[0], marks[2]) == ("1e5", None)
    assert "\u2075" in marks[1]


def test_a_text_of_megabytes_has_not_the_shape_of_a_date() -> None:
    shape = re.compile("(?P<Y>[0-9]+)")
    assert ShapedParts.of(pa.array(["2026"]), shape) is not None
    assert ShapedParts.of(pa.array(["2" * 1_025]), shape) is None


@pytest.mark.parametrize("kind", [pa.decimal32, pa.decimal64, pa.decimal128, pa.decimal256])
@pytest.mark.parametrize("scale", [100, -100, 12_845_096])
@pytest.mark.parametrize("inside", [False, True])
def test_decimals_of_any_scale_are_refused_before_a_value_is_read(path, kind, scale, inside):
    digits = {pa.decimal32: 9, pa.decimal64: 18, pa.decimal128: 38, pa.decimal256: 76}[kind]
    decimals = kind(digits, scale)
    cell = pa.py_buffer(b"\1".ljust(decimals.bit_width // 8, b"\0"))
    cells = pa.Array.from_buffers(decimals, 1, [None, cell])
    if inside:
        cells = pa.DictionaryArray.from_arrays(pa.array([0], pa.int8()), cells)
    texts = pa.record_batch([pa.array([0.5]), pa.array(["q"]), cells], names=["a", "t", "z"])
    path.write_bytes(stream(texts))
    with pytest.raises(TableError, match="which is not read") as caught:
        open_arrow_cells(path, OPTIONS)
    assert (caught.value.slug, caught.value.column) == ("dataset-dtype", "z")


def test_decimals_of_as_many_digits_as_they_have_are_read(path):
    kinds = [
        pa.decimal32(9, 9),
        pa.decimal64(18, -18),
        pa.decimal128(38, 38),
        pa.decimal256(76, 76),
    ]
    cells = [pa.array([None], kind) for kind in kinds]
    path.write_bytes(stream(pa.record_batch(cells, names=["a", "b", "c", "d"])))
    assert open_arrow_cells(path, OPTIONS).names == ["a", "b", "c", "d"]


@pytest.mark.parametrize(
    "kind", [pa.string(), pa.large_string(), pa.dictionary(pa.int8(), pa.string())]
)
def test_a_text_of_megabytes_is_not_looked_at(path: Path, kind: pa.DataType) -> None:
    texts = pa.array(["q", "x" * 2_000_000]).cast(kind)
    assert refused(path, stream(rows_of(texts))) == "dataset-too-large"
    assert read(path, stream(rows_of(texts.slice(0, 1))))[:, 1].tolist() == [0]


def test_long_rows_are_looked_at_a_few_at_a_time() -> None:
    names = ["t"]
    texts = pa.record_batch([pa.array(["x" * 200_000] * 60)], names=names)  # 12 MB
    assert [batch.num_rows for batch in gather_batches(iter([texts] * 4))] == [120, 120]
    short = pa.array(["q"] * 3000)
    skewed = pa.record_batch([pa.concat_arrays([short, *texts.columns * 4, short])], names=names)
    pieces = list(pieces_of(skewed))
    assert max(piece.nbytes for piece in pieces) <= 16 << 20
    assert pa.Table.from_batches(pieces).column("t").combine_chunks().equals(skewed.column("t"))


def test_a_large_batch_is_not_copied_for_the_rows_before_it() -> None:
    short = rows_of(pa.array(["q"]))
    large = rows_of(pa.array(["q" * (1 << 20)] * 20))
    found = list(gather_batches(iter([short, short, large, short, large])))
    assert [batch.num_rows for batch in found] == [2, 20, 1, 20]
    assert found[1].column(1).buffers()[2].address == large.column(1).buffers()[2].address


@pytest.mark.parametrize("rows", [900, 3000])
def test_a_few_long_rows_before_many_short_ones_are_looked_at_in_few_pieces(
    rows: int,
) -> None:
    texts = ["x" * (1 << 20)] * 17 + [""] * (rows - 17)
    batch = pa.record_batch([pa.array(texts)], names=["a"])
    pieces = list(pieces_of(batch))
    assert pa.Table.from_batches(pieces).equals(pa.Table.from_batches([batch]))
    assert len(pieces) < 20


def test_large_dictionaries_are_read_in_another_process(path: Path) -> None:
    values = pa.array([f"{number:>60}" for number in range(300_000)])  # 19 MB
    path.write_bytes(stream(rows_of(of_indices([1], values))))
    assert is_packed(path, OPTIONS)
    path.write_bytes(stream(rows_of(of_indices([1], values.slice(0, 1000)))))
    assert not is_packed(path, OPTIONS)


def test_columns_that_are_left_out_are_not_looked_at(path: Path) -> None:
    damaged = pa.Array.from_buffers(
        pa.string(), 1, [None, pa.py_buffer(struct.pack("<2i", 0, 1)), pa.py_buffer(b"\xff")]
    )
    rows = pa.record_batch([pa.array([0.5]), pa.array(["z"]), damaged], names=["a", "t", "other"])
    assert read(path, stream(rows)).tolist() == [[0.5, 1.0]]
    rows = pa.record_batch([pa.array([0.5]), damaged, damaged], names=["a", "t", "other"])
    assert refused(path, stream(rows)) == "dataset-parse"


def test_dictionaries_of_small_batches_are_joined(path: Path) -> None:
    values = [[f"{batch}-{number}" for number in range(99)] + ["z"] for batch in range(3)]
    batches = [
        rows_of(pa.DictionaryArray.from_arrays(pa.array(range(100), pa.int8()), pa.array(texts)))
        for texts in values
    ]
    assert read(path, stream(*batches))[:, 1].tolist() == ([-1.0] * 99 + [1.0]) * 3


def test_truth_values_are_no_dates() -> None:
    one_day = Column(name="d", type="datetime", levels=("2024-02-29",))
    assert encode_cells(pa.array([True, None]), one_day).tolist()[0] == -1.0


def test_whole_numbers_beyond_dates_are_none() -> None:
    digits = Column(name="d", type="datetime", datetime_format="%Y%m%d")
    for kind, number in [(pa.uint64(), 2**64 - 1), (pa.int64(), -(2**63))]:
        _, bad = try_encode(pa.array([20240229, number], kind), digits)
        assert bad.tolist() == [False, True]


def test_a_time_zone_has_a_short_name(path: Path) -> None:
    for zone, is_refused in [("x" * 256, False), ("x" * 257, True), ("x" * 10_000_000, True)]:
        times = pa.array([1], pa.timestamp("s", zone))
        path.write_bytes(stream(rows_of(times)))
        if is_refused:
            with pytest.raises(TableError, match="time zone") as caught:
                open_arrow_cells(path, OPTIONS)
            assert caught.value.slug == "limit-metadata"
        else:
            assert open_arrow_cells(path, OPTIONS).names == ["a", "t"]


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        (pa.list_(pa.struct([("x" * 100, pa.int8())])), "list"),
        (pa.map_(pa.string(), pa.list_(pa.int8())), "map"),
        (pa.dense_union([pa.field("x", pa.int8())]), "dense_union"),
        (pa.run_end_encoded(pa.int16(), pa.string()), "run_end_encoded"),
        (pa.dictionary(pa.int8(), pa.list_(pa.int8())), "dictionary"),
        (pa.fixed_shape_tensor(pa.float64(), [1] * 100), "extension<arrow.fixed_shape_tensor>"),
        (
            pa.dictionary(pa.int8(), pa.string()),
            "dictionary<values=string, indices=int8, ordered=0>",
        ),
        (pa.timestamp("s", "UTC"), "timestamp[s, tz=UTC]"),
    ],
)
def test_the_name_of_a_type_has_nothing_that_is_nested_in_it(
    path: Path, kind: pa.DataType, name: str
) -> None:
    schema = pa.schema([("a", pa.float64()), ("t", kind)])
    with pa.ipc.new_stream(path, schema):
        pass
    assert open_arrow_cells(path, OPTIONS).dtypes == ["float64", name]
    with pytest.raises(TableError, match=re.escape(f"is of type {name}; only")):
        check_stream(path, OPTIONS)


def test_a_name_of_megabytes_is_refused(path: Path) -> None:
    for name in ("x" * 65_537, "x" * 5_000_000):
        path.write_bytes(stream(pa.record_batch([pa.array([1.0])], names=[name])))
        for opened in (open_arrow_cells, check_stream):
            with pytest.raises(TableError, match="name of a column has more") as caught:
                opened(path, OPTIONS)
            assert caught.value.slug == "limit-metadata"
    path.write_bytes(stream(pa.record_batch([pa.array([1.0])], names=["x" * 65_536])))
    assert open_arrow_cells(path, OPTIONS).names == ["x" * 128]


def test_the_header_of_an_array_is_short() -> None:
    text = b"{'descr': '<f8', 'fortran_order': False, 'shape': (3, 2), }"
    for size, is_refused in ((1024, False), (1025, True), (9000, True)):
        content = b"\x93NUMPY\1\0" + struct.pack("<H", size) + text.ljust(size - 1) + b"\n"
        if is_refused:
            with pytest.raises(TableError, match="more than 1024 bytes"):
                parse_header(content)
        else:
            found = parse_header(content)
            assert found is not None
            assert found.shape == (3, 2)
