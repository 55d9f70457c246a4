"""Names and fields of a request, fit to be shown in a problem."""

from collections.abc import Iterable, Mapping, Sequence

from app.problems.problem import FieldError

MAX_ERRORS = 20
_MAX_NAME = 128
_NAMED = 5


def shown_names(names: Iterable[str]) -> list[str]:
    """Return the first few of a caller's names, fit to be shown."""
    return [shown(name) for name, _ in zip(names, range(MAX_ERRORS), strict=False)]


def named(kinds: Mapping[str, Sequence[str]]) -> str:
    """Return the first names of each kind in words: "Missing: a, b. Unknown: c.".

    Args:
        kinds: Names that a caller sent or that a model has, by a word for what they have in common;
            a kind without names is left out.
    """
    return " ".join(
        f"{kind}: {', '.join(map(shown, names[:_NAMED]))}"
        f"{f' and {len(names) - _NAMED} more' if len(names) > _NAMED else ''}."
        for kind, names in kinds.items()
        if names
    )


def listed(names: Sequence[str], most: int = MAX_ERRORS) -> str:
    """Return the first names in words: "'a', 'b' and 3 more"."""
    first = ", ".join(repr(name) for name in names[:most])
    return first if len(names) <= most else f"{first} and {len(names) - most} more"


def shown(name: str | int) -> str:
    """Return a caller's name, short and encodable: it may be megabytes long or half a surrogate pair."""
    return str(name)[:_MAX_NAME].encode(errors="replace").decode()


def pointer(*path: str | int) -> str:
    """Return a JSON pointer (RFC 6901)."""
    return "".join("/" + shown(part).replace("~", "~0").replace("/", "~1") for part in path)


def field_error(detail: str, *path: str | int) -> FieldError:
    """Return an error that points into the body."""
    return FieldError(detail, pointer=pointer(*path))
