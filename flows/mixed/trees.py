"""Trees of discrete variables, from the smoothed tables of pairs of them (Chow and Liu 1968)."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

# Rows that the gains of pairs are counted in, and slots of all variables up to which pairs are counted.
MOST_ROWS, MOST_SLOTS = 20_000, 2_048
# Strengths by which the table of a pair may be drawn to a distribution of the child alone, in rows.
STRENGTHS = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0)
# Rows that each level counts for beside its own.
PSEUDO_COUNT = 0.5

Indices = Float[Tensor, "rows variables"]
"""Indices of levels, as floats; a negative one or NaN is no level."""


@dataclass(frozen=True)
class Tree:
    """Forest of variables: P(d) is the product of P(d_i | d_parent(i)).

    Attributes:
        order: Variables, each after its parent.
        parents: Parent of each variable; -1 for one that depends on none.
    """

    order: list[int]
    parents: list[int]


def tree_of(
    indices: Indices, sizes: Sequence[int], *, weights: Float[Tensor, " rows"] | None = None
) -> Tree:
    """Return the forest of the largest gain in the Bayesian information criterion.

    The order is that of Prim's algorithm: the parent of each variable is the earlier one of the largest
    gain, so that `parents_in_order` finds the same parents again.

    Args:
        indices: Indices of the levels of training rows.
        sizes: Number of levels of each variable.
        weights: Weights of the rows; None for 1 each.
    """
    gains = pair_gains(indices, sizes, weights=weights)
    count = len(sizes)
    order = [int(gains.clamp(min=0).sum(dim=0).argmax())] if count else []
    best, parents = gains[order[0]].clone() if count else gains, [-1] * count
    origin = [order[0]] * count if count else []
    left = set(range(count)) - set(order)
    while left:
        # Of equal ones the first, so that the order depends on nothing else.
        chosen = max(sorted(left), key=lambda place: float(best[place]))
        parents[chosen] = origin[chosen] if float(best[chosen]) > 0 else -1
        order.append(chosen)
        left.remove(chosen)
        for place in left:
            if float(gains[chosen, place]) > float(best[place]):
                best[place], origin[place] = gains[chosen, place], chosen
    return Tree(order, parents)


def parents_in_order(gains: Float[Tensor, "variables variables"]) -> list[int]:
    """Return for each variable the earlier one of the largest gain; -1 where none gains."""
    parents = [-1] * len(gains)
    for place in range(1, len(gains)):
        best = int(gains[place, :place].argmax())
        parents[place] = best if float(gains[place, best]) > 0 else -1
    return parents


def pair_gains(
    indices: Indices, sizes: Sequence[int], *, weights: Float[Tensor, " rows"] | None = None
) -> Float[Tensor, "variables variables"]:
    """Return what the dependence of each pair gains in the Bayesian information criterion, in nats.

    It is their mutual information times the rows, less half of the logarithm of the rows for each further
    parameter. Variables of many levels, in all more than `MOST_SLOTS`, gain nothing.
    """
    count = len(sizes)
    gains = torch.full((count, count), -torch.inf, dtype=torch.float64)
    stride = max(1, -(-len(indices) // MOST_ROWS))
    some = indices[::stride]
    each = torch.ones(len(some), dtype=torch.float64) if weights is None else weights[::stride]
    chosen, slots = [], 0
    for place in sorted(range(count), key=lambda place: sizes[place]):
        slots += sizes[place]
        if slots <= MOST_SLOTS:
            chosen.append(place)
    if len(chosen) < 2:
        return gains
    ones = [_one_hot(some[:, place], sizes[place]) for place in chosen]
    hot = torch.cat(ones, dim=1)
    joint = (hot * each[:, None].float()).t() @ hot
    parts = [sizes[place] for place in chosen]
    blocks = [torch.split(row, parts, dim=1) for row in torch.split(joint.double(), parts, dim=0)]
    rows = float(each.sum())
    for a, one in enumerate(chosen):
        for b in range(a):
            table = blocks[a][b]
            seen = [int((table.sum(dim=side) > 0).sum()) for side in (0, 1)]
            further = max(0, seen[0] - 1) * max(0, seen[1] - 1)
            gain = _information(table) - 0.5 * further * _log(rows)
            gains[one, chosen[b]] = gains[chosen[b], one] = gain * len(indices) / len(some)
    return gains


def smoothed_log_table(
    child: Float[Tensor, " rows"],
    parent: Float[Tensor, " rows"],
    sizes: tuple[int, int],
    *,
    weights: Float[Tensor, " rows"] | None = None,
) -> Float[Tensor, "parent_levels child_levels"]:
    """Return log P(child | parent): counts, drawn to the frequencies of the child and to equal ones.

    It is the mean of the tables of all strengths of both, weighed by their leave-one-out likelihoods.

    Args:
        child: Indices of the levels of one variable.
        parent: Indices of those of the other.
        sizes: Numbers of levels of the child and of the parent.
        weights: Weights of the rows; None for 1 each.
    """
    counts = pair_counts(child, parent, sizes, weights=weights)
    totals = counts.sum(dim=1, keepdim=True)
    alone = log_frequencies(child, sizes[0], weights=weights).exp()
    even = torch.full_like(alone, 1 / sizes[0])
    left, others = (counts - 1).clamp(min=0), (totals - 1).clamp(min=0)
    ways = [(one, base) for base in (alone, even) for one in STRENGTHS]
    likelihoods = [
        (counts * ((left + one * base).log() - (others + one).log())).sum() for one, base in ways
    ]
    shares = torch.stack(likelihoods).softmax(dim=0).tolist()
    table = torch.zeros_like(counts)
    for share, (one, base) in zip(shares, ways, strict=True):
        table += share * (counts + one * base) / (totals + one)
    return table.log()


def log_frequencies(
    indices: Float[Tensor, " rows"], size: int, *, weights: Float[Tensor, " rows"] | None = None
) -> Float[Tensor, " levels"]:
    """Return the logarithms of the frequencies of the levels of one variable, none of them 0."""
    known = (indices >= 0) & (indices < size)
    each = None if weights is None else weights[known].double()
    counts = torch.bincount(indices[known].long(), weights=each, minlength=size).double()
    counts = counts + PSEUDO_COUNT
    return (counts / counts.sum()).log()


def pair_counts(
    child: Float[Tensor, " rows"],
    parent: Float[Tensor, " rows"],
    sizes: tuple[int, int],
    *,
    weights: Float[Tensor, " rows"] | None = None,
) -> Float[Tensor, "parent_levels child_levels"]:
    """Return the rows of each pair of levels."""
    known = (child >= 0) & (child < sizes[0]) & (parent >= 0) & (parent < sizes[1])
    places = parent[known].long() * sizes[0] + child[known].long()
    each = None if weights is None else weights[known].double()
    counts = torch.bincount(places, weights=each, minlength=sizes[0] * sizes[1])
    return counts.double().view(sizes[1], sizes[0])


def _one_hot(indices: Float[Tensor, " rows"], size: int) -> Float[Tensor, "rows levels"]:
    return (indices[:, None] == torch.arange(size, device=indices.device)).float()


def _information(table: Float[Tensor, "a b"]) -> float:
    """Return the mutual information of two variables times their rows."""
    total = table.sum()
    if float(total) <= 0:
        return 0.0
    expected = table.sum(dim=1, keepdim=True) * table.sum(dim=0, keepdim=True) / total
    found = table * (table.clamp(min=1e-300).log() - expected.clamp(min=1e-300).log())
    return float(found.sum())


def _log(rows: float) -> float:
    return float(torch.tensor(max(rows, 1.0), dtype=torch.float64).log())
