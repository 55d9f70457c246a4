"""Checks of options by the OpenAPI document of the service, before anything is sent."""

import difflib
import json
import re
from collections.abc import Iterable, Mapping
from typing import Any, NoReturn

import jsonschema_rs

from densityd.commands.options import parse_value, split_pair
from densityd.terminal import WRONG_USAGE, fail

Json = Mapping[str, Any]
_OBJECTS = ("tags", "types")


def parameters_of(
    document: Json, texts: Iterable[str] | None, path: str = "/v1/datasets"
) -> dict[str, str]:
    """Return options that are given as `NAME=VALUE` as parameters of an upload.

    A list is JSON, or the option is repeated; `types.zip=category` and `tags.team=space` are members.

    Raises:
        typer.Exit: There is no such option, or it has no such value.
    """
    known = {
        one["name"]: one["schema"]
        for one in document["paths"][path]["post"]["parameters"]
        if one["in"] == "query"
    }
    values: dict[str, Any] = {}
    for text in texts or ():
        name, value = split_pair(text)
        option, _, member = name.partition(".")
        if option not in known:
            _refuse(f"there is no option {option}", option, known)
        if option in _OBJECTS:
            given = {member: value} if member else parse_value(value)
            if not isinstance(given, dict):
                fail(f"-o {text}: write -o {option}.NAME=VALUE.", status=WRONG_USAGE)
            values[option] = {**values.get(option, {}), **given}
        elif _kind(known[option]) == "array":
            given = parse_value(value)
            values.setdefault(option, []).extend(given if isinstance(given, list) else [value])
        else:
            is_text = _kind(known[option]) == "string"
            values[option] = value if is_text else parse_value(value)
    for option, value in values.items():
        schema = known[option]
        if option in _OBJECTS:
            schema = document["components"]["schemas"]["DatasetChange"]["properties"][option]
        _check(document, schema, value, where=f"-o {option}")
    return {
        option: value if isinstance(value, str) else json.dumps(value)
        for option, value in values.items()
    }


def request_of(
    document: Json, schema: str, fields: Iterable[str] | None, given: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the body of a request: what is given, and fields that are given as `NAME=VALUE`.

    `layers=5` is a field of the flow unless the request has one of that name; a dot leads into a
    section, `optimisation.patience=10`.

    Raises:
        typer.Exit: There is no such field, or it has no such value.
    """
    properties = document["components"]["schemas"][schema]["properties"]
    body: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    for text in fields or ():
        path, value = split_pair(text)
        names = path.split(".")
        if names[0] not in properties:
            names.insert(0, "flow")
        place = body
        for name in names[:-1]:
            place = place.setdefault(name, {})
            if not isinstance(place, dict):
                fail(f"--set {text}: {name} has a value of its own already.", status=WRONG_USAGE)
        place[names[-1]] = parse_value(value)
    check_body(document, schema, body)
    return body


def check_body(document: Json, schema: str, body: Mapping[str, Any]) -> None:
    """Check the body of a request of a job, whose dataset may not be known yet.

    Raises:
        typer.Exit: A member has no such value.
    """
    body = {"dataset_id": f"ds_{'0' * 32}", **body}
    name = body.get("model_name")
    schemas = document["components"]["schemas"]
    pattern = schemas[schema]["properties"].get("model_name", {}).get("pattern")
    if pattern is not None and isinstance(name, str) and not re.search(pattern, name):
        other = re.sub(r"[^a-z0-9._-]+", "-", name.lower()).strip("._-") or "model"
        fail(
            f"--model {name!r} is no name of a model: lower-case letters, digits, dots, underscores"
            f" and hyphens, such as {other}.",
            status=WRONG_USAGE,
        )
    flow = body.pop("flow", None)
    if isinstance(flow, dict):
        _check_flow(document, schema, flow)
    _check(document, {"$ref": f"#/components/schemas/{schema}"}, body, where="")


def _check_flow(document: Json, schema: str, flow: Mapping[str, Any]) -> None:
    choices = document["components"]["schemas"][schema]["properties"]["flow"]["anyOf"]
    families = next(one for one in choices if "discriminator" in one)["discriminator"]["mapping"]
    family = flow.get("family")
    if family is None:
        fail(
            f"{next(iter(flow))} is a field of a flow: name its family too, as in --flow maf.",
            status=WRONG_USAGE,
        )
    if family not in families:
        _refuse(f"there is no flow {family}", str(family), families)
    _check(document, {"$ref": families[family]}, flow, where="flow")


def _check(document: Json, schema: Json, value: object, *, where: str) -> None:
    whole = {**schema, "components": document["components"]}
    for error in jsonschema_rs.validator_for(whole).iter_errors(value):
        narrow = _narrowed(error)
        place = ".".join(
            [where, *map(str, narrow.instance_path)] if where else map(str, narrow.instance_path)
        )
        fail(f"{place}: {narrow.message}", status=WRONG_USAGE)


def _narrowed(error: Any) -> Any:  # noqa: ANN401 - an error of the validator
    """Return the error of the one alternative that is meant: the one that is not null."""
    context = getattr(error.kind, "context", None)
    found = [one for branch in context or () for one in branch if '"null"' not in one.message]
    return _narrowed(found[0]) if found else error


def _kind(schema: Json) -> str:
    choices = [one.get("type", "string") for one in schema.get("anyOf", [schema])]
    return str(next(one for one in choices if one != "null"))


def _refuse(text: str, name: str, known: Iterable[str]) -> NoReturn:
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {near[0]}? It" if near else "it"
    fail(f"{text}; {hint} knows {', '.join(known)}.", status=WRONG_USAGE)
