"""Fit of a companion to training rows: expectation maximisation, components doubled while held-out rows gain."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from flows.families.gaussian_mixture import MixtureOfGaussians
from flows.flow import Flow
from flows.mixed.companion import Companion, patterns
from flows.mixed.encoding import TableEncoding
from flows.specs.columns import Layout, MixedColumn

# Numbers of components that are tried until held-out rows gain less than this, in nats.
COUNTS, GAIN = (1, 2, 4, 8, 16), 0.01
# Iterations for each number at most, and the gain in nats per row that ends them earlier.
ITERATIONS, SMALL_GAIN = 15, 1e-3
# Most rows that are fitted to, most numbers of their levels and most products of their values, and rows a
# component at least, besides two for each continuous column.
MOST_ROWS, MOST_ONE_HOT, MOST_PRODUCTS, ROWS_A_COMPONENT = 10_000, 2**23, 2**26, 30
MOST_HELD_OUT = 5_000
# Most continuous columns, most levels of all variables, and most numbers of all covariances.
MOST_CONTINUOUS, MOST_SLOTS, MOST_NUMBERS = 512, 2**13, 2**20
# Different sets of absent values that are told apart; rarer ones count as the largest of these within them.
MOST_PATTERNS = 32
_STEP_ROWS = 2048
# Rows' worth of the overall distribution that a component's tables and its covariance are drawn towards.
_PRIOR_LEVELS, _PRIOR_ROWS, _PRIOR_VARIANCE = 1.0, 2.0, 0.1


def layout_of(flow: Flow) -> Layout:
    """Return the places of the cells in the model's rows, of a flow of any family."""
    if isinstance(flow.preprocessing, TableEncoding):
        return flow.preprocessing.layout
    return Layout([MixedColumn()] * flow.dim)


def needs_companion(flow: Flow) -> bool:
    """Return whether a flow is to have a companion: a small one without a context, and not its own."""
    layout = layout_of(flow)
    small = len(layout.continuous) <= MOST_CONTINUOUS and layout.slots <= MOST_SLOTS
    own = isinstance(flow.transform, MixtureOfGaussians)
    return small and not own and flow.context_dim == 0


@torch.no_grad()
def fit_companion(
    flow: Flow,
    train: Tensor,
    held_out: Tensor,
    *,
    seed: int,
    alive: Callable[[], None] = lambda: None,
) -> Companion | None:
    """Return the companion of a flow, fitted to rows in seconds; None if it can have none.

    It depends on the preprocessing of the flow and the rows alone; the same rows and seed give the same one.
    See `flows.compiled.calibration.companion_of` for the rows that it is fitted to.

    Args:
        flow: Flow with the preprocessing of its data.
        train: Rows to fit to, in the data's units.
        held_out: Rows that choose the number of components.
        seed: Seed of the noise of discrete columns and of the starts.
        alive: Function that is called after each iteration.
    """
    if not needs_companion(flow):
        return None
    layout, generator = layout_of(flow), torch.Generator().manual_seed(seed)
    width, slots = len(layout.continuous), layout.slots
    most = min(MOST_ROWS, MOST_ONE_HOT // max(1, slots), MOST_PRODUCTS // (width + 1) ** 2)
    rows, others = (
        _Rows.of(flow, layout, some, most=limit, generator=generator)
        for some, limit in ((train, most), (held_out, MOST_HELD_OUT))
    )
    if len(rows) < 2 or len(others) == 0:
        return None
    best = _overall(layout, rows)
    reached = _mean_log_prob(best, others)
    companion = best
    for count in COUNTS[1:]:
        if count * (width**2 + slots) > MOST_NUMBERS:
            break
        if count * (ROWS_A_COMPONENT + 2 * width) > len(rows):
            break
        companion = _fitted(_split(companion, generator), rows, best, alive)
        found = _mean_log_prob(companion, others)
        if not found > reached + GAIN:
            break
        best, reached = companion, found
    return best


@dataclass(frozen=True, eq=False)
class _Rows:
    """Rows of the model, their variables one-hot, grouped by which continuous values are there."""

    rows: Tensor
    one_hot: Tensor
    values: Tensor
    groups: list[tuple[Bool[Tensor, " continuous"], Tensor]]

    def __len__(self) -> int:
        return len(self.rows)

    @classmethod
    def of(
        cls, flow: Flow, layout: Layout, table: Tensor, *, most: int, generator: torch.Generator
    ) -> "_Rows":
        table = table[:: -(-len(table) // most)].to(flow.device).double()
        encoding = flow.preprocessing
        rows = torch.cat(
            [
                encoding.encode(encoding.spread(piece, generator=generator))[0]
                for piece in torch.split(table, 4096)
            ]
        )
        rows = rows.double().cpu()
        rows = rows[rows.isfinite().all(dim=1)]
        indices, values = rows.tensor_split([len(layout.variables)], dim=1)
        one_hot = torch.zeros(len(rows), layout.slots, dtype=torch.float64)
        companion = Companion(layout, 1)
        for place, (start, variable) in enumerate(
            zip(companion.starts, layout.variables, strict=True)
        ):
            known = (indices[:, place] >= 0) & (indices[:, place] < variable.size)
            at = known.nonzero()[:, 0]
            one_hot[at, start + indices[at, place].long()] = 1.0
        there = _coarsened(companion.present(rows))
        return cls(rows, one_hot, values, list(patterns(there)))


def _coarsened(there: Bool[Tensor, "rows continuous"]) -> Bool[Tensor, "rows continuous"]:
    """Return masks of which at most `MOST_PATTERNS` differ: rare ones are parts of what is there."""
    if there.shape[1] == 0:
        return there  # a table of levels alone
    different, numbers, counts = torch.unique(there, dim=0, return_inverse=True, return_counts=True)
    if len(different) <= MOST_PATTERNS:
        return there
    common = different[counts.topk(MOST_PATTERNS - 1).indices]
    common = torch.cat([common, torch.zeros_like(common[:1])])
    inside = (common.double() @ (~different).double().t()) == 0
    size = common.sum(dim=1, keepdim=True).double()
    nearest = torch.where(inside, size, -1.0).argmax(dim=0)
    return common[nearest][numbers]


def _overall(layout: Layout, rows: _Rows) -> Companion:
    """Return one component: the frequencies, and the mean and covariance of what is there."""
    companion = Companion(layout, 1)
    for start, variable in zip(companion.starts, layout.variables, strict=True):
        part = slice(start, start + variable.size)
        counts = rows.one_hot[:, part].sum(dim=0) + 0.5
        companion.log_levels[0, part] = (counts / counts.sum()).log()
    companion.covariances[0].fill_diagonal_(1.0)
    return _fitted(companion, rows, companion, lambda: None)


def _split(companion: Companion, generator: torch.Generator) -> Companion:
    """Return twice as many components, each pair around one of before."""
    count = companion.components
    double = Companion(companion.layout, 2 * count)
    factors = torch.linalg.cholesky(companion.covariances)
    direction = torch.randn(companion.means.shape, generator=generator, dtype=torch.float64)
    direction /= direction.norm(dim=1, keepdim=True).clamp(min=1e-9)
    step = torch.einsum("kij,kj->ki", factors, direction)
    bend = torch.randn(companion.log_levels.shape, generator=generator, dtype=torch.float64) / 2
    for part, sign in ((slice(0, count), 1.0), (slice(count, None), -1.0)):
        double.log_weights[part] = companion.log_weights
        double.means[part] = companion.means + sign * step
        double.covariances[part] = companion.covariances
        double.log_levels[part] = companion.log_levels + sign * bend
    double.log_weights -= double.log_weights.logsumexp(dim=0)
    for start, variable in zip(double.starts, double.layout.variables, strict=True):
        part = slice(start, start + variable.size)
        double.log_levels[:, part] = double.log_levels[:, part].log_softmax(dim=1)
    return double


def _fitted(
    companion: Companion, rows: _Rows, towards: Companion, alive: Callable[[], None]
) -> Companion:
    """Return a companion after some iterations; its tables are drawn towards those of a simpler one."""
    overall = towards.log_weights.exp() @ towards.log_levels.exp()
    before = -torch.inf
    for _ in range(ITERATIONS):
        companion, reached = _step(companion, rows, overall)
        alive()
        if reached - before < SMALL_GAIN:
            break
        before = reached
    return companion


def _log_terms(companion: Companion, rows: _Rows) -> Float[Tensor, "rows components"]:
    total = rows.one_hot @ companion.log_levels.t()
    for mask, places in rows.groups:
        total[places] += companion.log_terms(rows.rows[places], mask)
    return total


def _mean_log_prob(companion: Companion, rows: _Rows) -> float:
    return float(_log_terms(companion, rows).logsumexp(dim=1).mean())


def _step(companion: Companion, rows: _Rows, overall: Tensor) -> tuple[Companion, float]:
    """Return a companion after one iteration, and the mean log density of the rows before it."""
    terms = _log_terms(companion, rows)
    shares = terms.softmax(dim=1)
    moved = Companion(companion.layout, companion.components)
    weights = shares.sum(dim=0)
    moved.log_weights.copy_(((weights + 1.0) / (weights + 1.0).sum()).log())
    counts = shares.t() @ rows.one_hot
    for start, variable in zip(companion.starts, companion.layout.variables, strict=True):
        part = slice(start, start + variable.size)
        table = counts[:, part] + _PRIOR_LEVELS * overall[part]
        moved.log_levels[:, part] = (table / table.sum(dim=1, keepdim=True)).log()
    sums = torch.zeros_like(companion.means)
    squares = torch.zeros_like(companion.covariances)
    # Moments around the present means keep their digits.
    for mask, places in rows.groups:
        absent = ~mask
        inner = companion.covariances[:, mask][:, :, mask]
        across = companion.covariances[:, mask][:, :, absent]
        gain = torch.linalg.solve(inner, across) if bool(mask.any()) else across
        left = companion.covariances[:, absent][:, :, absent] - across.mT @ gain
        for some in torch.split(places, _STEP_ROWS):
            share = shares[some].t()[:, :, None]
            centred = torch.zeros(len(gain), len(some), len(mask), dtype=torch.float64)
            centred[:, :, mask] = rows.values[some][:, mask] - companion.means[:, None, mask]
            centred[:, :, absent] = centred[:, :, mask] @ gain
            weighted = centred * share
            sums += weighted.sum(dim=1)
            squares += weighted.mT @ centred
        spread = shares[places].sum(dim=0)[:, None, None] * left
        squares[:, absent.nonzero(), absent.nonzero()[:, 0]] += spread
    step = sums / weights.clamp(min=1e-6)[:, None]
    scatter = squares - weights[:, None, None] * step[:, :, None] * step[:, None]
    prior = _PRIOR_VARIANCE * torch.eye(len(sums[0]), dtype=torch.float64)
    covariances = (scatter + _PRIOR_ROWS * prior) / (weights + _PRIOR_ROWS)[:, None, None]
    moved.means.copy_(companion.means + step)
    moved.covariances.copy_(0.5 * (covariances + covariances.mT))
    return moved, float(terms.logsumexp(dim=1).mean())
