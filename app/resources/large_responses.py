"""JSON responses of resources, with their entity tags."""

from collections.abc import Mapping
from http import HTTPStatus
from types import MappingProxyType

from pydantic import BaseModel
from starlette.responses import Response

from app.problems.problem import Problem
from app.resources.etags import Preconditions, etag_of_view, json_of

_MEDIA_TYPE = "application/json"


def respond_large(
    view: BaseModel,
    conditions: Preconditions | None = None,
    *,
    status_code: int = HTTPStatus.OK,
    headers: Mapping[str, str] = MappingProxyType({}),
) -> Response:
    """Return the response that shows a view; call it in a thread.

    Args:
        view: View to send.
        conditions: Conditions of the request; the response then has an ETag.
        status_code: Status of the response.
        headers: Further headers.

    Raises:
        Problem: `precondition`.
    """
    content = json_of(view)
    headers = dict(headers)
    if conditions is not None:
        tag = headers["ETag"] = etag_of_view(view, content)
        if not conditions.matched(tag):
            raise Problem("precondition", "The resource has another ETag.")
        if not conditions.new(tag):
            return Response(status_code=HTTPStatus.NOT_MODIFIED, headers=headers)
    return Response(content, status_code, headers=headers, media_type=_MEDIA_TYPE)
