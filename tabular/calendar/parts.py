"""Parts of dates in text, such as years and hours, as numbers."""

import re
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import pyarrow as pa  # type: ignore[import-untyped] # it ships no type information
import pyarrow.compute as pc  # type: ignore[import-untyped] # as above
from numpy.typing import NDArray

Whole = NDArray[np.int64]

_WORDS = {"b", "B", "p"}
_ONES = {"q", "u"}  # whose digits are not any
_UTC = {"Z", "z", "UTC"}


class DateParts(Protocol):
    """Parts of dates by the letters of their directives."""

    def __len__(self) -> int:
        """Return the number of dates."""

    def has(self, name: str) -> bool:
        """Return whether the format has a part."""

    def number(self, name: str, default: int = 0) -> Whole:
        """Return a part as numbers, the default where it is absent."""

    def words(self, name: str) -> pa.Array:
        """Return a part that is text, in small letters."""

    def fraction(self) -> NDArray[np.float64]:
        """Return the decimals of the seconds."""

    def zone(self) -> tuple[Whole, NDArray[np.bool_]]:
        """Return the seconds by which local time is before UTC's, and which zones can be."""


@dataclass(frozen=True)
class TextParts:
    """Parts of dates of any form, as a regular expression finds them; empty where a date lacks one."""

    text: pa.StructArray

    def __len__(self) -> int:
        return len(self.text)

    def has(self, name: str) -> bool:
        """Return whether the format has a part."""
        return bool(self.text.type.get_field_index(name) >= 0)

    def number(self, name: str, default: int = 0) -> Whole:
        """Return a part as numbers, the default where it is absent."""
        if not self.has(name):
            return np.full(len(self.text), default)
        text = self._part(name)
        return _numbers(pc.if_else(pc.equal(text, ""), str(default), text))

    def words(self, name: str) -> pa.Array:
        """Return a part that is text, in small letters."""
        return pc.utf8_lower(self._part(name))

    def fraction(self) -> NDArray[np.float64]:
        """Return the decimals of the seconds."""
        if not self.has("f"):
            return np.zeros(len(self.text))
        return _numbers(pc.utf8_rpad(self._part("f"), 9, "0")) / 1e9

    def zone(self) -> tuple[Whole, NDArray[np.bool_]]:
        """Return the seconds by which local time is before UTC's, and which zones can be."""
        if not self.has("z"):
            return _no_zone(len(self.text))
        text = self._part("z")
        digits = pc.replace_substring_regex(text, "[^0-9]", "")
        digits = pc.replace_substring_regex(digits, r"^(\d)$", r"0\1")
        four = _numbers(pc.utf8_rpad(digits, 4, "0"))
        hours, minutes = four // 100, four % 100
        west = pc.fill_null(pc.starts_with(text, "-"), fill_value=False)
        sign = np.where(west.to_numpy(zero_copy_only=False), -1, 1)
        return sign * (hours * 3600 + minutes * 60), (hours < 24) & (minutes < 60)

    def _part(self, name: str) -> pa.Array:
        return pc.struct_field(self.text, [self.text.type.get_field_index(name)])


_LONGEST_BYTES = 1024  # of a date; another text may have megabytes


@dataclass(frozen=True)
class ShapedParts:
    """Parts of dates that have digits in the same places, and the same characters between these.

    Attributes:
        digits: Digits, and other characters less the code of zero, of all dates.
        spans: First place of each part and the place after it.
    """

    digits: NDArray[np.uint8]
    spans: dict[str, tuple[int, int]]

    @classmethod
    def of(cls, text: pa.Array, pattern: re.Pattern[str]) -> "ShapedParts | None":
        """Return the parts of dates of which the first tells the places; None if others differ."""
        if text.type != pa.string() or text.null_count or not len(text):
            return None
        is_long = text[:1].nbytes > _LONGEST_BYTES  # a scalar would be a copy
        if is_long or (_WORDS | _ONES) & pattern.groupindex.keys():
            return None
        match = pattern.match(first := text[0].as_py())
        if match is None or not first.isascii():
            return None
        parts = {name: part for name, part in match.groupdict().items() if part is not None}
        parts = {name: part for name, part in parts.items() if name != "z" or part not in _UTC}
        if not all(part.isdigit() for part in parts.values()):
            return None
        matrix = _characters(text, len(first))
        if matrix is None:
            return None
        shape = np.frombuffer(first.encode(), np.uint8)
        is_digit = (shape >= ord("0")) & (shape <= ord("9"))
        digits = matrix - np.uint8(ord("0"))
        same = (matrix[:, ~is_digit] == shape[~is_digit]).all() and (digits[:, is_digit] < 10).all()
        return cls(digits, {name: match.span(name) for name in parts}) if same else None

    def __len__(self) -> int:
        return len(self.digits)

    def has(self, name: str) -> bool:
        """Return whether the dates have a part."""
        return name in self.spans

    def number(self, name: str, default: int = 0) -> Whole:
        """Return a part as numbers, the default where it is absent."""
        if name not in self.spans:
            return np.full(len(self.digits), default)
        start, stop = self.spans[name]
        powers = 10 ** np.arange(stop - start - 1, -1, -1, dtype=np.int64)
        return np.asarray(self.digits[:, start:stop] @ powers, np.int64)

    def words(self, name: str) -> pa.Array:
        """Refuse: text has no shape."""
        raise NotImplementedError(name)

    def fraction(self) -> NDArray[np.float64]:
        """Return the decimals of the seconds."""
        start, stop = self.spans.get("f", (0, 0))
        return np.asarray(self.number("f") * 10 ** (9 - (stop - start)) / 1e9, np.float64)

    def zone(self) -> tuple[Whole, NDArray[np.bool_]]:
        """Return the seconds by which local time is before UTC's, and which zones can be."""
        return _no_zone(len(self.digits))


def _characters(text: pa.Array, length: int) -> NDArray[np.uint8] | None:
    """Return the bytes of texts of a length, a row a text; None if one has another length."""
    _, places, content = text.buffers()
    ends = np.frombuffer(places, np.int32)[text.offset : text.offset + len(text) + 1]
    if content is None or (np.diff(ends) != length).any():
        return None
    return np.frombuffer(content, np.uint8)[ends[0] : ends[-1]].reshape(len(text), length)


def _no_zone(count: int) -> tuple[Whole, NDArray[np.bool_]]:
    return np.zeros(count, np.int64), np.ones(count, np.bool_)


def _numbers(digits: pa.Array) -> Whole:
    """Return digits as numbers, zero where they are null."""
    numbers: Whole = pc.cast(pc.fill_null(digits, "0"), pa.int64()).to_numpy(zero_copy_only=False)
    return numbers
