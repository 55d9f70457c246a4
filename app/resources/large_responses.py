"""Large JSON responses, which wait on the disk instead of in memory for slow callers."""

from collections.abc import Mapping
from http import HTTPStatus
from types import MappingProxyType

from pydantic import BaseModel
from starlette.responses import Response

from app.http.stored_responses import StoredResponses
from app.http.streaming import StreamedResponse
from app.problems.problem import Problem
from app.resources.etags import Preconditions, etag_of, json_of

_MEDIA_TYPE = "application/json"
_SMALL_BYTES = 64 * 1024


def respond_large(
    view: BaseModel,
    stored: StoredResponses,
    conditions: Preconditions | None = None,
    *,
    status_code: int = HTTPStatus.OK,
    headers: Mapping[str, str] = MappingProxyType({}),
) -> Response:
    """Return the response that shows a view; call it in a thread.

    Args:
        view: View to send.
        stored: Responses that wait to be read.
        conditions: Conditions of the request; the response then has an ETag.
        status_code: Status of the response.
        headers: Further headers.

    Raises:
        Problem: `precondition`, or `overloaded`: the caller's project leaves too much unread.
    """
    content = json_of(view)
    headers = dict(headers)
    if conditions is not None:
        tag = headers["ETag"] = etag_of(content)
        if not conditions.matched(tag):
            raise Problem("precondition", "The resource has another ETag.")
        if not conditions.new(tag):
            return Response(status_code=HTTPStatus.NOT_MODIFIED, headers=headers)
    return respond_content(
        content, stored, media_type=_MEDIA_TYPE, headers=headers, status_code=status_code
    )


def respond_content(
    content: bytes,
    stored: StoredResponses,
    *,
    media_type: str,
    headers: Mapping[str, str],
    status_code: int = HTTPStatus.OK,
) -> Response:
    """Return a response that waits on the disk for its caller if it is large; call it in a thread.

    Args:
        content: Body of the response.
        stored: Responses that wait to be read.
        media_type: Media type of the body.
        headers: Further headers.
        status_code: Status of the response.

    Raises:
        Problem: `overloaded`: the caller's project leaves too much unread.
    """
    if len(content) <= _SMALL_BYTES:
        return Response(content, status_code, headers=headers, media_type=media_type)
    return StreamedResponse(
        stored.pieces_of(content),
        media_type=media_type,
        headers={**headers, "Content-Length": str(len(content))},
        status_code=status_code,
    )
