"""JSON text, parsed once by orjson; what is wrong with it is told with its place."""

from typing import Any

import orjson

from tabular.errors import JsonError

_BLOCK_BYTES = 64 << 10  # a million strings are not in memory together


def parse_json(text: bytes, *, max_lists: int | None = None) -> Any:  # noqa: ANN401  JSON is anything
    """Parse JSON; of a key that an object names twice, the last value counts.

    Args:
        max_lists: Most lists and objects. A list of three bytes of text takes seventy bytes of memory.

    Raises:
        JsonError: ``dataset-empty``, ``json-nonfinite``, ``json-syntax`` with line and column,
            ``dataset-nonfinite`` for a number beyond float64, or ``validation`` for more lists than allowed.
    """
    if not text.strip(b" \t\r\n"):
        raise JsonError("dataset-empty", "The body must be JSON; it is empty.")
    if max_lists is not None and _count_lists(text) > max_lists:
        lists = _count_lists(_without_strings(text))
        if lists > max_lists:
            detail = f"The JSON has {lists} lists and objects; at most {max_lists} are allowed."
            raise JsonError("validation", detail)
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise _syntax_error(error) from None


def _without_strings(text: bytes) -> bytes:
    if b"\\" in text:
        text = text.replace(b"\\\\", b"").replace(b'\\"', b"")
    kept, inside = [], 0
    for start in range(0, len(text), _BLOCK_BYTES):
        parts = text[start : start + _BLOCK_BYTES].split(b'"')
        kept.append(b"".join(parts[inside::2]))
        inside ^= (len(parts) - 1) & 1
    return b"".join(kept)


def _count_lists(text: bytes) -> int:
    return text.count(b"[") + text.count(b"{")


def _syntax_error(error: orjson.JSONDecodeError) -> JsonError:
    """Return what is wrong with a text, and where."""
    where = f"line {error.lineno}, column {error.colno}"
    rest = error.doc[error.pos :]
    if rest.lstrip("-").startswith(("NaN", "Infinity", "nan", "inf")):
        text = f"NaN and Infinity are not JSON, as at {where}; null is a missing value."
        return JsonError("json-nonfinite", text)
    if "infinity" in error.msg:
        return JsonError("dataset-nonfinite", "A number is too large for a 64-bit float.")
    hint = ""
    if error.msg.startswith("trailing comma"):
        hint = " A comma stands behind the last value."
    elif error.doc.startswith("\ufeff"):
        hint = " It begins with a byte order mark."
    elif "utf-8" in error.msg.lower() or "surrogate" in error.msg.lower():
        hint = " Its text must be UTF-8 without halves of surrogate pairs."
    return JsonError("json-syntax", f"The body is not JSON: {where}.{hint}")
