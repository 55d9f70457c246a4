"""Refusal of query parameters that a route does not have, such as misspelt ones."""

from collections.abc import Iterator
from inspect import isclass

from fastapi import Request
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute
from pydantic import BaseModel

from app.problems.fields import MAX_ERRORS, shown
from app.problems.problem import FieldError, Problem
from app.problems.wording import alone, sentence, worded


async def known_parameters(request: Request) -> None:
    """Refuse parameters that the route does not have; a dependency of all routes."""
    refuse_unknown_parameters(request, request.scope["route"])


def refuse_unknown_parameters(request: Request, route: APIRoute) -> None:
    """Refuse a query with parameters that the route does not have.

    Raises:
        Problem: `unknown-parameter`.
    """
    if not request.url.query:
        return
    known = list(_names(route.dependant))
    unknown = [name for name in request.query_params if name not in known]
    if unknown:
        faults = [
            (shown(name), worded(_fault(name), what="parameter", known=known))
            for name in unknown[:MAX_ERRORS]
        ]
        errors = [FieldError(alone(text), parameter=name) for name, text in faults]
        raise Problem(
            "unknown-parameter",
            sentence(*faults[0]),
            errors=errors,
            members={"supported": known},
        )


def _fault(name: str) -> dict[str, object]:
    return {"type": "extra_forbidden", "loc": (name,)}


def _names(dependant: Dependant) -> Iterator[str]:
    for parameter in dependant.query_params:
        model = parameter.field_info.annotation
        if isclass(model) and issubclass(model, BaseModel):
            yield from (info.alias or name for name, info in model.model_fields.items())
        else:
            yield parameter.alias
    for inner in dependant.dependencies:
        yield from _names(inner)
