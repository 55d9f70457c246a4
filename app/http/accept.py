"""Content negotiation: media types, codings and preferences (RFC 9110, section 12.5)."""

import re
from collections.abc import Iterator, Sequence

from starlette.datastructures import Headers

from app.problems.problem import Problem

IDENTITY = "identity"
_LEAST = 1e-3  # RFC 9110 has no smaller quality but 0
_ITEM = re.compile(
    r'(?:[^,"]|"(?:[^"\\]|\\.)*+"?)++'
)  # a comma between quotes, or after a lone one, separates nothing


def listed(headers: Headers, name: str) -> str | None:
    """Return a list header, its lines joined (RFC 9110, 5.3); None if there is none."""
    lines = headers.getlist(name)
    return ", ".join(lines) if lines else None


def best_media_type(accept: str | None, offered: Sequence[str]) -> str:
    """Return the offered media type with the highest quality; the first one of equals.

    Args:
        accept: `Accept` header; None or empty accepts everything.
        offered: Media types without parameters, in lower case.

    Raises:
        Problem: `not-acceptable`.
    """
    ranges = dict(_ranges(accept or "")) or {"*/*": 1.0}
    best = max(offered, key=lambda media_type: _quality(media_type, ranges))
    if _quality(best, ranges) <= 0:
        raise Problem(
            "not-acceptable",
            f"This route responds with {', '.join(offered)}.",
            members={"supported": list(offered)},
        )
    return best


def best_coding(accept_encoding: str | None, offered: Sequence[str]) -> str:
    """Return the content coding with the highest quality; the first one of equals.

    Args:
        accept_encoding: `Accept-Encoding` header; without it only `identity` is chosen.
        offered: Codings in lower case, `identity` among them; if that comes first, it is chosen
            unless it is refused. When none is acceptable, `identity` is chosen, too: that serves a
            caller better than an error.
    """
    if not accept_encoding:
        return IDENTITY
    # `x-gzip` is an old name of `gzip`.
    codings = {name.removeprefix("x-"): value for name, value in _ranges(accept_encoding)}
    others = codings.get("*", 0.0)
    # `identity` need not be listed; it is refused only by name.
    unlisted = 1.0 if offered[0] == IDENTITY else _LEAST
    plain = codings.get(IDENTITY, min(unlisted, codings.get("*", unlisted)))

    def quality(coding: str) -> float:
        return plain if coding == IDENTITY else codings.get(coding, others)

    best = max(offered, key=quality)
    return best if quality(best) > 0 else IDENTITY


def preferences(prefer: str | None) -> frozenset[str]:
    """Return the names of preferences, in lower case (RFC 7240).

    Args:
        prefer: `Prefer` header, if there is one.
    """
    items = _ITEM.findall((prefer or "").lower())
    return frozenset(re.split("[;=]", item, maxsplit=1)[0].strip() for item in items)


def _ranges(accept: str) -> Iterator[tuple[str, float]]:
    for item in _ITEM.findall(accept.lower()):
        media_range, *parameters = (piece.strip() for piece in item.split(";"))
        if not media_range:  # an empty element of a list counts for nothing
            continue
        quality = 1.0
        for parameter in parameters:
            name, _, value = parameter.partition("=")
            if name.rstrip() == "q":
                quality = _number(value)
        yield media_range, quality


def _number(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        return 0.0
    return value if 0 <= value <= 1 else 0.0


def _quality(media_type: str, ranges: dict[str, float]) -> float:
    kind = media_type.partition("/")[0]
    for media_range in (media_type, f"{kind}/*", "*/*"):
        if media_range in ranges:
            return ranges[media_range]
    return 0.0
