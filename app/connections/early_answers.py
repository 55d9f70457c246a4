"""Responses to requests that cannot be served, as bytes."""

import json
from typing import Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from app.problems.problem import PROBLEM_MEDIA_TYPE
from app.problems.types import PROBLEM_TYPES


def early_answer(
    slug: str,
    detail: str,
    default_headers: list[tuple[bytes, bytes]],
    *,
    is_head: bool,
    root_path: str,
) -> bytes:
    """Return the response for a problem, after which the connection is closed."""
    kind = PROBLEM_TYPES[slug]
    content: dict[str, Any] = {
        "type": root_path + kind.uri,
        "title": kind.title,
        "status": kind.status,
        "detail": detail or kind.explanation,
        "instance": "none",
    }
    body = json.dumps(content).encode()
    retry = b"" if kind.retry_after_s is None else b"retry-after: %d\r\n" % kind.retry_after_s
    return b"".join(
        [
            STATUS_LINE[kind.status],
            *(b"%b: %b\r\n" % header for header in default_headers),
            b"content-type: %s\r\n" % PROBLEM_MEDIA_TYPE.encode(),
            b"content-length: %d\r\n" % len(body),
            retry,
            b"connection: close\r\n\r\n",
            b"" if is_head else body,
        ]
    )
