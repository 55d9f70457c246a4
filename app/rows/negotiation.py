"""Which format a caller sends rows in, which one the answer has, and how it is compressed."""

from collections.abc import Mapping
from email.message import Message
from email.utils import collapse_rfc2231_value

from app.http.accept import best_media_type
from app.problems.problem import Problem
from app.rows.codecs import BY_MEDIA_TYPE, Codec

_OFFERED = tuple(BY_MEDIA_TYPE)
_CHARSETS = frozenset({"utf-8", "utf8", "us-ascii"})


def request_codec(content_type: str | None) -> tuple[Codec, Mapping[str, str]]:
    """The format of a body, and the parameters of its media type.

    Raises:
        Problem: `media-type`, when there is none or it is not one of ours.
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
    """As `request_codec`; None for what is not one of ours, or text in another charset than UTF-8."""
    codec = BY_MEDIA_TYPE.get(content_type or "")
    if codec is not None:  # the usual case costs no parsing
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


def answer_codec(accept: str | None, *, usual: str = _OFFERED[0]) -> Codec:
    """The format that an `Accept` header likes best.

    Args:
        accept: the header; None takes anything.
        usual: the media type for callers who like all alike.

    Raises:
        Problem: `not-acceptable`, when it takes none of ours.
    """
    if accept is None:
        return BY_MEDIA_TYPE[usual]
    known = BY_MEDIA_TYPE.get(accept)
    if known is not None:  # costs no parsing
        return known
    offered = sorted(_OFFERED, key=lambda media_type: media_type != usual)  # the usual one first
    return BY_MEDIA_TYPE[best_media_type(accept, offered)]
