"""Errors as RFC 9457 problem+json."""

import errno
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import partial
from http import HTTPStatus
from itertools import zip_longest
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.routing import iter_route_contexts
from starlette.exceptions import HTTPException
from starlette.responses import Response

from app.problems.types import PROBLEM_TYPES, ProblemType
from app.problems.wording import alone, is_unknown, sentence, told, worded
from app.root_path import rooted
from models_store.errors import BlobError, RequestError, StoreError
from tabular.errors import TableError, TablesError
from tabular.slugs import Slug

log = logging.getLogger(__name__)

PROBLEM_MEDIA_TYPE = "application/problem+json"
INFERENCE_PATH = "/v2"
"""Start of the paths of the Open Inference Protocol, whose errors are `{"error": "..."}`."""

_NO_THREAD = "can't start new thread"
_MAX_BYTES = 8000
_MAX_ERRORS = 20
_MAX_TEXT = 300
_MAX_POINTER = 200
_MAX_PATH = 200

_HTTP_STATUSES: dict[int, Slug] = {
    400: "bad-request",
    404: "not-found",
    405: "method-not-allowed",
    406: "not-acceptable",
    413: "limit-body",
    415: "media-type",
    422: "validation",
    503: "overloaded",
}


@dataclass(frozen=True)
class FieldError:
    """Wrong field of a request.

    Attributes:
        detail: Requirement that the field breaks; never its value.
        pointer: JSON pointer into the body.
        parameter: Name of a path, query or header parameter, instead of a pointer.
        column: Name of a column of a table, instead of a pointer.
    """

    detail: str
    pointer: str | None = None
    parameter: str | None = None
    column: str | None = None

    def as_dict(self) -> dict[str, str]:
        """Return the member of a problem's `errors`."""
        places = {"parameter": self.parameter, "column": self.column}
        named = {name: place for name, place in places.items() if place is not None}
        where = named or {"pointer": self.pointer or ""}
        return {
            **{name: _cut(place, _MAX_POINTER) for name, place in where.items()},
            "detail": _cut(self.detail, _MAX_TEXT),
        }


class Problem(Exception):  # noqa: N818  the term of RFC 9457
    """Response that reports an error; raise it anywhere below the middleware."""

    def __init__(
        self,
        slug: Slug,
        detail: str = "",
        *,
        status: int | None = None,
        errors: Sequence[FieldError] = (),
        headers: Mapping[str, str] | None = None,
        members: Mapping[str, Any] | None = None,
    ) -> None:
        """Describe the problem.

        Args:
            slug: Slug of the problem type.
            detail: Sentence on this occurrence, without any of the caller's input; by default it is
                about the first wrong field.
            status: HTTP status where it differs from the type's usual one.
            errors: Wrong fields of the request.
            members: Further members of the problem, such as a limit; they must be JSON.
        """
        self.type = PROBLEM_TYPES[slug]
        self.detail = detail or _about(errors) or self.type.explanation
        self.status = self.type.status if status is None else status
        self.errors = tuple(errors)
        self.headers = dict(headers or {})
        self.members = dict(members or {})
        super().__init__(f"{slug}: {self.detail}")


def _about(errors: Sequence[FieldError]) -> str:
    if not errors:
        return ""
    first, others = errors[0], len(errors) - 1
    place = first.parameter or first.column or first.pointer
    more = f" {others} more: see `errors`." if others else ""
    return f"`{place}`: {first.detail}{more}" if place else f"{first.detail}{more}"


def problem_of(error: StoreError | TablesError) -> Problem:
    """Return the problem that tells a caller of a domain error."""
    if error.slug == "internal":
        log.error("an error without a problem type", exc_info=error)
        return Problem("internal", "The service met an error that it has no name for.")
    errors: tuple[FieldError, ...] = ()
    members: dict[str, Any] = {}
    if isinstance(error, RequestError):
        errors = (FieldError(told(error.detail), pointer=error.pointer),)
        members = {} if error.position is None else {"position": error.position}
    if isinstance(error, TableError):
        members = {"column": error.column, "row": error.row}
        errors = tuple(FieldError(text, column=name) for name, text in error.errors)
    text = error.told if isinstance(error, TableError) else str(error)
    detail = "" if isinstance(error, BlobError) else _cut(told(text), _MAX_TEXT)
    return Problem(error.slug, detail, errors=errors, members=members)


def problem_of_lack(error: BaseException) -> Problem | None:
    """Return the problem that tells of a process or a thread that the system did not start; None: it is another error."""
    refused = isinstance(error, RuntimeError) and str(error) == _NO_THREAD
    if not refused and not (isinstance(error, OSError) and error.errno == errno.EAGAIN):
        return None
    return Problem(
        "overloaded", "The service cannot start another process or thread at the moment."
    )


def problem_response(problem: Problem, *, request_id: str, path: str = "") -> Response:
    """Return the HTTP response for a problem: at most 8 kB, and nothing of the request in it.

    Args:
        problem: Problem to tell of.
        path: Path of the request; that of the Open Inference Protocol has an error form of its own.
    """
    headers = dict(problem.headers)
    if problem.type.retry_after_s is not None:
        headers.setdefault("Retry-After", str(problem.type.retry_after_s))
    if path == INFERENCE_PATH or path.startswith(f"{INFERENCE_PATH}/"):
        error = _json({"error": _cut(problem.detail, _MAX_TEXT)})
        return Response(error, problem.status, headers, media_type="application/json")
    content: dict[str, Any] = {
        "type": rooted(problem.type.uri),
        "title": problem.type.title,
        "status": problem.status,
        "detail": _cut(problem.detail, _MAX_TEXT),
        "instance": request_id,
    }
    body = _bounded_json(content, problem)
    return Response(body, problem.status, headers, media_type=PROBLEM_MEDIA_TYPE)


def install_problem_handlers(app: FastAPI) -> None:
    """Make `app` respond to every expected error with a problem."""
    for kind, problem in (
        (Problem, lambda _, error: error),
        (StoreError, lambda _, error: problem_of(error)),
        (TablesError, lambda _, error: problem_of(error)),
        (HTTPException, _problem_of_http),
        (RequestValidationError, _problem_of_parameters),
    ):
        app.add_exception_handler(kind, partial(_respond, problem))


async def _respond(
    problem: Callable[[Request, Any], Problem], request: Request, error: Exception
) -> Response:
    told = problem(request, error)
    return problem_response(told, request_id=request_id_of(request), path=request.url.path)


def problem_responses(*slugs: Slug) -> dict[int | str, dict[str, Any]]:
    """Return the `responses=` of a route that may respond with these problems."""
    by_status: dict[int, list[ProblemType]] = {}
    for slug in slugs:
        problem = PROBLEM_TYPES[slug]
        by_status.setdefault(problem.status, []).append(problem)
    return {status: response_object(types) for status, types in by_status.items()}


def response_object(types: Sequence[ProblemType]) -> dict[str, Any]:
    """Return the OpenAPI response object of problems that share a status."""
    return {
        "description": "; ".join(f"{problem.title} (`{problem.slug}`)" for problem in types),
        "content": {
            PROBLEM_MEDIA_TYPE: {
                "schema": {"$ref": "#/components/schemas/Problem"},
                "examples": {
                    problem.slug: {"$ref": f"#/components/examples/{problem.slug}"}
                    for problem in types
                },
            }
        },
    }


def request_id_of(request: Request) -> str:
    """Return the request's id, which the middleware chose."""
    exchange = request.scope["state"].get("exchange")
    return "unknown" if exchange is None else str(exchange.request_id)


def problem_example(problem: ProblemType) -> dict[str, Any]:
    """Return the OpenAPI example of a problem, which responses refer to by its slug."""
    example = {
        "type": problem.uri,
        "title": problem.title,
        "status": problem.status,
        "detail": problem.explanation,
        "instance": "0f3c5f4e7d0c4d5b9b8f1e2a3c4d5e6f",
    }
    return {"value": example}


def _problem_of_http(request: Request, error: HTTPException) -> Problem:
    slug = _HTTP_STATUSES.get(
        error.status_code, "bad-request" if error.status_code < 500 else "internal"
    )
    headers = dict(error.headers or {})
    detail = ""
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        headers["Allow"] = ", ".join(_allowed_methods(request))
        detail = f"This route takes {headers['Allow']}, not {request.method[:16]}."
    elif error.status_code == HTTPStatus.NOT_FOUND and "route" not in request.scope:
        detail = f"There is no such route.{_nearest_route(request)}"
    return Problem(slug, detail, status=error.status_code, headers=headers)


def _problem_of_parameters(_request: Request, error: RequestValidationError) -> Problem:
    found = error.errors()
    unknown = any(is_unknown(item["type"]) for item in found)
    # Below the kind of parameter and its name are indices of repeated ones.
    faults = [(str(item["loc"][:2][-1]), worded(item, what="parameter")) for item in found]
    errors = [FieldError(alone(text), parameter=name) for name, text in faults]
    more = f" {len(faults) - 1} more: see `errors`." if len(faults) > 1 else ""
    slug: Slug = "unknown-parameter" if unknown else "validation"
    return Problem(slug, sentence(*faults[0]) + more, errors=errors)


def _nearest_route(request: Request) -> str:
    """Return a sentence that names the route whose path is most like that of a request; empty for none."""
    asked = request.scope["path"][:_MAX_PATH].split("/")
    paths = dict.fromkeys(
        str(route.path_format) for route in iter_route_contexts(request.app.routes)
    )
    # What stands for an id is like any text.
    filled = {
        "/".join(
            theirs if part.startswith("{") else part
            for part, theirs in zip_longest(path.split("/"), asked, fillvalue="")
        ): path
        for path in paths
    }
    near = get_close_matches("/".join(asked), filled, n=1)
    return f" The nearest is `{rooted(filled[near[0]])}`." if near else ""


def _allowed_methods(request: Request) -> list[str]:
    """Return the methods of every route with the path's template; the router names one route's only."""
    path = request.scope["path"]
    routes = list(iter_route_contexts(request.app.routes))
    template = next(route.path_format for route in routes if route.path_regex.match(path))
    methods: set[str] = set()
    for route in routes:
        if route.path_format == template:
            methods |= route.methods or set()
    if "GET" in methods:
        methods.add("HEAD")  # see `app.http.head`
    return sorted(methods)


def _bounded_json(content: dict[str, Any], problem: Problem) -> bytes:
    """Return `content` with as many of the problem's members and errors as the size allows."""
    body = _json(content)
    if problem.members and len(whole := _json({**problem.members, **content})) <= _MAX_BYTES:
        content, body = {**problem.members, **content}, whole
    shown = [error.as_dict() for error in problem.errors[:_MAX_ERRORS]]
    while shown and len(whole := _json({**content, "errors": shown})) > _MAX_BYTES:
        shown.pop()
    return whole if shown else body


def _json(content: Mapping[str, Any]) -> bytes:
    text = json.dumps(content, ensure_ascii=False, separators=(",", ":"))
    return text.encode(errors="replace")


def _cut(text: str, limit: int) -> str:
    return text if len(text) <= limit else f"{text[: limit - 1]}…"
