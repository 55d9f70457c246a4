"""Views as JSON."""

from functools import cache
from typing import Any

from pydantic import BaseModel, TypeAdapter

_ITEMS = 100  # of a list, which are encoded while others wait for the interpreter's lock


def json_of(view: BaseModel) -> bytes:
    """Return a view as JSON; other threads run between the items of its long lists."""
    members = [_member(view, name) for name in type(view).model_fields]
    return b"{" + b",".join(members) + b"}"


def _member(view: BaseModel, name: str) -> bytes:
    items = getattr(view, name)
    if not isinstance(items, list) or len(items) <= _ITEMS or not isinstance(items[0], BaseModel):
        return view.model_dump_json(include={name})[1:-1].encode()
    adapter = _lists_of(type(items[0]))
    pieces = (items[start : start + _ITEMS] for start in range(0, len(items), _ITEMS))
    return b'"%b":[' % name.encode() + b",".join(adapter.dump_json(p)[1:-1] for p in pieces) + b"]"


@cache
def _lists_of(kind: type[BaseModel]) -> TypeAdapter[list[Any]]:
    return TypeAdapter(list[kind])  # type: ignore[valid-type]  # a class, if not one that is known here
