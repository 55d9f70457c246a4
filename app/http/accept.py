"""Content negotiation of media types (RFC 9110, section 12.5)."""

from collections.abc import Iterator, Sequence

from app.problems.problem import Problem


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


def _ranges(accept: str) -> Iterator[tuple[str, float]]:
    for item in accept.lower().split(","):
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
