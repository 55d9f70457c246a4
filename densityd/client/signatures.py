"""Options of a method as its named arguments, so that `help()`, notebooks and completion show them."""

import inspect
from collections.abc import Callable
from typing import Any, TypeVar

_Method = TypeVar("_Method", bound=Callable[..., Any])


def shows_options(options: type) -> Callable[[_Method], _Method]:
    """Show a typed dictionary, which a method takes as `**options`, member by member.

    The signature that `inspect` gives has an argument for each, whose default `...` stands for what the
    service chooses. What the dictionary says of its members in its own docstring ends that of the method.
    """

    def decorate(method: _Method) -> _Method:
        signature = inspect.signature(method)
        given = [one for one in signature.parameters.values() if one.kind is not one.VAR_KEYWORD]
        more = [
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=..., annotation=kind)
            for name, kind in _members(options).items()
            if name not in signature.parameters
        ]
        method.__signature__ = signature.replace(parameters=given + more)  # type: ignore[attr-defined] # inspect reads it
        _, _, told = inspect.cleandoc(options.__doc__ or "").partition("Attributes:\n")
        if told:
            method.__doc__ = f"{inspect.cleandoc(method.__doc__ or '')}\n\nOptions:\n{told}"
        return method

    return decorate


def _members(options: type) -> dict[str, Any]:
    """Return the members of a typed dictionary with their types, whether or not they are required."""
    optional = options.__optional_keys__ if options.__total__ else ()  # type: ignore[attr-defined] # of typed dictionaries
    return {
        name: kind.__args__[0] if name in optional else kind
        for name, kind in options.__annotations__.items()
    }
