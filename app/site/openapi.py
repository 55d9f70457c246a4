"""OpenAPI document of FastAPI, completed with keys, problems and headers of all routes."""

import re
from collections.abc import Iterator
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from app.auth.middleware import Policy
from app.problems.problem import INFERENCE_PATH, PROBLEM_MEDIA_TYPE, response_object
from app.problems.types import PROBLEM_TYPES

DESCRIPTION = """\
Upload a table, train a normalising flow on it, and follow the training. The trained model computes
the exact log density of rows (`log_prob`) and draws new rows (`sample`).

Log densities are in nats, in the data's own units. Errors are problem details as in
[RFC 9457](https://www.rfc-editor.org/rfc/rfc9457); [/problems](/problems) explains each `type`.
"""

TAGS = [
    {"name": "datasets", "description": "Upload, inspect, read and delete tables."},
    {
        "name": "jobs",
        "description": "Start, follow, cancel and resume training, variational inference, and the scoring"
        " and sampling of many rows.",
    },
    {"name": "models", "description": "Trained models, their versions and aliases."},
    {"name": "scores", "description": "Densities and samples of a trained model."},
    {
        "name": "inference",
        "description": "Open Inference Protocol v2, for clients of KServe and Triton.",
    },
    {"name": "webhooks", "description": "Addresses that are told when jobs end."},
    {"name": "account", "description": "The caller, its usage, and the keys of its project."},
    {"name": "operations", "description": "Health checks and metrics."},
    {"name": "problems", "description": "Explanations of the service's errors."},
]

_PROBLEM_SCHEMA = {
    "title": "Problem",
    "description": "Error as in RFC 9457; some types have further members.",
    "type": "object",
    "required": ["type", "title", "status", "detail", "instance"],
    "properties": {
        "type": {
            "type": "string",
            "description": "Path of the page that explains the problem: `/problems/` and its stable name.",
        },
        "title": {"type": "string"},
        "status": {"type": "integer", "minimum": 400, "maximum": 599},
        "detail": {"type": "string", "description": "Explanation of this occurrence."},
        "instance": {
            "type": "string",
            "description": "Id of the request, which is also in the server's log.",
        },
        "errors": {
            "type": "array",
            "items": {
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
                    "detail": {"type": "string"},
                },
            },
        },
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
    "body-timeout",
    "limit-body",
    "limit-decoded-bytes",
    "media-type",
    "content-encoding",
)
_WITH_JSON = (
    "json-syntax",
    "json-encoding",
    "json-nonfinite",
    "json-depth",
    "json-number",
    "json-duplicate-key",
    "value-nonfinite",
    "overloaded",
    "unknown-field",
    "validation",
)
# A field of a docstring's section, and the indented lines that go on with it.
_ATTRIBUTE = re.compile(r"^    (\w+): (.*(?:\n {8}.*)*)", re.MULTILINE)
_INFERENCE_ERROR_SCHEMA = {
    "title": "InferenceError",
    "description": "Error as the Open Inference Protocol has it.",
    "type": "object",
    "required": ["error"],
    "properties": {"error": {"type": "string", "description": "Explanation of what is wrong."}},
}
_INFERENCE_ERROR = {"application/json": {"schema": {"$ref": "#/components/schemas/InferenceError"}}}
_FASTAPI_ERRORS = ("HTTPValidationError", "ValidationError")


def install_openapi(app: FastAPI, policy: Policy) -> None:
    """Make `app.openapi()` return the completed document.

    Args:
        app: Application whose routes are described.
        policy: Policy of the routes that need a key.
    """

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _complete(
                get_openapi(
                    title=app.title,
                    version=app.version,
                    summary=app.summary,
                    description=app.description,
                    routes=app.routes,
                    tags=app.openapi_tags,
                ),
                policy,
            )
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]  # FastAPI's documented way


def _complete(document: dict[str, Any], policy: Policy) -> dict[str, Any]:
    components: dict[str, Any] = document.setdefault("components", {})
    schemas: dict[str, Any] = components.setdefault("schemas", {})
    for method, path, operation in _operations(document):
        _hoist_body_schemas(operation, schemas)
        needed = policy.needed(method, path)
        # The list names the scope; tools that know bearer tokens only pass over it.
        operation["security"] = [] if needed is None else [{_KEY: [needed.value]}]
        _document_problems(path, operation)
    components["securitySchemes"] = {_KEY: _KEY_SCHEME}
    for name in _FASTAPI_ERRORS:
        schemas.pop(name, None)
    schemas["Problem"] = _PROBLEM_SCHEMA
    schemas["InferenceError"] = _INFERENCE_ERROR_SCHEMA
    for schema in schemas.values():
        _describe_fields(schema)
    document["components"]["schemas"] = dict(sorted(schemas.items()))
    return document


def _operations(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield method.upper(), path, operation


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
    if not attributes:
        return
    schema["description"] = head
    for name, text in _ATTRIBUTE.findall(attributes):
        if field := schema["properties"].get(name):
            field.setdefault("description", " ".join(text.split()))


def _document_problems(path: str, operation: dict[str, Any]) -> None:
    """Add the problems that any such operation may answer with to those that it names itself."""
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
        headers = responses.get(status, {}).get("headers")
        responses[status] = {**ours, "content": {**others, **ours["content"]}}
        if headers:
            responses[status]["headers"] = headers
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
