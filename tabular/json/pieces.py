"""JSON of megabytes, read and written in pieces between which other threads run.

The parser and the encoder of a whole document keep the interpreter's lock for tens of milliseconds,
in which an event loop in another thread serves nobody. A call of a function in Python lets others run.
"""

import json
from typing import Any

_MANY = 64
_encoded = json.JSONEncoder(allow_nan=False, separators=(",", ":")).encode


def _unchanged(fields: dict[str, Any]) -> dict[str, Any]:
    return fields


_decoded = json.JSONDecoder(object_hook=_unchanged).decode


def load_in_pieces(text: str | bytes) -> Any:  # noqa: ANN401  JSON is anything
    """Return what a document says; others run between its objects."""
    return _decoded(text if isinstance(text, str) else text.decode())


def dump_in_pieces(value: object) -> str:
    """Return a value as JSON; others run between the items of long lists.

    Raises:
        ValueError: A number is not finite.
    """
    if isinstance(value, list) and len(value) > _MANY:
        return "[" + ",".join(_encoded(item) for item in value) + "]"
    if (
        isinstance(value, dict)
        and not _is_small(value)
        and all(isinstance(key, str) for key in value)
    ):
        items = [f"{_encoded(key)}:{dump_in_pieces(item)}" for key, item in value.items()]
        return "{" + ",".join(items) + "}"
    return _encoded(value)


def _is_small(fields: dict[Any, Any]) -> bool:
    """Return whether an object has a few fields, and no other object or list among them."""
    return len(fields) <= _MANY and not any(
        isinstance(item, dict | list) for item in fields.values()
    )
