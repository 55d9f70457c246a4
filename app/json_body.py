"""Strict JSON request bodies: RFC 8259 to the letter, then the schema without any conversion."""

import asyncio
import re
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar

import numpy as np
import orjson
from fastapi import Request
from pydantic import BaseModel, ValidationError

from app.dependencies import settings_of
from app.problems import FieldError, Problem

JSON_MEDIA_TYPE = "application/json"
MAX_DEPTH = 1000
MAX_NUMBER_DIGITS = 1000
_INLINE_BYTES = 32 * 1024  # larger bodies are parsed in a thread

_Model = TypeVar("_Model", bound=BaseModel)

# Possessive, and able to end with the text: linear in time whatever comes.
_STRING = re.compile(rb'"(?:[^"\\]++|\\.)*+(?:"|\\?\Z)', re.DOTALL)
_NOT_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_LONG_NUMBER = re.compile(rb"\d{%d}" % (MAX_NUMBER_DIGITS + 1))
_NONFINITE = re.compile(rb"NaN|Infinity", re.IGNORECASE)
_HUGE_EXPONENT = re.compile(rb"\d[eE]\+?\d{3}|\d{309}")
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
# Of a model, and of a dataclass such as the spec of a flow.
_UNKNOWN_FIELD = frozenset({"extra_forbidden", "unexpected_keyword_argument"})
_JSON_TYPES = re.compile(r"application/(?:[a-z0-9.!#$&^_-]+\+)?json")


def parse_json(body: bytes) -> Any:  # noqa: ANN401  JSON is anything
    """Parse JSON and refuse whatever two parsers could read differently.

    Raises:
        Problem: 400 for what RFC 8259 forbids or leaves open (NaN, duplicate keys, encodings other
            than plain UTF-8, nesting and digits without end), 422 for values that no field can take
            (numbers beyond float64, lone surrogates).
    """
    if not body.strip(b" \t\r\n"):
        raise Problem("body-empty", "The body must be JSON; it is empty.")
    bare = _STRING.sub(b"", body) if b'"' in body else body
    _check_depth(bare)
    if _LONG_NUMBER.search(bare):
        raise Problem("json-number", f"A number has more than {MAX_NUMBER_DIGITS} digits.")
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise _syntax_problem(body, bare, error) from error
    if _count_keys(document, objects=bare.count(b"{")) != bare.count(b":"):
        raise Problem("json-duplicate-key", "An object names the same key twice.")
    return document


def validate_json(model: type[_Model], body: bytes) -> _Model:
    """Parse `body` strictly and validate it as `model`, converting nothing.

    Raises:
        Problem: when the body is not JSON or does not fit; `errors` points at what is wrong.
    """
    document = parse_json(body)
    try:
        return model.model_validate_json(body, strict=True)
    except ValidationError as error:
        raise _validation_problem(error, document) from error


def json_body(model: type[_Model]) -> Callable[[Request], Awaitable[_Model]]:
    """A dependency that reads the request's JSON body as `model`."""

    async def read(request: Request) -> _Model:
        require_json(request)
        body = await read_body(request, limit=settings_of(request).max_json_bytes)
        if len(body) <= _INLINE_BYTES:
            return validate_json(model, body)
        return await asyncio.to_thread(validate_json, model, body)

    return read


def json_request(
    model: type[BaseModel], *, examples: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    """The `openapi_extra=` of a route that reads `model` by `json_body`.

    Args:
        model: the body.
        examples: name to OpenAPI example object: `{"summary": ..., "value": ...}`. The first one
            is what Swagger UI sends.
    """
    return {
        "requestBody": {
            "required": True,
            "content": {
                JSON_MEDIA_TYPE: {
                    # `app.openapi` moves the schema and its definitions to the components.
                    "schema": model.model_json_schema(ref_template="#/components/schemas/{model}"),
                    "examples": dict(examples),
                }
            },
        }
    }


def media_type_of(request: Request) -> str:
    """The media type of the request's body in lower case, without parameters; "" without any."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def require_json(request: Request) -> None:
    """Refuse a body that does not say it is JSON, in UTF-8.

    Raises:
        Problem: 415.
    """
    if not _JSON_TYPES.fullmatch(media_type_of(request)):
        raise Problem("media-type", f"The body's Content-Type must be {JSON_MEDIA_TYPE}.")


async def read_body(request: Request, *, limit: int) -> bytes:
    """Read the whole body, at most `limit` bytes of it.

    Raises:
        Problem: 413, before anything is read where the length is declared.
    """
    slug = "limit-decoded-bytes" if hasattr(request.state, "body_was_encoded") else "limit-body"
    too_large = Problem(slug, f"The body of this route is limited to {limit} bytes.")
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > limit:
        raise too_large
    body = bytearray()
    async for chunk in request.stream():
        if len(body) + len(chunk) > limit:
            raise too_large
        body += chunk
    return bytes(body)


def _check_depth(bare: bytes) -> None:
    brackets = np.frombuffer(bare.translate(None, _NOT_BRACKETS), np.uint8)
    if brackets.size <= MAX_DEPTH:
        return
    opening = (brackets & 0x0F) == 0x0B  # [ and { end in B, ] and } in D
    depth = np.cumsum(np.where(opening, 1, -1), dtype=np.int64)
    if int(depth.max()) > MAX_DEPTH:
        raise Problem("json-depth", f"The JSON is nested more than {MAX_DEPTH} levels deep.")


def _syntax_problem(body: bytes, bare: bytes, error: orjson.JSONDecodeError) -> Problem:
    try:
        body.decode()
    except UnicodeDecodeError:
        return Problem("json-encoding", "The body is not UTF-8.")
    if body.startswith(b"\xef\xbb\xbf") or b"\0" in body:
        return Problem("json-encoding", "The body must be UTF-8 without a byte order mark.")
    if _NONFINITE.search(bare):
        return Problem("json-nonfinite", "NaN and Infinity are not JSON.")
    if "surrogate" in error.msg or _SURROGATE.search(body):
        return Problem("validation", "A string has half of a surrogate pair.")
    if "infinity" in error.msg or _HUGE_EXPONENT.search(bare):
        return Problem("value-nonfinite", "A number is too large for a 64-bit float.")
    return Problem(
        "json-syntax", f"The body is not JSON: line {error.lineno}, column {error.colno}."
    )


def _count_keys(document: object, *, objects: int) -> int:
    """How many keys the parsed document has; a duplicate in the text is one key here."""
    keys = 0
    pending = [document]
    while pending and objects:
        value = pending.pop()
        if isinstance(value, dict):
            objects -= 1
            keys += len(value)
            pending.extend(value.values())
        elif isinstance(value, list):
            pending.extend(item for item in value if isinstance(item, dict | list))
    return keys


def _validation_problem(error: ValidationError, document: object) -> Problem:
    found = error.errors(include_url=False, include_input=False)
    kinds = {item["type"] for item in found}
    if kinds & _UNKNOWN_FIELD:
        slug = "unknown-field"
    elif kinds == {"finite_number"}:
        slug = "value-nonfinite"
    else:
        slug = "validation"
    errors = [
        FieldError(_detail(dict(item)), pointer=_pointer(item["loc"], document, item["type"]))
        for item in found
    ]
    return Problem(slug, "The body does not fit its schema; see `errors`.", errors=errors)


def _detail(item: Mapping[str, Any]) -> str:
    context = item.get("ctx", {})
    match item["type"]:
        case "union_tag_invalid":  # pydantic's own text repeats the caller's tag
            return f"{context['discriminator']} must be one of {context['expected_tags']}"
        case kind if kind in _UNKNOWN_FIELD:
            return "There is no such field."
        case "json_invalid":  # a level that only pydantic's parser finds too deep
            return "Nested more deeply than any value of this route."
        case _:
            return str(item["msg"]).removeprefix("Value error, ")


def _pointer(location: tuple[int | str, ...], document: object, kind: str) -> str:
    """The JSON pointer of pydantic's location, which also names union members on its way."""
    tokens: list[str] = []
    here: Any = document
    for index, step in enumerate(location):
        if _has(here, step):
            here = here[step]
        elif not (kind == "missing" and index == len(location) - 1):
            continue
        token = str(step)[:64].replace("~", "~0").replace("/", "~1")
        tokens.append(f"/{token}")
    return "".join(tokens)


def _has(here: object, step: int | str) -> bool:
    if isinstance(here, dict):
        return step in here
    return isinstance(here, list) and isinstance(step, int) and step < len(here)
