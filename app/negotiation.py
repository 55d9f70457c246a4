"""Which format a caller sends rows in, and which one the answer has."""

from email.message import Message
from enum import StrEnum

from app.accept import best_media_type
from app.problems import Problem


class RowFormat(StrEnum):
    """A media type that rows travel in; the first is the one for callers who do not mind."""

    JSON = "application/json"
    NPY = "application/x-npy"


_OFFERED = tuple(row_format.value for row_format in RowFormat)
_CHARSETS = frozenset({"utf-8", "utf8", "us-ascii"})


def request_format(content_type: str | None) -> RowFormat:
    """The format of a body.

    Raises:
        Problem: `media-type`, when there is none or it is not one of ours.
    """
    if content_type in _OFFERED:  # the usual case costs no parsing
        return RowFormat(content_type)
    message = Message()
    message["content-type"] = content_type or ""
    media_type = message.get_content_type()
    if media_type not in _OFFERED or message.get_content_charset("utf-8") not in _CHARSETS:
        raise Problem(
            "media-type",
            f"The body's Content-Type must be one of {', '.join(_OFFERED)}.",
            members={"supported": list(_OFFERED)},
        )
    return RowFormat(media_type)


def answer_format(accept: str | None) -> RowFormat:
    """The format that an `Accept` header likes best; JSON when it likes all alike.

    Raises:
        Problem: `not-acceptable`, when it takes none of ours.
    """
    if accept is None or accept in _OFFERED:
        return RowFormat(accept or RowFormat.JSON)
    return RowFormat(best_media_type(accept, _OFFERED))
