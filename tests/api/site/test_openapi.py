"""The OpenAPI document: complete, typed, described, and with examples that fit."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import jsonschema_rs
from fastapi.routing import APIRoute, iter_route_contexts

from app.main import create_app
from app.problems.problem import PROBLEM_MEDIA_TYPE
from app.problems.types import PROBLEM_TYPES
from app.settings import ApiSettings
from flows import FAMILIES, BatchNormSpec, EncoderSpec
from tests.api.conftest import openapi_document
from tests.jobs.requests.test_flow_limits import fields_of

APP = create_app(ApiSettings())
DOCUMENT = openapi_document()
UNDOCUMENTED = {
    "/guide",
    "/guide/{path:path}",
    "/",
    "/docs",
    "/openapi.json",
    "/static/{path:path}",
    "/static/docs/{path:path}",
}


def operations() -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, methods in DOCUMENT["paths"].items():
        for method, operation in methods.items():
            yield method.upper(), path, operation


OPERATIONS = {f"{method} {path}": operation for method, path, operation in operations()}


def references(value: object) -> Iterator[str]:
    if isinstance(value, dict):
        if isinstance(value.get("$ref"), str):
            yield value["$ref"]
        for part in value.values():
            yield from references(part)
    elif isinstance(value, list):
        for part in value:
            yield from references(part)


def test_every_route_is_documented():
    documented = {(method, path) for method, path, _ in operations()}
    for route in iter_route_contexts(APP.routes):
        if route.path in UNDOCUMENTED:
            continue
        assert isinstance(route.original_route, APIRoute), route.path
        for method in route.methods or ():
            assert (method, route.path_format) in documented


def test_operation_ids_are_unique_and_speak():
    ids = [operation["operationId"] for operation in OPERATIONS.values()]
    assert len(set(ids)) == len(ids)
    assert all(re.fullmatch("[a-z]+(_[a-z]+)*", name) for name in ids)


def test_operations_and_their_parameters_explain_themselves():
    for name, operation in OPERATIONS.items():
        assert operation["summary"], name
        assert operation["description"], name
        assert len(operation["tags"]) == 1, name
        found = operation.get("parameters", [])
        of_path = {parameter["name"] for parameter in found if parameter["in"] == "path"}
        assert of_path == set(re.findall(r"{(\w+)", name)), name
        for parameter in found:
            assert parameter.get("description"), (name, parameter["name"])
            if parameter["in"] == "path":
                assert parameter["example"] is not None, (name, parameter["name"])


def test_operations_document_their_errors():
    for name, operation in OPERATIONS.items():
        errors = {s: r for s, r in operation["responses"].items() if int(s) >= 400}
        assert "500" in errors, name
        if operation.get("parameters"):
            assert "422" in errors, name
        if "requestBody" in operation:
            assert {"400", "413", "415"} <= set(errors), name
        for status, response in errors.items():
            if response["content"].keys() == {"application/json"}:  # an error form of their own
                assert operation["tags"] == ["inference"] or name == "GET /readyz", name
                continue
            content = response["content"][PROBLEM_MEDIA_TYPE]
            assert content["schema"] == {"$ref": "#/components/schemas/Problem"}, name
            assert all(str(PROBLEM_TYPES[slug].status) == status for slug in content["examples"])


def test_operations_document_what_they_take_and_answer():
    for name, operation in OPERATIONS.items():
        good = {s: r for s, r in operation["responses"].items() if int(s) < 400}
        assert good, name
        assert all(response["description"] for response in good.values()), name
        assert all("content" in good[status] for status in good.keys() - {"204", "304"}), name
        if body := operation.get("requestBody"):
            assert body["required"] is True, name
            first = next(iter(body["content"].values()))
            assert "example" in first or first["examples"], name


def test_every_reference_has_a_target_and_nothing_of_fastapi_defaults_is_left():
    assert DOCUMENT["openapi"].startswith("3.1.")
    assert "HTTPValidationError" not in str(DOCUMENT)
    for reference in references(DOCUMENT):
        target = DOCUMENT
        for step in reference.removeprefix("#/").split("/"):
            target = target[step]


def test_examples_of_json_bodies_fit_their_schemas():
    for operation in OPERATIONS.values():
        content = operation.get("requestBody", {}).get("content", {}).get("application/json")
        if content is None:
            continue
        schema = {**content["schema"], "components": DOCUMENT["components"]}
        validator = jsonschema_rs.Draft202012Validator(schema)
        for example in content["examples"].values():
            validator.validate(example["value"])


def schemas_within(schema: dict[str, Any], place: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield a schema and all that it contains, each with its place."""
    yield place, schema
    for name, field in schema.get("properties", {}).items():
        yield from schemas_within(field, f"{place}.{name}")
    for key in ("items", "additionalProperties"):
        if isinstance(schema.get(key), dict):
            yield from schemas_within(schema[key], f"{place}[]")
    for key in ("anyOf", "oneOf", "allOf", "prefixItems"):
        for member in schema.get(key, ()):
            yield from schemas_within(member, place)


def all_schemas() -> Iterator[tuple[str, dict[str, Any]]]:
    for name, schema in DOCUMENT["components"]["schemas"].items():
        yield from schemas_within(schema, name)
    for name, operation in OPERATIONS.items():
        for parameter in operation.get("parameters", ()):
            yield from schemas_within(parameter["schema"], f"{name}?{parameter['name']}")
        for media in operation.get("requestBody", {}).get("content", {}).values():
            yield from schemas_within(media["schema"], name)
        for status, response in operation["responses"].items():
            for part in (
                *response.get("content", {}).values(),
                *response.get("headers", {}).values(),
            ):
                yield from schemas_within(part["schema"], f"{name} {status}")


SCHEMAS = list(all_schemas())
TYPED = {"type", "$ref", "anyOf", "oneOf", "allOf", "enum", "const"}


def is_free(schema: dict[str, Any]) -> bool:
    """True for a schema that anything fits, and for an object or a list of anything."""
    match schema.get("type"):
        case "object":
            return not schema.get("properties") and not isinstance(
                schema.get("additionalProperties"), dict
            )
        case "array":
            return not schema.keys() & {"items", "prefixItems"}
        case _:
            return not schema.keys() & TYPED


def test_every_schema_is_typed_and_every_field_described():
    assert len(SCHEMAS) > 1000
    assert [place for place, schema in SCHEMAS if is_free(schema)] == []
    bare = [
        f"{place}.{name}"
        for place, schema in SCHEMAS
        for name, field in schema.get("properties", {}).items()
        if not field.get("description")
    ]
    assert bare == []


def test_the_fields_of_the_families_are_described_one_by_one():
    schemas = DOCUMENT["components"]["schemas"]
    families = [name for name in schemas if name.endswith("Spec")]
    assert len(families) > 12
    assert all("Attributes:" not in schemas[name]["description"] for name in families)
    bends = schemas["NsfSpec"]["properties"]["tail_bound"]["description"]
    assert bends.startswith("Bound of the splines, which bend between minus this and this")


def test_examples_of_responses_fit_their_schemas():
    for name, schema in DOCUMENT["components"]["schemas"].items():
        validator = jsonschema_rs.Draft202012Validator(
            {**schema, "components": DOCUMENT["components"]}
        )
        for example in schema.get("examples", ()):
            assert [error.message for error in validator.iter_errors(example)] == [], name


def test_examples_keep_their_nulls():
    examples = OPERATIONS["PATCH /v1/models/{name}"]["requestBody"]["content"]["application/json"]
    assert examples["examples"]["remove"]["value"] == {"tags": {"team": None}}


def test_headers_of_conditions_are_texts_to_generated_clients():
    for name, operation in OPERATIONS.items():
        for parameter in operation.get("parameters", ()):
            if parameter["name"] in {"if-match", "if-none-match"}:
                assert parameter["schema"]["type"] == "string", name


def test_no_route_is_documented_that_does_not_exist():
    text = (Path(__file__).parents[3] / "docs" / "api.md").read_text(encoding="utf-8")
    assert set(re.findall(r"`((?:GET|POST|PUT|DELETE) /v[^`?]*)`", text)) <= set(OPERATIONS)


# Counted by `Spec.cost`: `test_every_number_of_a_spec_counts` raises each of them. Momentum, steps of
# the learning rate and bounds of tails and scales take nothing; a spec checks them itself.
COUNTED = {
    f"{cls.__name__}.{field}"
    for cls in (*FAMILIES.values(), EncoderSpec, BatchNormSpec)
    for field, kind in fields_of(cls).items()
    if kind in (int, float, list[int]) or {int, float} & set(get_args(kind))
} | {"StepFactor.epochs", "StepFactor.factor"}

# Rows of data, or a whole body of them: its bytes are bounded before they are read, and each row has
# the model's columns, or is refused. Errors of sampled rows are left out.
ROWS = ("rows", "columns", "context", "given", "in", "between", "row_errors")

# A wait, which the service's own ends.
WAITS = {"X-Request-Timeout"}

Schema = dict[str, Any]


def taken() -> Iterator[tuple[str, Schema]]:
    """Yield every schema of parameters and bodies, what it refers to included, with its place."""
    pending = [
        (f"?{parameter['name']}", parameter["schema"])
        for operation in OPERATIONS.values()
        for parameter in operation.get("parameters", ())
    ]
    pending += [
        (name.partition(" ")[2], content["schema"])
        for name, operation in OPERATIONS.items()
        for content in operation.get("requestBody", {}).get("content", {}).values()
    ]
    seen = set()
    for place, schema in pending:  # which grows
        for at, part in schemas_within(schema, place):
            yield at.replace("[]", ""), part
            name = part.get("$ref", "").rpartition("/")[2]
            if name and name not in seen:
                seen.add(name)
                pending.append((name, DOCUMENT["components"]["schemas"][name]))


def is_unbounded(schema: Schema) -> bool:
    match schema.get("type"):
        case "integer" | "number":
            return not {"maximum", "exclusiveMaximum", "enum", "const"} & set(schema)
        case "array":
            return "maxItems" not in schema
        case _:
            return False


UNBOUNDED = {at for at, schema in taken() if is_unbounded(schema)}
TABLES = {"/v1/datasets", "/v1/datasets/preview"}


def test_every_number_and_list_has_a_bound_or_counts():
    rows = {at for at in UNBOUNDED if at.rpartition(".")[2] in ROWS or at in TABLES}
    waits = {at for at in UNBOUNDED if at.removeprefix("?") in WAITS}
    assert UNBOUNDED - rows - waits - COUNTED == set()


def test_the_walk_finds_what_has_no_bound():
    assert {"MadeSpec.masks", "NafSpec.units", "EncoderSpec.hidden"} <= UNBOUNDED
    assert is_unbounded({"type": "integer", "minimum": 0})
    assert is_unbounded({"type": "array"})
