"""Bodies of requests: JSON by its schema without any conversion, and bytes up to a limit."""

import re
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from fastapi import Request
from pydantic import BaseModel, ValidationError
from starlette.requests import ClientDisconnect
from starlette.types import Message

from app.http.exchange import Exchange, exchange_of
from app.limits import Share, in_thread
from app.problems.problem import Problem
from app.problems.validation import validation_problem
from app.settings import ApiSettings
from tabular import json_text
from tabular.errors import JsonError
from tabular.slugs import Slug

JSON_MEDIA_TYPE = "application/json"
_INLINE_BYTES, _INLINE_LISTS = 32 * 1024, 1_000  # larger bodies are parsed in a thread
MAX_CONTENT_TYPE = 1_000
"""Characters of a Content-Type that is parsed: that takes time which grows with their square."""
_WRITE_BYTES = 128 * 1024
_MAX_SHOWN = 100  # characters of a media type
_MAX_FAULTS = 300  # a body may have thousands more, of a kilobyte each once they are listed

# Words of a body for the faults of JSON that tables have, too.
_SLUGS: dict[Slug, Slug] = {
    "dataset-empty": "body-empty",
    "dataset-encoding": "validation",
    "dataset-nonfinite": "value-nonfinite",
}

_Model = TypeVar("_Model", bound=BaseModel)

_JSON_TYPES = re.compile(r"application/(?:[a-z0-9.!#$&^_-]+\+)?json")


def parse_json(body: bytes, *, max_lists: int | None = None) -> Any:  # noqa: ANN401  JSON is anything
    """Parse JSON.

    Args:
        max_lists: Most lists and objects.

    Raises:
        Problem: 400 for what RFC 8259 forbids, 422 for numbers beyond float64 and for more values than
            allowed.
    """
    try:
        return json_text.parse_json(body, max_lists=max_lists)
    except JsonError as error:
        raise Problem(_SLUGS.get(error.slug, error.slug), error.detail) from error


def validate_json(model: type[_Model], body: bytes) -> _Model:
    """Read `body` as `model`, converting nothing.

    Raises:
        Problem: The body is not JSON or does not fit; `errors` points at what is wrong.
    """
    try:
        return model.model_validate_json(body, strict=True)
    except ValidationError as error:
        document = parse_json(body)
        if error.error_count() > _MAX_FAULTS:
            detail = f"The body does not fit its schema in {error.error_count()} places."
            raise Problem("validation", detail) from None
        raise validation_problem(error, document, model) from error


async def read_json(exchange: Exchange, model: type[_Model]) -> _Model:
    """Read the JSON body of a request as `model`, off the event loop if it is large.

    Raises:
        Problem: The body is too large, is not JSON or does not fit.
    """
    require_json(exchange)
    settings: ApiSettings = exchange.state.settings
    with body_share(exchange) as share:  # a large one waits for the thread
        body = await read_body(exchange, limit=settings.max_json_bytes, share=share)
        if is_quick(body):
            return validate_json(model, body)
        return await in_thread(validate_json, model, body)


def is_quick(body: bytes) -> bool:
    """Return whether a body is parsed and checked in a moment; thousands of small objects are not."""
    return len(body) <= _INLINE_BYTES and body.count(b"{") + body.count(b"[") <= _INLINE_LISTS


def json_body(model: type[_Model]) -> Callable[[Request], Awaitable[_Model]]:
    """Return a dependency that reads the JSON body of a request as `model`."""

    async def read(request: Request) -> _Model:
        return await read_json(exchange_of(request), model)

    return read


def json_request(
    model: type[BaseModel], *, examples: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    """Return the `openapi_extra=` of a route that reads `model` by `json_body`.

    Args:
        examples: OpenAPI example objects, `{"summary": ..., "value": ...}`, by name. Swagger UI
            sends the first one.
    """
    return {
        "requestBody": {
            "required": True,
            "content": {
                JSON_MEDIA_TYPE: {
                    # `app.site.openapi` moves the schema and its definitions to the components.
                    "schema": model.model_json_schema(ref_template="#/components/schemas/{model}"),
                    "examples": dict(examples),
                }
            },
        }
    }


def body_share(exchange: Exchange) -> Share:
    """Return the memory that the body of a request takes, for the caller's project."""
    return Share(exchange.state.body_memory, exchange.project)


def media_type_of(exchange: Exchange) -> str:
    """Return the media type of a body in lower case, without parameters; "" if there is none."""
    return (exchange.text(b"content-type") or "").partition(";")[0].strip().lower()


def require_json(exchange: Exchange) -> None:
    """Refuse a body whose media type is not JSON.

    Raises:
        Problem: 415.
    """
    given = media_type_of(exchange)
    if not _JSON_TYPES.fullmatch(given):
        fault = f"is {given[:_MAX_SHOWN]}" if given else "is missing"
        raise Problem(
            "media-type",
            f"The body's Content-Type {fault}; send `Content-Type: {JSON_MEDIA_TYPE}`.",
            members={"supported": [JSON_MEDIA_TYPE]},
        )


async def read_body(exchange: Exchange, *, limit: int, share: Share, advice: str = "") -> bytes:
    """Read the whole body, at most `limit` bytes of it.

    Args:
        limit: Most bytes.
        share: Share of the memory of bodies, which holds a large one then.
        advice: Sentence on what to do about a body that is too large, with a space before it.

    Raises:
        Problem: 413, before anything is read where the length is declared; `overloaded` when too
            many bodies are being read, or have come and wait.
    """
    if declared_bytes(exchange) > limit:
        raise _too_large(exchange, limit, advice)
    message = await exchange.receive()
    body: bytes = message.get("body", b"")
    if message["type"] == "http.request" and not message.get("more_body") and len(body) <= limit:
        if len(body) > _INLINE_BYTES:
            share.hold(len(body))
        return body  # it has come as a whole, as most do
    chunks, size = [], 0
    async for chunk in _chunks(exchange, limit, message, advice):
        chunks.append(chunk)
        size += len(chunk)
        share.hold(size)
    return b"".join(chunks)


async def body_chunks(exchange: Exchange, *, limit: int) -> AsyncGenerator[bytes, None]:
    """Yield the body as it comes, at most `limit` bytes of it.

    Raises:
        Problem: 413, before anything is read where the length is declared.
        ClientDisconnect: The client has disconnected.
    """
    if declared_bytes(exchange) > limit:
        raise _too_large(exchange, limit, "")
    async for chunk in _chunks(exchange, limit, await exchange.receive()):
        yield chunk


async def write_to_disk(body: AsyncIterator[bytes], destination: Path) -> int:
    """Write a body to an existing file, and return its number of bytes.

    Raises:
        ClientDisconnect: The client disconnected before the end.
    """
    size = 0
    waiting = bytearray()
    file = await in_thread(destination.open, "wb")
    try:
        async for chunk in body:
            size += len(chunk)
            waiting += chunk
            if len(waiting) >= _WRITE_BYTES:
                await in_thread(file.write, waiting)
                waiting = bytearray()
        await in_thread(file.write, waiting)
    finally:
        await in_thread(file.close)  # some file systems first write what they have of it
    return size


async def _chunks(
    exchange: Exchange, limit: int, message: Message, advice: str = ""
) -> AsyncGenerator[bytes, None]:
    """Yield the rest of a body, of which one message has come."""
    size = 0
    while message["type"] == "http.request":
        chunk: bytes = message.get("body", b"")
        size += len(chunk)
        if size > limit:
            raise _too_large(exchange, limit, advice)
        if chunk:
            yield chunk
        if not message.get("more_body"):
            return
        message = await exchange.receive()
    raise ClientDisconnect


def declared_bytes(exchange: Exchange) -> int:
    """Return the length that a body says it has; 0 if it says none."""
    length = exchange.head.get(b"content-length", b"")
    return int(length) if length.isdigit() else 0


def _too_large(exchange: Exchange, limit: int, advice: str) -> Problem:
    slug: Slug = "limit-decoded-bytes" if exchange.is_packed else "limit-body"
    return Problem(slug, f"The body of this route is limited to {limit} bytes.{advice}")
