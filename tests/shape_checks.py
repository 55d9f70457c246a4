"""What checks types and shapes while tests run: beartype, which remembers what it has made.

The import hook wraps a function whenever it is defined; one inside another, such as a pullback,
each time that the outer one is called. Making its checks takes longer than what it computes.
"""

from collections.abc import Callable
from typing import Any

from beartype import beartype

_made: dict[tuple[object, ...], Callable[..., Any]] = {}


def checked(stub: Callable[..., Any]) -> Callable[..., Any]:
    """Adds checks to a stub, which the hook calls beside the function with the same signature."""
    if "<locals>" not in stub.__qualname__:
        return beartype(stub)
    key = (stub.__module__, stub.__qualname__, *stub.__annotations__.items())
    if key not in _made:
        _made[key] = beartype(stub)
    return _made[key]
