"""JSON of megabytes, read and written in pieces between which other threads run.

The parser and the encoder of a whole document keep the interpreter's lock for tens of milliseconds,
in which an event loop in another thread serves nobody. A call of a function in Python lets others run.
"""

import json
from typing import Any

_MANY = 64
_encoded = json.JSONEncoder(allow_nan=False, separators=(",", ":")).encode


def load_in_pieces(text: str | bytes) -> Any:  # noqa: ANN401  JSON is anything
    """Return what a document says; others run between its objects."""
    return json.loads(text, object_hook=_unchanged)


def dump_in_pieces(value: object) -> str:
    """Return a value as JSON; others run between the items of long lists.

    Raises:
        ValueError: A number is not finite.
    """
    if isinstance(value, list) and len(value) > _MANY:
        return "[" + ",".join(_encoded(item) for item in value) + "]"
    if isinstance(value, dict) and all(isinstance(key, str) for key in value):
        items = [f"{_encoded(key)}:{dump_in_pieces(item)}" for key, item in value.items()]
        return "{" + ",".join(items) + "}"
    return _encoded(value)


def _unchanged(fields: dict[str, Any]) -> dict[str, Any]:
    return fields
