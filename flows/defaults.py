"""Default flows and options of training: what suits a table of numbers, a search or a target.

`docs/defaults.md` has the measurements behind them.
"""

from collections.abc import Iterator
from math import ceil

from flows.mixed.defaults import MOST_SPLINES, is_wide
from flows.specs.catalogue import FlowSpec
from flows.specs.family import FamilySpec
from flows.specs.gaussian import GaussianSpec
from flows.specs.gaussian_mixture import GaussianMixtureSpec
from flows.specs.made import MadeSpec
from flows.specs.maf import MafSpec
from flows.specs.mixed import MixedSpec
from flows.specs.naf import NafSpec
from flows.specs.nsf import NsfSpec
from flows.specs.planar import PlanarSpec
from flows.specs.real_nvp import RealNvpSpec

SMALL_TABLE, LARGE_TABLE = 10_000, 100_000
"""Rows from which on a table of numbers is no longer small, and from which on it is large."""

_FEW_COLUMNS = 8
_LEAST_AFFINE = 5  # columns from which on splines follow affine layers in tables that are not small
_COMPONENTS = 8  # of the mixture of one column
_SCALE_BOUND = 6.9
_STEPS_A_COLUMN, _FEWEST_STEPS, _MOST_STEPS = 200, 1000, 100_000
_RATE_OF_SPLINES = 3e-3
_ITERATIONS = 1000


def default_flow(rows: int, columns: int) -> FamilySpec:
    """Return the default flow of a table of numbers, which grows with the table.

    One column gets a mixture of Gaussians, whose parameters a network gives where there is context.
    Up to `MOST_SPLINES` columns get splines, more columns a MAF: the parameters of splines take
    memory by column, and of few rows of many columns they learn what is chance. From five columns on, if there are enough rows to learn from, the splines follow
    affine layers: some columns of wide tables nearly follow from others. The MAF has tanh units and
    no batch norm: real tables have far outliers, on which ReLU conditioners extrapolate exponentially
    and the statistics of a batch differ from those of all rows. It has no more units than there are rows.
    """
    width = 32 if rows < SMALL_TABLE else 64 if rows < LARGE_TABLE else 128
    if columns == 1:
        return MadeSpec(conditional="mixture", components=_COMPONENTS, hidden=[width, width])
    if columns <= MOST_SPLINES and not is_wide(rows, columns):
        hidden = [width, width]
        if rows >= SMALL_TABLE and columns >= _LEAST_AFFINE:
            return NsfSpec(layers=2, hidden=hidden, activation="relu", affine_layers=3)
        return NsfSpec(layers=5, hidden=hidden, activation="relu")
    layers = 5 if rows >= SMALL_TABLE else 3
    # Units beyond the number of rows cost time and learn nothing.
    width = max(width, min(1024, 2 * columns, rows))
    return MafSpec(layers=layers, hidden=[width, width], activation="tanh", batch_norm=None)


def candidate_flows(default: FlowSpec, columns: int, *, effort: int) -> Iterator[FamilySpec]:
    """Yield the flows that a search tries beside the default, as wide as that one.

    Args:
        default: Default flow of the table.
        effort: Size of the search, from 0 to 2.
    """
    hidden = [max(32, *getattr(default, "hidden", [32]))] * 2
    yield GaussianMixtureSpec()
    yield MafSpec(layers=5, hidden=hidden, activation="tanh", batch_norm=None)
    yield NsfSpec(layers=3, hidden=hidden, activation="relu")
    if effort == 0:
        return
    yield MafSpec(layers=3, hidden=hidden, activation="tanh", batch_norm=None, base="made_mixture")
    if effort == 2:
        yield NsfSpec(layers=5, hidden=hidden, activation="relu", coupling=True)
        yield RealNvpSpec(
            layers=8, hidden=hidden[:1], batch_norm=None, log_scale_bound=_SCALE_BOUND
        )
        if columns <= _FEW_COLUMNS:
            yield NafSpec(layers=2, hidden=hidden[:1])
        wide = [2 * width for width in hidden]
        yield MafSpec(layers=8, hidden=wide, activation="tanh", batch_norm=None)
        yield NsfSpec(layers=5, hidden=wide, activation="relu")


def default_for_target(dim: int, *, is_gaussian: bool) -> FamilySpec:
    """Return the flow of a target: the exact family, couplings, or a planar flow in one dimension."""
    if is_gaussian:
        return GaussianSpec()
    if dim == 1:
        return PlanarSpec(layers=32, closed="sampling")
    return RealNvpSpec(layers=8, hidden=[max(64, min(512, 2 * dim))], batch_norm=None)


def default_epochs(flow: FlowSpec, dim: int, *, rows: int, steps: int) -> int:
    """Return 80 epochs for a small table, else 40, more where they have few steps, fewer where they have many; at least 20.

    Tables that are large enough not to be overfitted get 160 for MAFs and MADEs, whose steps are fast,
    140 for splines after affine layers (also beside spikes), and 80 for other splines. A mixture of Gaussians converges
    long before its number of iterations.
    """
    if isinstance(flow, GaussianMixtureSpec):
        return _ITERATIONS
    fewest = max(_FEWEST_STEPS, min(10 * _FEWEST_STEPS, _STEPS_A_COLUMN * dim))
    epochs = 80 if rows < SMALL_TABLE else 40
    spiked = isinstance(flow, MixedSpec) and any(column.spikes for column in flow.columns)
    inner = flow.flow if isinstance(flow, MixedSpec) and spiked else flow
    if rows >= SMALL_TABLE and isinstance(flow, MadeSpec | MafSpec):
        epochs = 160
    elif rows >= SMALL_TABLE and isinstance(inner, NsfSpec) and inner.affine_layers:
        epochs = 140
    elif rows >= SMALL_TABLE and isinstance(flow, NsfSpec):
        epochs = 80
    wanted = min(max(epochs * steps, fewest), _MOST_STEPS)
    return max(20, ceil(wanted / steps))


def default_learning_rate(flow: FlowSpec, dim: int) -> float:
    """Return a rate inversely proportional to the width, as Adam's should be (Yang et al. 2022).

    That of splines after affine layers is twice as high.
    """
    if dim > 128:
        return 1e-4
    if isinstance(flow, MixedSpec) and isinstance(flow.flow, NsfSpec):
        return _RATE_OF_SPLINES
    factor = 0.32 if isinstance(flow, NsfSpec) and flow.affine_layers else 0.16
    return factor / max(32, flow.cost(dim).width)
