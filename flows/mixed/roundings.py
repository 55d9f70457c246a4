"""Rounding of samples as the values of the training rows are rounded, decade by decade.

People write 35 more often than 35.5, and 0.683 but 1.27. Per decade of the absolute value a column has
the shares of the values that are rounded to each step, from the decade itself to its two-thousandth.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from flows.specs.mixed import DECADES, STEPS

Values = Float[Tensor, "rows columns"]
Numbers = Int[Tensor, "rows columns"]

_LOWEST = -6  # the power of ten of the first decade, to which all smaller values belong
_PER_DECADE = (1, 2, 10, 20, 100, 200, 1000, 2000)  # each divides the next
_LEAST_SHARE = 0.01  # less may be chance, and would move values far
_FEWEST_STEPS = 8  # that most values of a decade span; rounding to larger ones would move them far
_EDGE = 0.05  # share of the values outside of these
_TOLERANCE = 1e-6
_SCATTER = 9973.0  # the digits beyond those that are kept choose between two steps


def measure_roundings(values: Float[Tensor, " rows"]) -> Float[Tensor, "decades steps"]:
    """Return for each decade the share of the values that are rounded to a step or a coarser one.

    A value on a fine grid that is on a coarser one by chance counts for the fine one.

    Args:
        values: Continuous values of training rows, without noise.
    """
    shares = torch.zeros(DECADES, STEPS, dtype=torch.float64)
    decades = _decades(values)
    for decade in sorted(set(decades.tolist())):
        inside = values[decades == decade].double()
        unit = 10.0 ** (decade + _LOWEST)
        counts = torch.stack([inside / unit * steps for steps in _PER_DECADE])
        on_grid = (counts - counts.round()).abs() < _TOLERANCE
        edges = torch.quantile(counts[-1], counts.new_tensor([_EDGE, 1 - _EDGE]))
        spanned = float(edges[1] - edges[0]) * counts.new_tensor(_PER_DECADE) / _PER_DECADE[-1]
        shares[decade] = _without_chance(on_grid.double().mean(dim=1), spanned >= _FEWEST_STEPS)
    return shares


def round_like(
    values: Values,
    shares: Float[Tensor, "columns decades steps"],
    spikes: Float[Tensor, "columns spikes"],
) -> Values:
    """Return values rounded to steps that occur as often as the shares say.

    The step is a function of the value alone, so that the same noise gives the same sample.

    Args:
        values: Continuous values; NaN stays.
        shares: Result of `measure_roundings` of each column.
        spikes: Values that no continuous value is rounded to, ascending, infinite where a column has fewer.
    """
    decades = _decades(values)
    draws = torch.frac(values.abs() / 10.0 ** (decades + _LOWEST) * _SCATTER)
    columns = torch.arange(len(shares), device=values.device)
    level = torch.zeros_like(decades)
    for step in range(STEPS):
        level += shares[:, :, step].double()[columns, decades] <= draws
    rounded = _to_multiple(values, decades, level)
    for finer, other in ((0, True), (1, False), (1, True)):
        instead = _to_multiple(values, decades, level + finer, other=other)
        rounded = torch.where(_equal(rounded, spikes), instead, rounded)
    return torch.where(_equal(rounded, spikes), values, rounded)


def _decades(values: Tensor) -> Tensor:
    """Return the number of the decade of each value, counted from the first one."""
    power = values.double().abs().log10().add(1e-12).floor() - _LOWEST
    return power.nan_to_num(0.0).clamp(0, DECADES - 1).long()


def _without_chance(
    found: Float[Tensor, " steps"], usable: Bool[Tensor, " steps"]
) -> Float[Tensor, " steps"]:
    """Return cumulative shares, from the shares of the values that lie on each grid.

    Args:
        found: Share of the values that lie on each grid.
        usable: Mask of the grids of which the values span enough steps; on others they lie by chance.
    """
    per_decade = torch.tensor(_PER_DECADE, dtype=torch.float64)
    # The share of the multiples of each step, by column, that are multiples of another, by row.
    chance = (per_decade[:, None] / per_decade).clamp(max=1.0)
    own = torch.linalg.solve(chance, found)
    own = torch.where((own < _LEAST_SHARE) | ~usable, 0.0, own)
    return (own / own.sum().clamp(min=1e-12) * found[-1]).cumsum(dim=0)


def _to_multiple(
    values: Values, decades: Numbers, level: Numbers, *, other: bool = False
) -> Values:
    """Return the nearest multiples of steps, or the nearest on the other side; none beyond `STEPS`."""
    per_decade = values.new_tensor([*_PER_DECADE, 1, 1])[level]
    power = (decades + _LOWEST).double()
    # A hundredth is no binary number: a quotient of whole ones is as near as there is.
    many, few = 10.0 ** (-power).clamp(min=0.0), 10.0 ** power.clamp(min=0.0)
    counts = values / few * many * per_decade
    number = counts.round()
    if other:
        number = number + torch.where(counts < number, -1.0, 1.0)
    return torch.where(level < STEPS, number * few / (many * per_decade), values)


def _equal(values: Values, spikes: Float[Tensor, "columns spikes"]) -> Bool[Tensor, "rows columns"]:
    found = torch.zeros_like(values, dtype=torch.bool)
    if spikes.shape[1] == 0:
        return found
    wanted, listed = values.double().t().contiguous(), spikes.double()
    above = torch.searchsorted(listed, wanted)
    for place in (above - 1, above):
        spike = listed.gather(1, place.clamp(0, spikes.shape[1] - 1)).t()
        found |= (values - spike).abs() < _TOLERANCE * (1.0 + spike.abs())
    return found & values.isfinite()
