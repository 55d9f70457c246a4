"""Companion of a flow: a mixture over all columns, whose marginals and conditionals have a closed form."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from flows.bijections.base import LOG_TWO_PI, Batch
from flows.families.gaussian_mixture import MixtureOfGaussians, inverse_of
from flows.specs.columns import Layout

# Part of the draws from wider components, and how much wider: their tails cover those of the flow.
_WIDE_SHARE, _WIDE_SCALE = 0.15, 2.5
_EDGE = 1e-12
SHARES = np.linspace(0, 1, 101)
"""Shares of quantiles for which a companion says where they are."""


class Companion(nn.Module):
    """Mixture over rows of the model: q(d, y) = sum_k w_k prod_j P_k(d_j) N(y_O; m_k, C_k).

    The variables d_j are categories and the states of numeric cells; y_O are the continuous values that
    are there. All cells of a component are independent but the continuous ones, which share a full
    covariance, so that each marginal and each conditional is such a mixture again.

    Attributes:
        layout: Places of the cells in the rows.
        exact: True if it is the density of the flow itself, and no approximation.
        powers: Power of the flow's density in the probabilities of a category given all else, by column, which are
            a logarithmic opinion pool (Genest and Zidek 1986) that validation rows calibrated.
        own_powers: Power of the companion's own density in it.
        drawn_power: Power of the weights of draws that numbers are predicted by.
        shares: Share of the draws at which the quantile of each of `SHARES` is, by column: intervals are calibrated.
    """

    log_weights: Tensor
    log_levels: Tensor
    means: Tensor
    covariances: Tensor
    powers: Tensor
    own_powers: Tensor
    drawn_power: Tensor
    shares: Tensor

    def __init__(self, layout: Layout, components: int, *, exact: bool = False) -> None:
        """Initialise one without weights, whose buffers are set or loaded then."""
        super().__init__()
        self.layout, self.exact = layout, exact
        width = len(layout.continuous)
        for name, shape in (
            ("log_weights", (components,)),
            ("log_levels", (components, layout.slots)),
            ("means", (components, width)),
            ("covariances", (components, width, width)),
        ):
            self.register_buffer(name, torch.zeros(shape, dtype=torch.float64))
        columns = len(layout.columns)
        self.register_buffer("powers", torch.ones(columns, dtype=torch.float64))
        self.register_buffer("own_powers", torch.zeros(columns, dtype=torch.float64))
        self.register_buffer("drawn_power", torch.ones((), dtype=torch.float64))
        self.register_buffer("shares", torch.from_numpy(SHARES).repeat(columns, 1))
        sizes = [variable.size for variable in layout.variables]
        self.starts = [sum(sizes[:place]) for place in range(len(sizes))]
        places = {variable.column: place for place, variable in enumerate(layout.variables)}
        self.state_places = [places.get(column, -1) for column in layout.continuous]
        """Place of the variable of each continuous value; -1 for one that is always there."""

    @classmethod
    def of_mixture(cls, layout: Layout, mixture: MixtureOfGaussians) -> "Companion":
        """Return a mixture of Gaussians without a context as its own, exact companion."""
        parts = mixture.components()
        factors = inverse_of(parts.factors.double())
        companion = cls(layout, len(parts.means), exact=True)
        companion.log_weights.copy_(parts.log_weights)
        companion.means.copy_(parts.means)
        companion.covariances.copy_(factors @ factors.mT)
        return companion

    @property
    def components(self) -> int:
        """Number of components."""
        return len(self.log_weights)

    def calibration(self) -> dict[str, Tensor]:
        """Return the buffers that say how answers are calibrated, by name."""
        names = ("powers", "own_powers", "drawn_power", "shares")
        return {name: self.get_buffer(name) for name in names}

    def calibrated(self, column: int, shares: Sequence[float]) -> list[float]:
        """Return the shares of draws at which quantiles of a column are."""
        found: list[float] = np.interp(shares, SHARES, self.shares[column].numpy()).tolist()
        return found

    def present(self, rows: Batch) -> Bool[Tensor, "batch continuous"]:
        """Return which continuous values are there: neither gap nor spike nor hidden."""
        found = torch.ones(len(rows), len(self.state_places), dtype=torch.bool)
        for place, state in enumerate(self.state_places):
            if state >= 0:
                found[:, place] = rows[:, state] == 0
        return found

    def log_terms(
        self, rows: Batch, present: Bool[Tensor, " continuous"]
    ) -> Float[Tensor, "batch components"]:
        """Return log w_k N_k of the continuous values of rows, of which all have the same.

        Args:
            rows: Rows of the model.
            present: Continuous values that count, which all of the rows have.
        """
        return self.log_weights.double() + self._of_values(rows, present)[0]

    def conditional(self, rows: Batch, known: Bool[Tensor, "batch columns"]) -> "Conditional":
        """Return the mixture of the cells that are not known, given those that are.

        Args:
            rows: Rows of the model; what they have in unknown columns does not matter.
            known: Cells of the data that are known.
        """
        layout, width = self.layout, len(self.layout.continuous)
        unknown = ~known[:, [variable.column for variable in layout.variables]]
        hidden = ~known[:, layout.continuous]
        log_weights = self.log_weights.double().repeat(len(rows), 1)
        for place, lost in enumerate(unknown.t()):
            index, table = rows[:, place], self._table(place)
            counts = (index >= 0) & (index < table.shape[1]) & ~lost
            level = torch.where(counts, index, 0).long()
            log_weights += torch.where(counts[:, None], table.t()[level], 0.0)
        continuous = hidden.any(dim=0).nonzero()[:, 0].tolist()
        means = rows.new_zeros(len(rows), self.components, len(continuous))
        group = torch.zeros(len(rows), dtype=torch.int64)
        covariances = []
        alike = patterns(torch.cat([self.present(rows) & ~hidden, hidden], dim=1))
        for number, (mask, places) in enumerate(alike):
            present, lost = mask[:width], mask[width:]
            log_terms, z, factors = self._of_values(rows[places], present)
            log_weights[places] += log_terms
            group[places] = number
            whole = self.covariances.double()
            mean, rest = self.means.double()[:, lost], whole[:, lost][:, :, lost]
            if bool(present.any()):
                across = torch.linalg.solve_triangular(
                    factors, whole[:, present][:, :, lost], upper=False
                )
                mean = mean + torch.einsum("bko,koh->bkh", z, across)
                rest = rest - across.mT @ across
            at = lost[continuous].nonzero()[:, 0]
            means[places[:, None], :, at] = mean.expand(len(places), -1, -1).transpose(1, 2)
            covariances.append(rest.new_zeros(self.components, len(continuous), len(continuous)))
            covariances[-1][:, at[:, None], at] = rest
        variables = unknown.any(dim=0).nonzero()[:, 0].tolist()
        return Conditional(
            log_weights=log_weights,
            variables=variables,
            unknown=unknown[:, variables],
            tables=[self._table(place) for place in variables],
            continuous=continuous,
            hidden=hidden[:, continuous],
            states=[
                variables.index(self.state_places[place]) if self.state_places[place] >= 0 else -1
                for place in continuous
            ],
            means=means,
            group=group,
            covariances=torch.stack(covariances),
            limits=torch.tensor([-math.inf, math.inf], dtype=torch.float64).repeat(
                len(continuous), 1
            ),
        )

    def _of_values(
        self, rows: Batch, present: Bool[Tensor, " continuous"]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return log N_k of the values that are there, z, and the Cholesky factors."""
        values = rows[:, len(self.layout.variables) :][:, present]
        covariances = self.covariances.double()[:, present][:, :, present]
        factors = torch.linalg.cholesky(covariances)
        if not bool(present.any()):
            nothing = values.new_zeros(len(rows), self.components)
            return nothing, nothing[:, :, None][:, :, :0], factors
        z = (values[:, None] - self.means.double()[:, present]).permute(1, 2, 0)
        z = torch.linalg.solve_triangular(factors, z, upper=False).permute(2, 0, 1)
        scales = factors.diagonal(dim1=1, dim2=2).log().sum(dim=1)
        squares = z.square().sum(dim=2) + values.shape[1] * LOG_TWO_PI
        return -0.5 * squares - scales, z, factors

    def _table(self, place: int) -> Float[Tensor, "components levels"]:
        start = self.starts[place]
        return self.log_levels.double()[:, start : start + self.layout.variables[place].size]


@dataclass(frozen=True, eq=False)
class Draws:
    """Draws of unknown cells.

    Attributes:
        indices: Indices of the variables that are unknown in any row; of no meaning where one is known.
        values: Continuous values that are unknown in any row, 0 where there is none or it is known.
        log_prob: Log density that each was drawn with.
    """

    indices: Float[Tensor, "batch draws variables"]
    values: Float[Tensor, "batch draws continuous"]
    log_prob: Float[Tensor, "batch draws"]


@dataclass(frozen=True, eq=False)
class Conditional:
    """Mixture of unknown cells given known ones, of rows each of which lacks cells of its own.

    Attributes:
        log_weights: Log terms of the components, not normalised, of each scale behind each other.
        variables: Places of the variables that are unknown in any row.
        unknown: Which of them are unknown in each row.
        tables: Log probabilities of the levels of each of them, by component.
        continuous: Places of the continuous values that are unknown in any row.
        hidden: Which of them are unknown in each row.
        states: Place of the state of each of these among the unknown variables; -1 if it has none.
        means: Means of these values.
        group: Number of the covariances of each row.
        covariances: Covariances of these values, of the rows of each group.
        limits: Bounds of these values, in the model's space; infinite where there are none.
        scales: Factors of the standard deviations of these values.
    """

    log_weights: Float[Tensor, "batch terms"]
    variables: list[int]
    unknown: Bool[Tensor, "batch variables"]
    tables: list[Float[Tensor, "components levels"]]
    continuous: list[int]
    hidden: Bool[Tensor, "batch continuous"]
    states: list[int]
    means: Float[Tensor, "batch components continuous"]
    group: Int[Tensor, " batch"]
    covariances: Float[Tensor, "groups components continuous continuous"]
    limits: Float[Tensor, "continuous 2"]
    scales: tuple[float, ...] = (1.0,)

    @property
    def dims(self) -> Int[Tensor, " batch"]:
        """Uniform numbers that a draw of each row takes."""
        return 1 + self.unknown.sum(dim=1) + self.hidden.sum(dim=1)

    @property
    def shares(self) -> Float[Tensor, "batch components"]:
        """Probabilities of the components."""
        terms = self.log_weights.softmax(dim=1)
        return terms.view(len(terms), len(self.scales), -1).sum(dim=1)

    def widened(self) -> "Conditional":
        """Return the mixture with wider components beside its own, to draw from for a flow."""
        parts = (1 - _WIDE_SHARE, _WIDE_SHARE)
        log_weights = torch.cat([self.log_weights + math.log(part) for part in parts], dim=1)
        return replace(self, log_weights=log_weights, scales=(1.0, _WIDE_SCALE))

    def restricted(
        self, allowed: dict[int, Bool[Tensor, " levels"]], limits: dict[int, tuple[float, float]]
    ) -> "Conditional":
        """Return a mixture of cells that are within some bounds: one to draw from, by its own density.

        Args:
            allowed: Levels of an unknown variable that may be, by its place in the rows.
            limits: Bounds of an unknown continuous value in the model's space, by its place.
        """
        log_weights, tables, bounds = self.log_weights, list(self.tables), self.limits.clone()
        for place, levels in allowed.items():
            if place not in self.variables:
                continue
            at = self.variables.index(place)
            table = tables[at].masked_fill(~levels, -math.inf)
            mass = table.logsumexp(dim=1, keepdim=True)
            tables[at] = table - mass
            mass = mass[:, 0].repeat(len(self.scales))
            log_weights = log_weights + torch.where(self.unknown[:, at, None], mass, 0.0)
        for place, ends in limits.items():
            if place not in self.continuous:
                continue
            at = self.continuous.index(place)
            bounds[at] = torch.tensor(ends, dtype=torch.float64)
            scale = self.covariances[:, :, at, at].sqrt()[self.group]
            low, high = ((end - self.means[:, :, at]) / scale for end in ends)
            mass = torch.cat([_mass(low / wide, high / wide) for wide in self.scales], dim=1)
            mass = mass.clamp(min=1e-300).log()
            log_weights = log_weights + torch.where(self.hidden[:, at, None], mass, 0.0)
        # Bounded values come first: each is drawn within its bounds given those before it.
        order = sorted(range(len(bounds)), key=lambda at: bool(bounds[at].isinf().all()))
        return replace(
            self,
            log_weights=log_weights,
            tables=tables,
            continuous=[self.continuous[at] for at in order],
            hidden=self.hidden[:, order],
            states=[self.states[at] for at in order],
            means=self.means[:, :, order],
            covariances=self.covariances[:, :, order][:, :, :, order],
            limits=bounds[order],
        )

    def draw(self, uniforms: Float[Tensor, "batch draws dims"]) -> Draws:
        """Draw unknown cells from uniform numbers: the component's, the variables', the values'.

        Args:
            uniforms: Numbers from 0 to 1, of which a row takes as many as `dims` says.
        """
        rows, count = uniforms.shape[:2]
        uniforms = uniforms.clamp(_EDGE, 1 - _EDGE)
        log_weights = self.log_weights.log_softmax(dim=1)
        ends = log_weights.exp().cumsum(dim=1)
        component = torch.searchsorted(ends, uniforms[:, :, 0].contiguous() * ends[:, -1:])
        component = component.clamp(max=ends.shape[1] - 1).reshape(-1)
        wide = torch.tensor(self.scales, dtype=torch.float64)[component // self.means.shape[1]]
        component = component % self.means.shape[1]
        lost = torch.cat([self.unknown, self.hidden], dim=1)
        places = torch.where(lost, lost.cumsum(dim=1), 0)
        uniforms = uniforms.gather(2, places[:, None].expand(-1, count, -1)).flatten(0, 1)
        log_terms = uniforms.new_zeros(rows * count, self.means.shape[1])
        indices = uniforms.new_zeros(rows * count, len(self.variables))
        unknown = self.unknown.repeat_interleave(count, dim=0)
        for at, table in enumerate(self.tables):
            some = unknown[:, at].nonzero()[:, 0]
            level = _levels(table, component[some], uniforms[some, at])
            indices[some, at] = level.double()
            log_terms[some] += table.t()[level]
        there = self.hidden.repeat_interleave(count, dim=0)
        for at, state in enumerate(self.states):
            if state >= 0:
                there[:, at] &= indices[:, state] == 0
        values = uniforms.new_zeros(rows * count, len(self.continuous))
        log_prob = uniforms.new_zeros(rows * count)
        row = torch.arange(rows).repeat_interleave(count)
        digits = torch.arange(len(self.covariances).bit_length())
        group = self.group[row]
        alike = patterns(torch.cat([there, (group[:, None] >> digits & 1).bool()], dim=1))
        for key, some in alike:
            mask = key[: len(self.continuous)]
            last = uniforms[some, len(self.variables) :][:, mask]
            own = row[some], component[some], wide[some]
            found, log_values = self._values(mask, int(group[some[0]]), last, *own)
            values[some[:, None], mask.nonzero()[:, 0]] = found
            terms = log_terms[some].repeat(1, len(self.scales)) + log_values
            log_prob[some] = (log_weights[row[some]] + terms).logsumexp(dim=1)
        return Draws(
            indices.view(rows, count, -1),
            values.view(rows, count, -1),
            log_prob.view(rows, count),
        )

    def _values(
        self,
        mask: Tensor,
        group: int,
        uniforms: Tensor,
        row: Tensor,
        component: Tensor,
        wide: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Return draws of some of the values, and the log densities of each component and scale there."""
        factors = torch.linalg.cholesky(self.covariances[group][:, mask][:, :, mask])
        means, limits = self.means[:, :, mask][row], self.limits[mask]
        centre = means.gather(1, component[:, None, None].expand(-1, 1, means.shape[2]))[:, 0]
        chosen = factors[component] * wide[:, None, None]
        noise = torch.empty_like(centre)
        for at, (low, high) in enumerate(limits.tolist()):
            if math.isinf(low) and math.isinf(high):
                noise[:, at] = torch.special.ndtri(uniforms[:, at])
                continue
            before = (chosen[:, at, :at] * noise[:, :at]).sum(dim=1) + centre[:, at]
            scale = chosen[:, at, at]
            least, most = ((end - before) / scale for end in (low, high))
            noise[:, at] = _truncated(uniforms[:, at], least, most)
        values = centre + torch.einsum("bij,bj->bi", chosen, noise)
        z = torch.linalg.solve_triangular(
            factors, (values[:, None] - means).permute(1, 2, 0), upper=False
        ).permute(2, 0, 1)
        squares = z.square().sum(dim=2)
        log_scales = factors.diagonal(dim1=1, dim2=2).log().sum(dim=1)
        found = []
        for wide_scale in self.scales:
            constant = mask.sum() * (0.5 * LOG_TWO_PI + math.log(wide_scale)) + log_scales
            found.append(squares * (-0.5 / wide_scale**2) - constant)
        for at, (low, high) in enumerate(limits.tolist()):
            if math.isinf(low) and math.isinf(high):
                break
            scale = factors[:, at, at]
            before = values[:, None, at] - z[:, :, at] * scale
            for place, wide_scale in enumerate(self.scales):
                least, most = ((end - before) / (scale * wide_scale) for end in (low, high))
                found[place] = found[place] - _mass(least, most).clamp(min=1e-300).log()
        return values, torch.cat(found, dim=1)


def patterns(
    masks: Bool[Tensor, "rows columns"],
) -> Iterator[tuple[Bool[Tensor, " columns"], Int[Tensor, " places"]]]:
    """Yield each different mask, and the numbers of the rows that have it."""
    if len(masks) == 0:
        return
    if bool((masks == masks[0]).all()):
        yield masks[0], torch.arange(len(masks))
        return
    packed = np.packbits(masks.numpy(), axis=1)
    packed = np.pad(packed, ((0, 0), (0, -packed.shape[1] % 8)))
    words = packed.view(np.uint64)
    words = words[:, 0] if words.shape[1] == 1 else words  # which is faster
    _, firsts, numbers = np.unique(words, axis=0, return_index=True, return_inverse=True)
    numbers = numbers.reshape(-1)
    order = np.argsort(numbers, kind="stable")
    ends = np.bincount(numbers).cumsum()
    for first, places in zip(firsts.tolist(), np.split(order, ends[:-1]), strict=True):
        yield masks[first], torch.from_numpy(places)


def _levels(table: Tensor, component: Tensor, uniforms: Tensor) -> Tensor:
    """Return levels by the inverse of their distribution functions, each of its component."""
    ends = table.exp().cumsum(dim=1)
    ends = ends / ends[:, -1:]
    # One ascending list of all: that of component k lies between k and k + 1.
    steps = (ends + torch.arange(len(ends))[:, None]).reshape(-1)
    found = torch.searchsorted(steps, component + uniforms, right=False)
    level = found - component * table.shape[1]
    return level.clamp(0, table.shape[1] - 1)


def _mass(low: Tensor, high: Tensor) -> Tensor:
    """Return the probability of a standard Gaussian number between bounds, exact in both tails."""
    flip = low > 0
    least, most = torch.where(flip, -high, low), torch.where(flip, -low, high)
    found: Tensor = torch.special.ndtr(most) - torch.special.ndtr(least)
    return found


def _truncated(uniforms: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Return standard Gaussian numbers between bounds, by the inverse of their distribution function."""
    flip = low > 0
    least, most = torch.where(flip, -high, low), torch.where(flip, -low, high)
    start, stop = torch.special.ndtr(least), torch.special.ndtr(most)
    found = torch.special.ndtri((start + uniforms * (stop - start)).clamp(1e-300, 1 - 1e-16))
    # Where a bound is so far out that its tail underflows, the value is at the bound.
    found = torch.minimum(torch.maximum(found, least), most)
    return torch.where(flip, -found, found)
