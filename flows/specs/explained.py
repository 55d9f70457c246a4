"""Which columns of mixed rows have explanations, and what these take."""

from typing import Literal

from flows.specs.columns import Layout

# Most levels of a column whose marginal is computed by a sum over them. Where cells can be hidden, there
# is another way, which takes one pass, for columns of more levels, and for all where sums would take
# more passes in all.
MOST_LEVELS, MOST_SUMMED, MOST_PASSES = 64, 16, 128


Explained = Literal["exact", "learnt", "unavailable"]


def explained(layout: Layout) -> list[bool]:
    """Return which columns have explanations.

    Where cells can be hidden, all have; otherwise those whose explanations are exact.
    """
    exact = explained_exactly(layout)
    return [layout.hides or known for known in exact]


def explained_exactly(layout: Layout) -> list[bool]:
    """Return which columns have exact explanations: those of few levels, by a sum over their levels."""
    if not layout.hides:
        return [0 < column.levels <= MOST_LEVELS for column in layout.columns]
    few = [0 < column.levels <= MOST_SUMMED for column in layout.columns]
    passes = sum(c.states + 1 for c, known in zip(layout.columns, few, strict=True) if known)
    return few if passes <= MOST_PASSES else [False] * len(few)


def explained_kinds(layout: Layout) -> list[Explained]:
    """Return how each column is explained: by a sum over its levels, as learnt, or not at all."""
    kinds = zip(explained(layout), explained_exactly(layout), strict=True)
    return ["exact" if exact else "learnt" if known else "unavailable" for known, exact in kinds]


def explaining_passes(layout: Layout) -> int:
    """Return the passes over the network that explain a batch of rows."""
    kinds = zip(layout.columns, explained(layout), explained_exactly(layout), strict=True)
    return 1 + sum(column.states + 1 if exact else 1 for column, known, exact in kinds if known)
