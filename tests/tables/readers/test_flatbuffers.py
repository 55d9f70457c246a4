"""Messages of Arrow whose parts lie in the same bytes, which only a writer of its own makes."""

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars
import pyarrow as pa  # type: ignore[import-untyped] # it ships no type information
import pytest

from tabular.errors import TableError
from tabular.formats import ParseOptions
from tabular.readers.arrow import check_stream, is_packed, open_arrow, open_arrow_cells

_OPTIONS = ParseOptions(max_rows=1000, max_columns=100, max_bytes=2**20)
_END = b"\xff\xff\xff\xff\0\0\0\0"
_MANY = 100
_LONG = 1 << 16  # bytes of a text, of which a schema has not as many as that


@dataclass(eq=False)
class _Text:
    text: bytes

    @property
    def parts(self) -> list["_Part"]:
        return []


@dataclass(eq=False)
class _List:
    parts: "list[_Part]"


@dataclass(eq=False)
class _Table:
    """Table: parts and numbers of two bytes by their slots."""

    slots: "dict[int, _Part | int]" = field(default_factory=dict)

    @property
    def parts(self) -> "list[_Part]":
        return [part for part in self.slots.values() if not isinstance(part, int)]


_Part = _Text | _List | _Table


def _ordered(root: _Part) -> list[_Part]:
    """Return each part once, before all that it refers to: offsets have no sign."""
    found: list[_Part] = []
    seen: set[int] = set()

    def visit(part: _Part) -> None:
        if id(part) not in seen:
            seen.add(id(part))
            for other in part.parts:
                visit(other)
            found.append(part)

    visit(root)
    return found[::-1]


def _written(root: _Part) -> bytes:
    data = bytearray(8)
    places: dict[int, int] = {}
    offsets: list[tuple[int, _Part]] = [(0, root)]
    for part in _ordered(root):
        if isinstance(part, _Table):
            slots = max(part.slots, default=-1) + 1
            entries = [4 + 4 * slot if slot in part.slots else 0 for slot in range(slots)]
            vtable = struct.pack(f"<{2 + slots}H", 4 + 2 * slots, 4 + 4 * slots, *entries)
            data += vtable + bytes(-len(vtable) % 8)
            places[id(part)] = len(data)
            data += struct.pack("<i", len(vtable) + -len(vtable) % 8)
            for slot in range(slots):
                value = part.slots.get(slot, 0)
                if isinstance(value, int):
                    data += struct.pack("<I", value)
                else:
                    offsets.append((len(data), value))
                    data += bytes(4)
        else:
            places[id(part)] = len(data)
            content = part.text if isinstance(part, _Text) else bytes(4 * len(part.parts))
            data += struct.pack("<I", len(part.text if isinstance(part, _Text) else part.parts))
            offsets += [(len(data) + 4 * at, other) for at, other in enumerate(part.parts)]
            data += content + b"\0"
        data += bytes(-len(data) % 8)
    for place, part in offsets:
        struct.pack_into("<I", data, place, places[id(part)] - place)
    return bytes(data)


def _stream(schema: _Table, *, pairs: _List | None = None) -> bytes:
    """Return a stream of a schema alone."""
    slots: dict[int, _Part | int] = {0: 4, 1: 1, 2: schema}
    data = _written(_Table(slots | ({} if pairs is None else {4: pairs})))
    return b"\xff\xff\xff\xff" + struct.pack("<i", len(data)) + data + _END


def _field(
    name: _Text, *, kind: int = 2, children: list[_Part] | None = None, **slots: _Part
) -> _Table:
    type_ = _Table({0: 32, 1: 1}) if kind == 2 else _Table()  # of numbers
    own: dict[int, _Part | int] = {
        0: name,
        2: kind,
        3: type_,
        5: _List(children or []),
    }
    return _Table(own | ({6: slots["pairs"]} if "pairs" in slots else {}))


def _schema(*fields: _Table, pairs: _List | None = None) -> _Table:
    own: dict[int, _Part | int] = {1: _List([*fields])}
    return _Table(own | ({} if pairs is None else {2: pairs}))


def _pairs(count: int) -> _List:
    return _List([_Table({0: _Text(b"key"), 1: _Text(b"v" * _LONG)})] * count)


def _same_name(count: int) -> bytes:
    name = _Text(b"a" * _LONG)
    return _stream(_schema(*(_field(name) for _ in range(count))))


def _same_field(count: int) -> bytes:
    return _stream(_schema(*[_field(_Text(b"a" * _LONG))] * count))


def _same_children(count: int) -> bytes:
    inner = _field(_Text(b"a" * _LONG), kind=13, children=[_field(_Text(b"a"))] * count)
    return _stream(_schema(_field(_Text(b"a"), kind=13, children=[inner] * count)))


def _same_pair_of_schema(count: int) -> bytes:
    return _stream(_schema(_field(_Text(b"a")), pairs=_pairs(count)))


def _same_pair_of_field(count: int) -> bytes:
    return _stream(_schema(_field(_Text(b"a"), pairs=_pairs(count))))


def _same_pair_of_message(count: int) -> bytes:
    return _stream(_schema(_field(_Text(b"a"))), pairs=_pairs(count))


_WRITERS = [
    _same_name,
    _same_field,
    _same_children,
    _same_pair_of_schema,
    _same_pair_of_field,
    _same_pair_of_message,
]


def _readers(data: bytes, path: Path) -> Iterator[Callable[[], Any]]:
    path.write_bytes(data)
    yield lambda: check_stream(data, _OPTIONS)
    yield lambda: open_arrow(data, _OPTIONS)
    yield lambda: open_arrow_cells(path, _OPTIONS)
    yield lambda: is_packed(path, _OPTIONS)


@pytest.mark.parametrize("write", _WRITERS)
def test_parts_of_a_message_that_lie_in_the_same_bytes_are_refused(write, tmp_path):
    data = write(_MANY)
    pa.ipc.open_stream(data)  # Arrow reads it
    for read in _readers(data, tmp_path / "table.arrow"):
        with pytest.raises(TableError, match="lie in the same bytes") as caught:
            read()
        assert caught.value.slug == "dataset-parse"


@pytest.mark.parametrize("compression", ["uncompressed", "zstd"])
@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (["0 agree", "1 agree"], polars.Enum([f"{number} agree" for number in range(100)])),
        (
            [datetime(2020, 1, 1, tzinfo=UTC)] * 2,
            polars.Datetime("us", "America/Argentina/Buenos_Aires"),
        ),
    ],
    ids=["values of an enumeration", "zone"],
)
def test_polars_writes_what_its_columns_share_once(values, kind, compression, tmp_path):
    column = polars.Series(values, dtype=kind)
    path = tmp_path / "table.arrow"
    polars.DataFrame({f"question {place}": column for place in range(90)}).write_ipc_stream(
        path, compression=compression
    )
    assert pa.ipc.open_stream(path).read_all().num_rows == 2
    batches = open_arrow_cells(path, _OPTIONS).read(frozenset())
    assert [(batch.num_columns, batch.num_rows) for batch in batches] == [(90, 2)]


def test_a_later_message_without_the_mark_of_new_streams_is_looked_at_too(tmp_path):
    first, later = _same_name(1), _same_pair_of_message(_MANY)
    data = first.removesuffix(_END) + later.removeprefix(_END[:4])
    path = tmp_path / "table.arrow"
    path.write_bytes(data)
    with pytest.raises(TableError, match="lie in the same bytes"):
        is_packed(path, _OPTIONS)


@pytest.mark.parametrize("write", _WRITERS)
def test_the_same_parts_once_are_read(write, tmp_path):
    read = list(_readers(write(1), tmp_path / "table.arrow"))[2]
    assert len(read().names) == 1


def _nested(count: int) -> pa.Schema:
    return pa.schema([("a", pa.struct([(str(place), pa.int8()) for place in range(count)]))])


def test_a_schema_of_more_fields_than_its_columns_may_have_is_refused(tmp_path):
    for count, refused in ((10_300, False), (10_500, True)):
        data = _by_arrow(_nested(count))
        read = list(_readers(data, tmp_path / "table.arrow"))[2]
        if refused:
            with pytest.raises(TableError, match="more than 10400 fields") as caught:
                read()
            assert caught.value.slug == "limit-metadata"
        else:
            assert read().names == ["a"]


def _by_arrow(schema: pa.Schema, **options: object) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, schema, options=pa.ipc.IpcWriteOptions(**options)) as writer:
        arrays = [pa.nulls(0, kind) for kind in schema.types]
        batch = pa.RecordBatch.from_arrays(arrays, schema=schema)
        writer.write_batch(batch, custom_metadata={"k": "v" * 5000})
    data: bytes = sink.getvalue().to_pybytes()
    return data


def test_what_libraries_write_shares_nothing(tmp_path):
    kinds = [
        pa.timestamp("s", "Europe/Lisbon"),
        pa.dictionary(pa.int8(), pa.string()),
        pa.struct([("", pa.list_(pa.int8())), ("é" * 60, pa.map_(pa.string(), pa.int8()))]),
        pa.sparse_union([pa.field("a", pa.int8()), pa.field("a", pa.string())]),
        pa.decimal128(10, 2),
        pa.null(),
        pa.fixed_shape_tensor(pa.int8(), [2, 2]),
    ]
    fields = [pa.field("", kind, metadata={"": "", "k": "v" * 300}) for kind in kinds * 10]
    schema = pa.schema(fields, metadata={"pandas": "{}" * 5000})
    for options in ({}, {"compression": "zstd"}):
        data = _by_arrow(schema, **options)
        (tmp_path / "table.arrow").write_bytes(data)
        assert len(open_arrow_cells(tmp_path / "table.arrow", _OPTIONS).names) == 70
        assert is_packed(tmp_path / "table.arrow", _OPTIONS) == bool(options)


def test_what_polars_writes_shares_nothing(tmp_path):
    path = tmp_path / "table.arrow"
    table = polars.DataFrame({f"{place}": ["a", "b"] for place in range(90)})
    table = table.with_columns(
        when=polars.Series(["2026-01-01"] * 2).str.to_datetime(time_zone="UTC")
    )
    table.with_columns(kind=polars.Series(["a", "b"], dtype=polars.Categorical)).write_ipc_stream(
        path
    )
    assert len(open_arrow_cells(path, _OPTIONS).names) == 92
