"""Strict JSON: RFC 8259 to the letter, and nothing that two parsers could read differently."""

import re
from typing import Any

import numpy as np
import orjson

from tabular.errors import JsonError
from tabular.json.parts import load_by_parts

MAX_DEPTH = 1000
MAX_NUMBER_DIGITS = 1000

_BLOCK_BYTES = 64 << 10  # a million strings are not in memory together
_NOT_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
# Every digit as 0, in which long numbers are found in linear time, unlike by a regular expression.
_DIGITS = bytes.maketrans(b"123456789E", b"000000000e")
_LONG_NUMBER = b"0" * (MAX_NUMBER_DIGITS + 1)
_HUGE_NUMBER, _HUGE_EXPONENT = b"0" * 309, b"0e000"
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")


def parse_strict(
    text: bytes, *, max_lists: int | None = None, max_values: int | None = None
) -> Any:  # noqa: ANN401  JSON is anything
    """Parse JSON and refuse whatever two parsers could read differently.

    Args:
        text: JSON text.
        max_lists: Most lists and objects. A list of three bytes of text takes seventy bytes of memory.
        max_values: Most values of any kind.

    Raises:
        JsonError: For what RFC 8259 forbids or leaves open (NaN, duplicate keys, encodings other
            than plain UTF-8, nesting and digits without end), and for values that no field can
            take (numbers beyond float64, lone surrogates, more values than allowed).
    """
    if not text.strip(b" \t\r\n"):
        raise JsonError("dataset-empty", "The body must be JSON; it is empty.")
    bare = without_strings(text)
    _check_depth(bare)
    lists = bare.count(b"[") + bare.count(b"{")
    _check_count("lists and objects", lists, max_lists)
    _check_count("values", lists + bare.count(b","), max_values)
    check_numbers(bare)
    try:
        document, keys = load_by_parts(text, objects=bare.count(b"{"))
    except orjson.JSONDecodeError as error:
        raise _syntax_error(text, bare, error) from error
    if keys != bare.count(b":"):
        raise JsonError("json-duplicate-key", "An object names the same key twice.")
    return document


def without_strings(text: bytes) -> bytes:
    """Return the text without its strings, keys among them."""
    if b'"' not in text:
        return text
    if b"\\" in text:
        text = text.replace(b"\\\\", b"").replace(b'\\"', b"")
    kept = []
    inside = 0
    for start in range(0, len(text), _BLOCK_BYTES):
        parts = text[start : start + _BLOCK_BYTES].split(b'"')
        kept.append(b"".join(parts[inside::2]))
        inside ^= (len(parts) - 1) & 1
    return b"".join(kept)


def check_numbers(bare: bytes) -> None:
    """Refuse numbers of too many digits in a text without strings.

    Raises:
        JsonError: ``json-number``.
    """
    if _LONG_NUMBER in bare.translate(_DIGITS):
        raise JsonError("json-number", f"A number has more than {MAX_NUMBER_DIGITS} digits.")


def _check_depth(bare: bytes) -> None:
    brackets = np.frombuffer(bare.translate(None, _NOT_BRACKETS), np.uint8)
    if brackets.size <= MAX_DEPTH:
        return
    opening = (brackets & 0x0F) == 0x0B  # [ and { end in B, ] and } in D
    depth = np.cumsum(np.where(opening, np.int8(1), np.int8(-1)), dtype=np.int32)
    if int(depth.max()) > MAX_DEPTH:
        raise JsonError("json-depth", f"The JSON is nested more than {MAX_DEPTH} levels deep.")


def _check_count(what: str, count: int, most: int | None) -> None:
    if most is not None and count > most:
        raise JsonError("validation", f"The JSON has {count} {what}; at most {most} are allowed.")


def _syntax_error(text: bytes, bare: bytes, error: orjson.JSONDecodeError) -> JsonError:
    try:
        text.decode()
    except UnicodeDecodeError:
        return JsonError("json-encoding", "The body is not UTF-8.")
    if text.startswith(b"\xef\xbb\xbf") or b"\0" in text:
        return JsonError("json-encoding", "The body must be UTF-8 without a byte order mark.")
    lower, digits = bare.lower(), bare.translate(_DIGITS, b"+")
    if b"nan" in lower or b"infinity" in lower:
        return JsonError(
            "json-nonfinite", "NaN and Infinity are not JSON; null is a missing value."
        )
    if "surrogate" in error.msg or _SURROGATE.search(text):
        return JsonError("dataset-encoding", "A string has half of a surrogate pair.")
    if "infinity" in error.msg or _HUGE_EXPONENT in digits or _HUGE_NUMBER in digits:
        return JsonError("dataset-nonfinite", "A number is too large for a 64-bit float.")
    return JsonError(
        "json-syntax", f"The body is not JSON: line {error.lineno}, column {error.colno}."
    )
