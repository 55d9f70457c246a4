"""Every number and every list of a request has a bound of its own, or counts in an estimate."""

from collections.abc import Iterator
from typing import Any, get_args

from flows import FAMILIES, BatchNormSpec, EncoderSpec
from tests.api.conftest import openapi_document
from tests.jobs.requests.drawn_specs import fields_of

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
ROWS = ("rows", "columns", "context", "given", "in", "row_errors")

# A wait, which the service's own ends.
WAITS = {"X-Request-Timeout"}

Schema = dict[str, Any]


class Walk:
    """The whole of a schema, what it refers to included."""

    def __init__(self, components: dict[str, Schema]) -> None:
        self._components = components
        self._seen: set[str] = set()

    def unbounded(self, schema: Schema, at: str) -> Iterator[str]:
        """Yield the places of numbers and lists without a bound."""
        if "$ref" in schema:
            name = schema["$ref"].rpartition("/")[2]
            if name not in self._seen:
                self._seen.add(name)
                yield from self.unbounded(self._components[name], name)
            return
        if _is_unbounded(schema):
            yield at
        for below, part in _parts(schema, at):
            yield from self.unbounded(part, below)


def _parts(schema: Schema, at: str) -> Iterator[tuple[str, Schema]]:
    for name, part in schema.get("properties", {}).items():
        yield f"{at}.{name}", part
    for key in ("items", "additionalProperties"):
        if isinstance(part := schema.get(key), dict):
            yield at, part
    for key in ("anyOf", "oneOf", "allOf"):
        for part in schema.get(key, ()):
            yield at, part


def _is_unbounded(schema: Schema) -> bool:
    match schema.get("type"):
        case "integer" | "number":
            return not {"maximum", "exclusiveMaximum", "enum", "const"} & set(schema)
        case "array":
            return "maxItems" not in schema
        case _:
            return False


def unbounded() -> set[str]:
    document = openapi_document()
    walk = Walk(document["components"]["schemas"])
    found: set[str] = set()
    for path, methods in document["paths"].items():
        for operation in methods.values():
            for content in operation.get("requestBody", {}).get("content", {}).values():
                found |= set(walk.unbounded(content.get("schema", {}), path))
            for parameter in operation.get("parameters", ()):
                found |= set(walk.unbounded(parameter["schema"], f"?{parameter['name']}"))
    return found


TABLES = {"/v1/datasets", "/v1/datasets/preview"}


def test_every_number_and_list_has_a_bound_or_counts():
    found = unbounded()
    rows = {at for at in found if at.rpartition(".")[2] in ROWS or at in TABLES}
    waits = {at for at in found if at.removeprefix("?") in WAITS}
    assert found - rows - waits - COUNTED == set()


def test_the_walk_finds_what_has_no_bound():
    found = unbounded()
    assert {"MadeSpec.masks", "NafSpec.units", "EncoderSpec.hidden"} <= found
    bare = {"type": "object", "properties": {"n": {"type": "integer"}, "of": {"type": "array"}}}
    assert set(Walk({}).unbounded(bare, "body")) == {"body.n", "body.of"}
