"""Counts of scored rows as they are stored; workers add them up without numpy."""

from typing import Any

Counts = dict[str, Any]
"""Counts as JSON: `rows`, `ranks`, `unusual`, and by column `columns` and `reasons`."""


def added(one: Any, other: Any) -> Any:  # noqa: ANN401  counts are JSON of some depth
    """Return the sum of two counts, number by number."""
    if isinstance(one, dict):
        return {
            key: added(one[key], other[key]) if key in one and key in other else value
            for key, value in (one | other).items()
        }
    if isinstance(one, list):
        return [added(*pair) for pair in zip(one, other, strict=True)]
    return one + other
