"""JSON responses with entity tags, and these in `If-Match` and `If-None-Match` (RFC 9110, 8.8.3 and 13.1)."""

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from types import MappingProxyType
from typing import Annotated, Any

from fastapi import Depends, Header
from pydantic import BaseModel, Field, WithJsonSchema
from starlette.responses import Response

from app.problems.problem import FieldError, Problem

_MAX_LINES = 8
_MAX_LINE = 1_000
_TAG = r'(?:W/)?"[\x21\x23-\x7e\x80-\xff]*"'
# Elements may be empty; a tag may hold commas, but no quote.
_LIST = re.compile(rf"[ \t,]*{_TAG}(?:[ \t]*,[ \t,]*{_TAG})*[ \t,]*")
_TAGS = re.compile(_TAG)
_VOLATILE = {"queue"}

# A header may come in several lines, which to callers are one text.
_Lines = Annotated[
    Annotated[list[Annotated[str, Field(max_length=_MAX_LINE)]], Field(max_length=_MAX_LINES)]
    | None,
    WithJsonSchema({"type": "string"}),
]
IfMatch = Annotated[
    _Lines,
    Header(
        description="ETags, one of which must be current; `*` if the resource must exist.",
        examples=['"3"'],
    ),
]
IfNoneMatch = Annotated[
    _Lines,
    Header(
        description="ETags, none of which may be current; `*` if the resource must not exist.",
        examples=["*"],
    ),
]


@dataclass(frozen=True, slots=True)
class Preconditions:
    """Conditions of a request on the present state of its target.

    Args:
        match: Tags of `If-Match`; None without such a header, `*` alone for any.
        none_match: Tags of `If-None-Match`, likewise.
    """

    match: frozenset[str] | None
    none_match: frozenset[str] | None

    @property
    def hold_always(self) -> bool:
        """True if they hold for any state of a target that exists."""
        return self.match in (None, frozenset("*")) and self.none_match is None

    def matched(self, present: str | None) -> bool:
        """Return true if `If-Match` lets the request continue.

        Args:
            present: Strong tag of the target, with its quotes; None if there is no such target.
        """
        if self.match is None:
            return True
        # Strong comparison: a weak tag in the list is equal to none.
        return present is not None and (present in self.match or "*" in self.match)

    def new(self, present: str | None) -> bool:
        """Return true if `If-None-Match` lets the request continue; arguments as for `matched`."""
        if self.none_match is None or present is None:
            return True
        return not self.none_match & {"*", present, f"W/{present}"}

    def hold(self, present: str | None) -> bool:
        """Return true if a change may be made; arguments as for `matched`."""
        return self.matched(present) and self.new(present)


async def _preconditions(
    if_match: IfMatch = None, if_none_match: IfNoneMatch = None
) -> Preconditions:
    return Preconditions(_tags("If-Match", if_match), _tags("If-None-Match", if_none_match))


NO_CONDITIONS = Preconditions(None, None)
"""Conditions of a request that has none."""

PreconditionsDep = Annotated[Preconditions, Depends(_preconditions)]
ETAG = {
    "ETag": {
        "description": "Tag of this state of the resource, for `If-Match` and `If-None-Match`.",
        "schema": {"type": "string"},
    }
}
"""OpenAPI object of the header `ETag`."""

NOT_MODIFIED: dict[str, Any] = {
    "description": "The ETag of the resource is one of `If-None-Match`.",
    "headers": ETAG,
}


def etag_of_view(view: BaseModel) -> str:
    """Return the entity tag of a resource: of its view, without what changes while it does not."""
    content = view.model_dump_json(exclude=_VOLATILE).encode()
    return f'"{hashlib.sha256(content).hexdigest()[:32]}"'


def respond(
    view: BaseModel,
    conditions: Preconditions | None = None,
    *,
    tag: str | None = None,
    status_code: int = HTTPStatus.OK,
    headers: Mapping[str, str] = MappingProxyType({}),
) -> Response:
    """Return the response that shows a view; call it in a thread.

    Args:
        view: View to send.
        conditions: Conditions of the request; the response then has an ETag.
        tag: ETag; None for that of the view.

    Raises:
        Problem: `precondition`.
    """
    headers = dict(headers)
    if conditions is not None:
        tag = headers["ETag"] = tag or etag_of_view(view)
        if not conditions.matched(tag):
            raise Problem("precondition", "The resource has another ETag.")
        if not conditions.new(tag):
            return Response(status_code=HTTPStatus.NOT_MODIFIED, headers=headers)
    content = view.model_dump_json()
    return Response(content, status_code, headers=headers, media_type="application/json")


def _tags(name: str, lines: Sequence[str] | None) -> frozenset[str] | None:
    if lines is None:
        return None
    text = ",".join(lines)
    if text.strip(" \t") == "*":
        return frozenset("*")
    if not _LIST.fullmatch(text):
        error = FieldError('It is `*` or ETags with their quotes, such as `"3"`.', parameter=name)
        raise Problem("validation", errors=[error])
    return frozenset(_TAGS.findall(text))
