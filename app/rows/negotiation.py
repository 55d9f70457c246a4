"""Negotiation of the formats of rows, by the headers of a request."""

from collections.abc import Mapping
from email.message import Message
from email.utils import collapse_rfc2231_value

from app.http.accept import best_media_type
from app.problems.problem import Problem
from app.rows.codecs import BY_MEDIA_TYPE, Codec

_OFFERED = tuple(BY_MEDIA_TYPE)
_CHARSETS = frozenset({"utf-8", "utf8", "us-ascii"})


def request_codec(content_type: str | None) -> tuple[Codec, Mapping[str, str]]:
    """Return the format of a body, and the parameters of its media type.

    Raises:
        Problem: `media-type` when there is none or it is not supported.
    """
    found = known_codec(content_type)
    if found is None:
        raise Problem(
            "media-type",
            f"The body's Content-Type must be one of {', '.join(_OFFERED)}, text in UTF-8.",
            members={"supported": list(_OFFERED)},
        )
    return found


def known_codec(content_type: str | None) -> tuple[Codec, Mapping[str, str]] | None:
    """Return what `request_codec` does; None for other types, and text that is not in UTF-8."""
    codec = BY_MEDIA_TYPE.get(content_type or "")
    if codec is not None:  # most requests cost no parsing
        return codec, {}
    message = Message()
    message["content-type"] = content_type or ""
    codec = BY_MEDIA_TYPE.get(message.get_content_type())
    if codec is None or message.get_content_charset("utf-8") not in _CHARSETS:
        return None
    parameters = message.get_params(failobj=[])[1:]
    # `name*=utf-8''value` (RFC 2231) comes in three parts.
    return codec, {
        name.lower(): collapse_rfc2231_value(value).lower() for name, value in parameters
    }


def response_codec(accept: str | None, *, default: str = _OFFERED[0]) -> Codec:
    """Return the format that an `Accept` header prefers.

    Args:
        accept: Header `Accept`; None accepts anything.
        default: Media type for clients that accept all alike.

    Raises:
        Problem: `not-acceptable` when it accepts no supported format.
    """
    if accept is None:
        return BY_MEDIA_TYPE[default]
    known = BY_MEDIA_TYPE.get(accept)
    if known is not None:  # costs no parsing
        return known
    offered = sorted(_OFFERED, key=lambda media_type: media_type != default)  # the default first
    return BY_MEDIA_TYPE[best_media_type(accept, offered)]
