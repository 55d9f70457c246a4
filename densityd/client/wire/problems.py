"""Errors from HTTP responses."""

import json
import math
import warnings
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from http import HTTPStatus

from densityd.client.call import Response, parse_json
from densityd.client.errors import ApiError, FieldProblem, RowsWarning, UnexpectedAnswerError

_STANDARD = {"type", "title", "status", "detail", "instance", "errors"}
_SHOWN_CHARACTERS = 200


def read_error(response: Response) -> ApiError:
    """Return the error for a response with status 300 or more, from the service or a proxy."""
    try:
        content = parse_json(response.content)
    except UnexpectedAnswerError:
        content = {"detail": _plain_text(response)}
    return ApiError(
        response.status,
        type=_get_text(content, "type") or "about:blank",
        title=_get_text(content, "title") or _get_reason(response.status),
        detail=_get_text(content, "detail"),
        errors=_fields(content.get("errors")),
        members={name: value for name, value in content.items() if name not in _STANDARD},
        request_id=response.headers.get("x-request-id") or _get_text(content, "instance") or None,
        retry_after_s=read_retry_after(response.headers),
    )


def of_part(error: ApiError, start: int) -> ApiError:
    """Return an error about a part of a file, which says where the part begins.

    Args:
        error: Error that counts rows from the start of the part.
        start: Number of rows before the part.
    """
    if start == 0:
        return error
    detail = f"In the part of the file after {start} rows: {error.detail}"
    members = {name: value for name, value in vars(error).items() if name != "status"}
    return ApiError(error.status, **members | {"detail": detail})


def tell_warnings(headers: Mapping[str, str]) -> None:
    """Warn of what the service says about the body of a request whose rows it has scored."""
    text = headers.get("x-body-warnings")
    if text is None:
        return
    try:
        details = [str(found["detail"]) for found in json.loads(text)]
    except (ValueError, TypeError, LookupError):
        details = [text]
    for detail in details:
        warnings.warn(detail, RowsWarning, stacklevel=2)


def read_retry_after(headers: Mapping[str, str]) -> float | None:
    """Return the seconds of `Retry-After`, which may be a number or a date."""
    value = headers.get("retry-after", "").strip()
    if not value:
        return None
    if value.isascii() and value.isdecimal():
        return float(value)
    from email.utils import parsedate_to_datetime  # noqa: PLC0415 - hardly ever needed

    try:
        when = parsedate_to_datetime(value)
    except ValueError:
        return None
    if when.tzinfo is None:
        when = when.replace(tzinfo=UTC)
    return max(0.0, math.ceil((when - datetime.now(UTC)).total_seconds()))


def _fields(errors: object) -> Sequence[FieldProblem]:
    if not isinstance(errors, list):
        return ()
    places = ("pointer", "parameter", "column")
    return tuple(
        FieldProblem(
            detail=_get_text(error, "detail"),
            **{name: _get_text(error, name) for name in places if name in error},
        )
        for error in errors
        if isinstance(error, dict)
    )


def _get_text(content: Mapping[str, object], name: str) -> str:
    value = content.get(name)
    return value if isinstance(value, str) else ""


def _get_reason(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Error"


def _plain_text(response: Response) -> str:
    if not response.headers.get("content-type", "").startswith("text/plain"):
        return "The response is not from a densityd; a proxy may have sent it."
    return response.content.decode(errors="replace").strip()[:_SHOWN_CHARACTERS]
