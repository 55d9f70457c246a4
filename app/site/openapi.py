"""OpenAPI document of FastAPI, completed with keys, problems and headers of all routes."""

import json
import re
from collections.abc import Iterator
from functools import cache
from typing import Any

from fastapi import FastAPI, Response
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute, iter_route_contexts
from pydantic import BaseModel
from pydantic.json_schema import JsonSchemaMode, models_json_schema

from app.auth.admission import Policy
from app.problems.problem import (
    INFERENCE_PATH,
    PROBLEM_MEDIA_TYPE,
    problem_example,
    response_object,
)
from app.problems.types import PROBLEM_TYPES
from app.rows.docs import ROWS_SCHEMA

DESCRIPTION = """\
Upload a table, train a normalising flow on it, and follow the training. The trained model computes
the exact log density of rows (`log_prob`) and draws new rows (`sample`).

Log densities are in nats, in the data's own units. Errors are problem details as in
[RFC 9457](https://www.rfc-editor.org/rfc/rfc9457); [/problems](/problems) explains each `type`.
"""

TAGS = [
    {"name": "scores", "description": "Densities and samples of a trained model."},
    {"name": "datasets", "description": "Upload, inspect, read and delete tables."},
    {
        "name": "jobs",
        "description": "Start, follow, cancel and resume training, variational inference, and the scoring"
        " and sampling of many rows.",
    },
    {"name": "models", "description": "Trained models, their versions and aliases."},
    {
        "name": "inference",
        "description": "Open Inference Protocol v2, for clients of KServe and Triton.",
    },
    {"name": "webhooks", "description": "URLs that are notified when jobs end."},
    {"name": "account", "description": "The caller, its usage, and the keys of its project."},
    {"name": "operations", "description": "Health checks and metrics."},
    {"name": "problems", "description": "Explanations of the service's errors."},
]

_TEXTS = {"type": "array", "items": {"type": "string"}}
_PROBLEM_SCHEMA = {
    "title": "Problem",
    "description": "Problem details as defined by RFC 9457; the members after `errors` belong to"
    " certain types.",
    "type": "object",
    "required": ["type", "title", "status", "detail", "instance"],
    "properties": {
        "type": {
            "type": "string",
            "description": "Path of the page that explains the problem: `/problems/` and its stable name.",
        },
        "title": {"type": "string", "description": "Human-readable name of the problem."},
        "status": {
            "type": "integer",
            "minimum": 400,
            "maximum": 599,
            "description": "Status of the response.",
        },
        "detail": {"type": "string", "description": "Explanation of this occurrence."},
        "instance": {
            "type": "string",
            "description": "Id of the request, which the server's log contains, too.",
        },
        "errors": {
            "type": "array",
            "description": "Faults of the request; at most the first 20.",
            "items": {
                "title": "ProblemPlace",
                "type": "object",
                "required": ["detail"],
                "properties": {
                    "pointer": {
                        "type": "string",
                        "description": "JSON pointer to the value in the body.",
                    },
                    "parameter": {
                        "type": "string",
                        "description": "Name of the parameter or header.",
                    },
                    "column": {
                        "type": "string",
                        "description": "Name of the column of the table.",
                    },
                    "detail": {
                        "type": "string",
                        "description": "Requirement that the value does not meet.",
                    },
                },
            },
        },
        "supported": {
            **_TEXTS,
            "description": "Media types, codings, parameters or formats that the service knows.",
        },
        "limit": {"type": "number", "description": "Limit that the request exceeds."},
        "got": {"type": "integer", "description": "Number of rows or columns of the request."},
        "expected": {"type": "integer", "description": "Number of columns of the model."},
        "row": {
            "type": ["integer", "null"],
            "description": "Row that is wrong, counted from 1 without the header and blank lines; null"
            " if it is no single one.",
        },
        "column": {
            "type": ["string", "null"],
            "description": "Column that is wrong; null if it is no single one.",
        },
        "position": {
            "type": "integer",
            "description": "Place of the wrong character in a formula, counted from 1.",
        },
        "missing": {**_TEXTS, "description": "Columns of the model that the rows lack."},
        "unknown": {**_TEXTS, "description": "Columns of the rows that the model does not have."},
        "twice": {**_TEXTS, "description": "Columns that are given twice."},
    },
}
_KEY = "apiKey"
_KEY_SCHEME = {
    "type": "http",
    "scheme": "bearer",
    "description": "API key, as `densityd keys create` prints it. A service that has no keys needs none.",
}
_WITH_KEY = (
    "unauthorized",
    "forbidden",
    "foreign-site",
    "rate-limited",
    "db-busy",
    "db-unavailable",
)
_EVERYWHERE = ("internal", "stopping")
_WITH_PARAMETERS = ("validation",)
_WITH_BODY = (
    "body-empty",
    "content-decoding",
    "limit-body",
    "limit-decoded-bytes",
    "media-type",
    "content-encoding",
)
_WITH_JSON = (
    "json-syntax",
    "json-nonfinite",
    "value-nonfinite",
    "overloaded",
    "unknown-field",
    "validation",
)
# A field of a docstring's section, and the indented lines that continue with it.
_ATTRIBUTE = re.compile(r"^    (\w+): (.*(?:\n {8}.*)*)", re.MULTILINE)
_INFERENCE_ERROR_SCHEMA = {
    "title": "InferenceError",
    "description": "Error as defined by the Open Inference Protocol.",
    "type": "object",
    "required": ["error"],
    "properties": {"error": {"type": "string", "description": "Explanation of what is wrong."}},
}
_INFERENCE_ERROR = {"application/json": {"schema": {"$ref": "#/components/schemas/InferenceError"}}}
# Fields that all families inherit.
_SPEC_FIELDS = {
    "family": "Name of the family.",
    "encoder": "Network that encodes the context; null if the flow gets the context as it is.",
}
_UNDESCRIBED = "Successful Response"
_FASTAPI_ERRORS = ("HTTPValidationError", "ValidationError")


def install_openapi(app: FastAPI, policy: Policy, *, root_path: str | None) -> None:
    """Make `app.openapi()` return the completed document, and serve it.

    Args:
        policy: Policy of the routes that need a key.
        root_path: Path of a proxy below which the paths of the document lie.
    """

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            document = get_openapi(
                title=app.title,
                version=app.version,
                summary=app.summary,
                description=app.description,
                routes=app.routes,
                tags=app.openapi_tags,
                servers=None if root_path is None else [{"url": root_path}],
            )
            _restore_nulls(document, app)
            app.openapi_schema = _complete(document, policy)
        return app.openapi_schema

    @cache
    def text() -> bytes:
        return json.dumps(app.openapi(), ensure_ascii=False, separators=(",", ":")).encode()

    @app.get("/openapi.json", include_in_schema=False)
    def document() -> Response:
        return Response(
            text(), media_type="application/json"
        )  # made in a thread, which takes a second

    app.openapi = openapi  # type: ignore[method-assign]  # FastAPI's documented way


def _restore_nulls(document: dict[str, Any], app: FastAPI) -> None:
    """Put back the examples as they were written: FastAPI leaves out their members that are null."""
    models: list[tuple[type[BaseModel], JsonSchemaMode]] = []
    for context in iter_route_contexts(app.routes):
        route = context.original_route
        if not isinstance(route, APIRoute) or not route.include_in_schema:
            continue
        for method in route.methods or ():
            operation = document["paths"][context.path_format][method.lower()]
            written = {"responses": {str(status): one for status, one in route.responses.items()}}
            _restore_examples(operation, {**(route.openapi_extra or {}), **written})
        if isinstance(route.response_model, type) and issubclass(route.response_model, BaseModel):
            models.append((route.response_model, "serialization"))
    _, schemas = models_json_schema(models)
    _restore_examples(document["components"]["schemas"], schemas["$defs"])


def _restore_examples(document: dict[str, Any], written: dict[str, Any]) -> None:
    for name in document.keys() & written.keys():
        if name in ("example", "examples"):
            document[name] = written[name]
        elif isinstance(document[name], dict) and isinstance(written[name], dict):
            _restore_examples(document[name], written[name])


def _complete(document: dict[str, Any], policy: Policy) -> dict[str, Any]:
    components: dict[str, Any] = document.setdefault("components", {})
    schemas: dict[str, Any] = components.setdefault("schemas", {})
    for method, path, operation in _operations(document):
        _hoist_body_schemas(operation, schemas)
        needed = policy.needed(method, path)
        # The list names the scope; tools that know bearer tokens only pass over it.
        operation["security"] = [] if needed is None else [{_KEY: [needed.value]}]
        _document_problems(path, operation)
        for parameter in operation.get("parameters", ()):
            parameter["schema"].pop("title", None)
            if parameter["in"] == "path":  # Swagger UI fills in an example, not those of a schema
                parameter.setdefault("example", parameter["schema"].get("examples", [None])[0])
    components["securitySchemes"] = {_KEY: _KEY_SCHEME}
    for name in _FASTAPI_ERRORS:
        schemas.pop(name, None)
    schemas["Problem"] = _PROBLEM_SCHEMA
    schemas["RowsBody"] = ROWS_SCHEMA
    components["examples"] = {slug: problem_example(PROBLEM_TYPES[slug]) for slug in PROBLEM_TYPES}
    schemas["InferenceError"] = _INFERENCE_ERROR_SCHEMA
    for schema in schemas.values():
        _describe_fields(schema)
        _name_keys(schema)
        _drop_titles(schema)
    for _, _, operation in _operations(document):
        _describe_response(operation, schemas)
    document["components"]["schemas"] = dict(sorted(schemas.items()))
    return document


def _operations(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield method.upper(), path, operation


def _describe_response(operation: dict[str, Any], schemas: dict[str, Any]) -> None:
    """Describe a response as its schema does, where its route does not."""
    for response in operation["responses"].values():
        schema = response.get("content", {}).get("application/json", {}).get("schema", {})
        if response["description"] == _UNDESCRIBED and "$ref" in schema:
            text = schemas[schema["$ref"].rpartition("/")[2]]["description"]
            response["description"] = text.partition("\n")[0]


def _hoist_body_schemas(operation: dict[str, Any], schemas: dict[str, Any]) -> None:
    """Move the schemas that `json_request` wrote into the body to the components."""
    for content in operation.get("requestBody", {}).get("content", {}).values():
        schema = content.get("schema", {})
        if "title" not in schema or "type" not in schema:
            continue
        schemas.update(schema.pop("$defs", {}))
        schemas[schema["title"]] = schema
        content["schema"] = {"$ref": f"#/components/schemas/{schema['title']}"}


def _describe_fields(schema: dict[str, Any]) -> None:
    """Move what a class says of its attributes to the fields, where tools show it."""
    head, _, attributes = schema.get("description", "").partition("\n\nAttributes:\n")
    if attributes:
        schema["description"] = head
    texts = dict(_ATTRIBUTE.findall(attributes))
    if "family" in schema.get("properties", {}):
        texts = _SPEC_FIELDS | texts
    for name, text in texts.items():
        if field := schema["properties"].get(name):
            field.setdefault("description", _as_json(" ".join(text.split())))


def _as_json(text: str) -> str:
    """Return a text about Python's None as one about JSON's null."""
    return re.sub(r"\bNone\b", "null", re.sub(r"(^|[.:] )None\b", r"\1Null", text))


def _name_keys(schema: dict[str, Any]) -> None:
    """Write objects with keys of a pattern as generated clients know them, which skip patterns."""
    for field in schema.get("properties", {}).values():
        if patterns := field.pop("patternProperties", None):
            ((pattern, values),) = patterns.items()
            field["propertyNames"] = {"pattern": pattern}
            field["additionalProperties"] = values


def _drop_titles(schema: dict[str, Any]) -> None:
    """Drop the titles that only repeat the name of a field, which pages show beside it."""
    for field in schema.get("properties", {}).values():
        field.pop("title", None)


def _document_problems(path: str, operation: dict[str, Any]) -> None:
    """Add the problems that any such operation may respond with to those that it names itself."""
    responses = operation["responses"]
    by_status: dict[str, list[str]] = {}
    for slug in (*_own_problems(responses), *_implied_problems(path, operation)):
        slugs = by_status.setdefault(str(PROBLEM_TYPES[slug].status), [])
        if slug not in slugs:
            slugs.append(slug)
    for status, slugs in by_status.items():
        ours = response_object([PROBLEM_TYPES[slug] for slug in slugs])
        known = responses.get(status, {}).get("content", {})
        others = {
            media_type: content
            for media_type, content in known.items()
            if media_type != PROBLEM_MEDIA_TYPE and "HTTPValidationError" not in str(content)
        }
        if path.startswith(INFERENCE_PATH):
            ours = {**ours, "content": _INFERENCE_ERROR}
        responses[status] = {**ours, "content": {**others, **ours["content"]}}
    operation["responses"] = dict(sorted(responses.items()))


def _own_problems(responses: dict[str, Any]) -> list[str]:
    return [
        slug
        for response in responses.values()
        for slug in response.get("content", {}).get(PROBLEM_MEDIA_TYPE, {}).get("examples", {})
    ]


def _implied_problems(path: str, operation: dict[str, Any]) -> list[str]:
    slugs = list(_EVERYWHERE)
    if operation["security"]:
        slugs += _WITH_KEY
    if path.startswith(("/v1/", INFERENCE_PATH)):
        slugs.append("unknown-parameter")
    if operation.get("parameters"):
        slugs += _WITH_PARAMETERS
    body = operation.get("requestBody", {}).get("content", {})
    if body:
        slugs += _WITH_BODY
    if "application/json" in body:
        slugs += _WITH_JSON
    return slugs
