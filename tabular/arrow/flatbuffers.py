"""Flatbuffers of Arrow's messages, of which any two parts may lie in the same bytes."""

import struct
from collections.abc import Callable, Iterator

from tabular.errors import TableError

# Slots of tables (format/Message.fbs, format/Schema.fbs).
_HEADER_KIND_SLOT, HEADER_SLOT, _MESSAGE_PAIRS_SLOT = 1, 2, 4
_FIELDS_SLOT, _SCHEMA_PAIRS_SLOT = 1, 2
_NAME_SLOT, _KIND_SLOT, _TYPE_SLOT, _CHILDREN_SLOT, _FIELD_PAIRS_SLOT = 0, 2, 3, 5, 6
_KEY_SLOT, _VALUE_SLOT = 0, 1
_DETAIL_SLOT = 1  # of a type: the zone of a timestamp, the numbers of the members of a union
_SCHEMA, _TIMESTAMP, _UNION = 1, 10, 14
_READERS: dict[str, Callable[[memoryview, int], tuple[int]]] = {
    code: struct.Struct(f"<{code}").unpack_from for code in "BHIiq?"
}
_signed, _short = _READERS["i"], _READERS["H"]
_FREE_PARTS, _COLUMN_PARTS = 10_000, 4
_FIELD_BYTES, _PAIR_BYTES = 24, 16  # that the smallest ones take, where no two share any
_NAME_BYTES = 64 << 10  # far more than a name that is cut to what may stay
_ZONE_BYTES = 256  # of the name of a time zone; the longest known one has 32
_SHARED_BYTES = (
    4 << 20
)  # of a schema: Polars writes the values of an enumeration once for all its columns


class Flatbuffer:
    """Tables of a flatbuffer, which are looked at in place.

    Args:
        data: Bytes of the flatbuffer. What lies outside of them is a ``struct.error``.
    """

    def __init__(self, data: memoryview) -> None:
        self.data = data

    @property
    def root(self) -> int:
        """Place of the outermost table."""
        return self.number("I", 0)

    def number(self, code: str, place: int) -> int:
        """Return the number at a place.

        Args:
            code: Format of `struct`, one of those that Arrow uses.
            place: Byte at which it begins.
        """
        (number,) = _READERS[code](self.data, place)
        return number

    def field(self, table: int, slot: int) -> int | None:
        """Return the place of a field of a table; None where the table has none."""
        vtable = table - _signed(self.data, table)[0]
        entry = 4 + 2 * slot
        if entry >= _short(self.data, vtable)[0]:
            return None
        offset = _short(self.data, vtable + entry)[0]
        return table + offset if offset else None

    def target(self, table: int, slot: int) -> int | None:
        """Return the place of the table, text or list that a field refers to; None where there is none."""
        place = self.field(table, slot)
        return None if place is None else place + self.number("I", place)

    def length(self, table: int, slot: int) -> int:
        """Return the length of the text or list that a field refers to; 0 where there is none."""
        place = self.target(table, slot)
        return 0 if place is None else self.number("I", place)

    def tables(self, table: int, slot: int) -> Iterator[int]:
        """Yield the places of the tables of a list."""
        place = self.target(table, slot)
        if place is not None:
            for entry in range(place + 4, place + 4 + 4 * self.number("I", place), 4):
                yield entry + self.number("I", entry)


def check_message(data: memoryview, *, max_columns: int) -> None:
    """Refuse a message that holds far more than its bytes: each field may name the same text, and the same fields.

    Arrow makes objects of all that is named, also where it reads no more than the message's header.

    Args:
        data: Flatbuffer of the message, which nothing has verified.
        max_columns: Most columns of a table.

    Raises:
        TableError: ``dataset-parse`` or ``limit-metadata``.
        struct.error: A part lies outside of the message.
    """
    _Parts(data, most=_FREE_PARTS + _COLUMN_PARTS * max_columns).check()


class _Parts:
    """Parts of a message that have been counted, and bytes that are left for others."""

    def __init__(self, data: memoryview, *, most: int) -> None:
        self._buffer = Flatbuffer(data)
        self._left = len(data)
        self._most = most
        self._count = 0

    def check(self) -> None:
        buffer = self._buffer
        self._add_pairs(buffer.root, _MESSAGE_PAIRS_SLOT)
        kind, schema = (
            buffer.field(buffer.root, _HEADER_KIND_SLOT),
            buffer.target(buffer.root, HEADER_SLOT),
        )
        if schema is None or kind is None or buffer.number("B", kind) != _SCHEMA:
            return
        self._left += _SHARED_BYTES
        self._add_pairs(schema, _SCHEMA_PAIRS_SLOT)
        pending = self._list(schema, _FIELDS_SLOT, size=_FIELD_BYTES)
        while pending:
            field = pending.pop()
            size = buffer.length(field, _NAME_SLOT)
            self._take(size)
            if size > _NAME_BYTES:
                raise TableError(
                    "limit-metadata", f"The name of a column has more than {_NAME_BYTES} bytes."
                )
            self._add_pairs(field, _FIELD_PAIRS_SLOT)
            self._add_type(field)
            pending += self._list(field, _CHILDREN_SLOT, size=_FIELD_BYTES)

    def _add_pairs(self, table: int, slot: int) -> None:
        for pair in self._list(table, slot, size=_PAIR_BYTES):
            self._take(self._buffer.length(pair, _KEY_SLOT))
            self._take(self._buffer.length(pair, _VALUE_SLOT))

    def _add_type(self, field: int) -> None:
        """Add what the type of a field names, if it is one of those that name something."""
        place = self._buffer.field(field, _KIND_SLOT)
        kind = 0 if place is None else self._buffer.number("B", place)
        table = self._buffer.target(field, _TYPE_SLOT) if kind in (_TIMESTAMP, _UNION) else None
        if table is None:
            return
        size = self._buffer.length(table, _DETAIL_SLOT)
        self._take(size)
        if kind == _TIMESTAMP and size > _ZONE_BYTES:  # Arrow looks it up with each batch
            raise TableError(
                "limit-metadata", f"A time zone has a name of more than {_ZONE_BYTES} bytes."
            )

    def _list(self, table: int, slot: int, *, size: int) -> list[int]:
        """Return the tables of a list, each of which takes some bytes at least."""
        count = self._buffer.length(table, slot)
        if count == 0:  # as of most
            return []
        self._take(size * count)
        self._count += count
        if self._count > self._most:
            raise TableError(
                "limit-metadata",
                f"A part of the stream has more than {self._most} fields and pairs of metadata.",
            )
        return list(self._buffer.tables(table, slot))

    def _take(self, size: int) -> None:
        self._left -= size
        if self._left < 0:
            raise TableError(
                "dataset-parse",
                "The Arrow stream is damaged: parts of its metadata lie in the same bytes.",
            )
