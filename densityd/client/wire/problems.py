"""From an HTTP answer that is an error to what is raised."""

import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus

from densityd.client.call import Answer, json_of
from densityd.client.errors import ApiError, FieldProblem, Problem, UnexpectedAnswerError

_KNOWN = {"type", "title", "status", "detail", "instance", "errors"}
_SHOWN_CHARACTERS = 200


def error_of(answer: Answer) -> ApiError:
    """The error that an answer of 300 or more stands for, whoever sent it."""
    request_id = answer.headers.get("x-request-id")
    retry_after_s = retry_after(answer.headers)
    try:
        content = json_of(answer.content)
    except UnexpectedAnswerError:
        return ApiError(
            Problem(
                status=answer.status,
                title=_reason(answer.status),
                detail=_plain_text(answer),
                request_id=request_id,
                retry_after_s=retry_after_s,
            )
        )
    return ApiError(
        Problem(
            status=answer.status,
            type=_text(content, "type") or "about:blank",
            title=_text(content, "title") or _reason(answer.status),
            detail=_text(content, "detail"),
            errors=_fields(content.get("errors")),
            members={name: value for name, value in content.items() if name not in _KNOWN},
            request_id=request_id or _text(content, "instance") or None,
            retry_after_s=retry_after_s,
        )
    )


def retry_after(headers: Mapping[str, str]) -> float | None:
    """The seconds that `Retry-After` asks to wait, in either of its forms."""
    value = headers.get("retry-after", "").strip()
    if not value:
        return None
    if value.isascii() and value.isdecimal():
        return float(value)
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
    return tuple(
        FieldProblem(
            detail=_text(error, "detail"),
            pointer=_text(error, "pointer") if "pointer" in error else None,
            parameter=_text(error, "parameter") if "parameter" in error else None,
        )
        for error in errors
        if isinstance(error, dict)
    )


def _text(content: Mapping[str, object], name: str) -> str:
    value = content.get(name)
    return value if isinstance(value, str) else ""


def _reason(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Error"


def _plain_text(answer: Answer) -> str:
    if not answer.headers.get("content-type", "").startswith("text/plain"):
        return "The answer is none of a densityd; something in between may have given it."
    return answer.content.decode(errors="replace").strip()[:_SHOWN_CHARACTERS]
