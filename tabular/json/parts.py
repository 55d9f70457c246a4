"""Parsing of JSON in parts, between which other threads run.

The parser keeps the interpreter's lock until it is done: for a text of megabytes a tenth of a second, in
which an event loop in another thread serves nobody.
"""

import secrets
from typing import Any

import orjson

PART_BYTES = 64 << 10
"""Bytes of a part, which take two milliseconds."""

_NOT_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_CLOSING = bytes.maketrans(b"[{", b"]}")


def load_by_parts(text: bytes, *, objects: int, size: int = PART_BYTES) -> tuple[Any, int]:
    """Return what a JSON text says, and how many keys its objects have.

    Where an object names a key twice there are fewer keys than colons, and the value may be None.

    Args:
        text: JSON text, nested no deeper than the parser allows.
        objects: Number of objects in the text.
        size: Bytes of a part, which ends at the next comma that is in no string.

    Raises:
        orjson.JSONDecodeError: What the parser says of the whole text.
    """
    if len(text) <= size:
        value = orjson.loads(text)
        return value, _count_keys(value, objects=objects)
    return _Parts(text).load(size)


class _Parts:
    """Parser of a text, a part at a time.

    Before a part stand the brackets that are open where it starts, and behind it those that close what is
    open where it ends. Fillers take the places of the values beyond its first and its last comma,
    so that the parser refuses in a part just what it would refuse there in the whole text.
    """

    def __init__(self, text: bytes) -> None:
        self._text = text
        # Of the same length, and without quotation marks in strings.
        self._plain = text.replace(b"\\\\", b"__").replace(b'\\"', b"__") if b"\\" in text else text
        self._first, self._last = secrets.token_hex(8), secrets.token_hex(8)  # no keys of the text
        self._kinds = b""  # brackets that are open where the next part starts
        self._open: list[Any] = []  # their lists and objects, from the outermost one on
        self._keys = 0
        self._names_twice = False

    def load(self, size: int) -> tuple[Any, int]:
        """Return the value of the text, and its number of keys."""
        whole, start = None, 0
        while start < len(self._text):
            end = self._comma(start, start + size)
            bare = b"".join(self._plain[start:end].split(b'"')[::2])
            kept, kinds = self._kinds_after(bare)
            if not kinds or end == len(self._text) - 1:
                end = len(self._text)  # the parser refuses what comes then
            value = self._parsed(start, end, kinds)
            if not self._names_twice:
                self._count(value, bare, ends=end == len(self._text), kinds=kinds)
            if not self._names_twice:
                whole = value if start == 0 else whole
                self._join(value, kept, kinds, ends=end == len(self._text))
            self._kinds, start = kinds, end + 1
        return (None, 0) if self._names_twice else (whole, self._keys)

    def _comma(self, start: int, at: int) -> int:
        """Return the place of the first comma from `at` on that is in no string, or the end of the text."""
        plain, end = self._plain, len(self._plain)
        inside = plain.count(b'"', start, at) % 2
        while at < end:
            if inside:
                at = plain.find(b'"', at) + 1 or end
            comma = plain.find(b",", at)
            if comma < 0:
                return end
            inside = plain.count(b'"', at, comma) % 2
            if not inside:
                return comma
            at = comma
        return end

    def _kinds_after(self, bare: bytes) -> tuple[int, bytes]:
        """Return how many of the open brackets a part leaves open, and all that are open behind it."""
        brackets = bare.translate(None, _NOT_BRACKETS)
        for pair in (b"[]", b"{}", b"[]"):  # of most rows
            brackets = brackets.replace(pair, b"")
        kinds = bytearray(self._kinds)
        kept = len(kinds)
        for bracket in brackets:
            if bracket in b"[{":
                kinds.append(bracket)
            elif kinds:
                kinds.pop()
                kept = min(kept, len(kinds))
        return kept, bytes(kinds)

    def _parsed(self, start: int, end: int, kinds: bytes) -> Any:  # noqa: ANN401  JSON is anything
        key = b'"%b":' % self._first.encode()
        head = self._kinds.replace(b"{", b"{" + key) + b"0,"[: 2 * len(self._kinds)]
        tail = b""
        if end < len(self._text):
            key = b'"%b":' % self._last.encode() if kinds.endswith(b"{") else b""
            tail = b"," + key + b"0" + kinds[::-1].translate(_CLOSING)
        try:
            return orjson.loads(head + self._text[start:end] + tail)
        except orjson.JSONDecodeError as error:
            try:
                text, before = self._text.decode(), len(self._text[:start].decode())
            except UnicodeDecodeError:
                return orjson.loads(self._text)  # the parser looks for these first
            place = before + error.pos - len(head)
            raise orjson.JSONDecodeError(error.msg, text, place) from None

    def _count(self, value: object, bare: bytes, *, ends: bool, kinds: bytes) -> None:
        fillers = self._kinds.count(b"{")
        keys = _count_keys(value, objects=fillers + bare.count(b"{")) - fillers
        keys -= not ends and kinds.endswith(b"{")
        self._keys += keys
        self._names_twice = keys < bare.count(b":")

    def _join(self, value: Any, kept: int, kinds: bytes, *, ends: bool) -> None:  # noqa: ANN401  JSON is anything
        """Add the values of a part to the open lists and objects, and take out its fillers."""
        nodes = [value]
        for _ in self._open[1:]:
            node = nodes[-1]
            nodes.append(node[0] if isinstance(node, list) else node[self._first])
        node = nodes[max(kept, 1) - 1]
        opened = [] if self._open else [value]
        for _ in kinds[max(kept, 1) :]:
            node = node[-1] if isinstance(node, list) else next(reversed(node.values()))
            opened.append(node)
        if not ends:
            node.pop() if isinstance(node, list) else node.popitem()
        for whole, part in zip(self._open, nodes, strict=False):
            if isinstance(whole, list):
                whole.extend(part[1:])
                continue
            del part[self._first]
            keys = len(whole) + len(part)
            whole.update(part)
            self._names_twice |= len(whole) < keys
        self._open = self._open[:kept] + opened


def _count_keys(value: object, *, objects: int) -> int:
    """Return the number of keys of a parsed value, where a duplicate in the text is one."""
    keys = 0
    pending = [value]
    while pending and objects:
        item = pending.pop()
        if isinstance(item, dict):
            objects -= 1
            keys += len(item)
            pending.extend(item.values())
        elif isinstance(item, list):
            pending.extend(inner for inner in item if isinstance(inner, dict | list))
    return keys
