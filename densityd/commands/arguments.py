"""Values that are given as text, ``name=value``."""

import json
from collections.abc import Iterable
from typing import Any

import typer

_SECTIONS = ("flow", "optimisation", "preprocessing", "split")


def settings(texts: Iterable[str], *, family: str | None) -> dict[str, Any]:
    """The parts of a training request that ``--set`` and ``--flow`` make.

    Args:
        texts: `layers=5` for a field of the flow; with a dot, `optimisation.patience=10`, for one
            of another part. Values are JSON, or else text.
        family: of the flow.

    Raises:
        typer.BadParameter: a text is not `name=value`, or the fields belong to no family.
    """
    request: dict[str, Any] = {}
    for text in texts:
        path, value = _pair(text)
        names = path.split(".")
        if names[0] not in _SECTIONS:
            names.insert(0, "flow")
        if len(names) == 1 or not all(names):
            raise typer.BadParameter(f"{text}: write FIELD=VALUE or {names[0]}.FIELD=VALUE.")
        _put(request, names, _json_or_text(value), text=text)
    if family is not None:
        request.setdefault("flow", {})["family"] = family
    if "flow" in request and "family" not in request["flow"]:
        name = next(iter(request["flow"]))
        raise typer.BadParameter(f"{name} is a field of a flow: name the family too, --flow maf.")
    return request


def context(texts: Iterable[str]) -> dict[str, float] | None:
    """The columns of a context; None where there are none.

    Raises:
        typer.BadParameter: a text is not `name=number`.
    """
    values: dict[str, float] = {}
    for text in texts:
        name, value = _pair(text)
        try:
            values[name] = float(value)
        except ValueError:
            raise typer.BadParameter(f"{text}: {value or 'nothing'} is not a number.") from None
    return values or None


def _pair(text: str) -> tuple[str, str]:
    name, sign, value = text.partition("=")
    if not name or not sign:
        raise typer.BadParameter(f"{text}: write NAME=VALUE.")
    return name.strip(), value.strip()


def _json_or_text(value: str) -> object:
    try:
        return json.loads(value)
    except ValueError:
        return value


def _put(request: dict[str, Any], names: list[str], value: object, *, text: str) -> None:
    place = request
    for name in names[:-1]:
        place = place.setdefault(name, {})
        if not isinstance(place, dict):
            raise typer.BadParameter(f"{text}: {name} has a value of its own already.")
    place[names[-1]] = value
