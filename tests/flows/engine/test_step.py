"""The compiled gradient against autograd's, and its steps against those of the reference."""

import copy
import dataclasses
import math
import sys

import pytest
import torch
from torch import Tensor

from flows import (
    EpochReport,
    FitOptions,
    Flow,
    FlowSpec,
    HafSpec,
    MadeSpec,
    MafSpec,
    MixedColumn,
    MixedSpec,
    NafSpec,
    NiceSpec,
    NsfSpec,
    RealNvpSpec,
    build,
    fit,
)
from flows.engine.training import step
from flows.engine.training.program import UnsupportedError
from flows.engine.training.step import CompiledGradient
from flows.families.made import Made
from flows.mixed.density import MixedDensity
from flows.training.robust import bound_losses
from flows.training.steps import AutogradSteps, CompiledSteps, choose_steps
from tests.flows.cases import CASES, RUNNING, draw, example_rows, stirred

COMPILED = {
    *("made", "maf", "maf-random", "maf-plain", "nice", "haf", "realnvp", "realnvp-plain"),
    *("nsf", "nsf-coupling", "nsf-affine", "haf-bounded", "naf-dsf"),
    *("made-mixture", "maf-mixture", "maf-mixture-bounded", "gaussian-diagonal"),
}
# More units than a block has, widths that no block divides, and weights wide enough for segments.
SPECS: list[FlowSpec] = [
    MafSpec(layers=2, hidden=[140, 19], batch_norm=None),
    MafSpec(layers=3, hidden=[33], order="random", activation="relu", batch_norm=RUNNING),
    MadeSpec(hidden=[5, 30, 11], order="random", activation="elu"),
    RealNvpSpec(layers=3, hidden=[17, 40]),
    NiceSpec(layers=3, hidden=[21], batch_norm=None),
    HafSpec(layers=5, hidden=[12, 12]),
    NsfSpec(layers=2, hidden=[20, 9], activation="relu", tail_bound=2.0),
    NsfSpec(layers=3, hidden=[13], bins=2, coupling=True),
    NsfSpec(layers=1, hidden=[14], affine_layers=2),
    MafSpec(layers=3, hidden=[33], log_scale_bound=0.7),
    RealNvpSpec(layers=3, hidden=[17], log_scale_bound=2.0, batch_norm=None),
    MadeSpec(conditional="mixture", components=8, hidden=[12, 9], log_scale_bound=1.5),
    NafSpec(layers=2, hidden=[10, 9], units=11),
]
COLUMNS = [
    MixedColumn(levels=3, missing=True),
    MixedColumn(missing=True, spikes=[0.0]),
    MixedColumn(),
    MixedColumn(levels=20),
    MixedColumn(),
]


def _flow(spec: FlowSpec, dim: int, context_dim: int = 0) -> Flow:
    """A flow in training mode whose biases are not what they are initialised to."""
    moments = (torch.zeros(context_dim), torch.ones(context_dim)) if context_dim else None
    flow = build(spec, dim, context_dim=context_dim, standardise_context=moments, seed=1).train()
    return stirred(flow, 0.3, seed=2, biases_alone=True)


def _rows(rows: int, columns: int) -> Tensor:
    """Rows of which one is far outside."""
    x = torch.randn(rows, columns, generator=torch.Generator().manual_seed(rows))
    x[rows // 2] *= 20
    return x


def _reference(flow: Flow, rows: Tensor, bound: float | None) -> tuple[float, list[Tensor]]:
    """The sum of the log densities, and gradients by parameter, of autograd in float64."""
    exact = copy.deepcopy(flow).double()
    scores = exact.log_prob_of_table(rows.double(), space="model")
    losses = -scores if bound is None else bound_losses(-scores, bound)
    losses.mean().backward()
    gradients = [parameter.grad for parameter in exact.parameters()]
    assert all(gradient is not None for gradient in gradients)
    return float(scores.detach().sum()), [g for g in gradients if g is not None]


def _assert_gradients_agree(flow: Flow, rows: Tensor, bound: float | None) -> None:
    total, expected = _reference(flow, rows, bound)
    compiled = CompiledGradient(flow, row_loss_bound=bound)
    _assert_scores_agree(compiled, flow, rows)
    for _ in range(2):  # the second time in buffers that have been used
        assert compiled.compute(rows) == pytest.approx(total, rel=1e-5)
    views = compiled.views(compiled.gradient)
    order = dict(zip(map(id, compiled.program.parameters), views, strict=True))
    found = [order[id(parameter)] for parameter in flow.parameters()]
    whole, wanted = (torch.cat([one.flatten() for one in some]) for some in (found, expected))
    scale = float(wanted.norm())
    assert float((whole - wanted).norm()) < 1e-5 * scale
    torch.testing.assert_close(whole.double(), wanted, rtol=1e-4, atol=1e-5 * scale)


def _assert_scores_agree(compiled: CompiledGradient, flow: Flow, rows: Tensor) -> None:
    """The log densities of more rows than are computed at once, in evaluation mode."""
    few, times = rows.clamp(-3, 3), compiled.chunk_rows // len(rows) + 1
    exact, many = copy.deepcopy(flow).double().eval(), few.repeat(times, 1)
    with torch.no_grad():
        expected = exact.log_prob_of_table(few.double(), space="model").repeat(times)
    torch.testing.assert_close(compiled.score(many).double(), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("spec", "rows", "dim"),
    [
        *((spec, rows, 5) for spec in SPECS for rows in (2, 33, 100)),
        *((SPECS[0], 40, dim) for dim in (1, 2, 40)),
    ],
    ids=repr,
)
def test_gradients_are_autograds(spec, rows, dim):
    _assert_gradients_agree(_flow(spec, dim), _rows(rows, dim), 3.0)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_every_family_is_either_compiled_rightly_or_left_to_autograd(case):
    flow = _flow(case.spec, 3)
    if case.name in COMPILED:
        _assert_gradients_agree(flow, _rows(40, 3), None)
    else:
        with pytest.raises(UnsupportedError):
            CompiledGradient(flow, row_loss_bound=None)


@pytest.mark.parametrize("spec", SPECS, ids=repr)
def test_gradients_with_a_context_are_autograds(spec):
    _assert_gradients_agree(_flow(spec, 4, context_dim=3), _rows(50, 7), 3.0)


@pytest.mark.parametrize("missing", ["observed", "any"])
@pytest.mark.parametrize("context_dim", [0, 2])
@pytest.mark.parametrize("flow", [SPECS[0], SPECS[3], SPECS[6], SPECS[7], SPECS[11]], ids=repr)
def test_gradients_of_mixed_rows_are_autograds(flow, context_dim, missing):
    """Of rows with a level that no training row had, and hidden ones, among the others."""
    spec = MixedSpec(columns=COLUMNS, flow=flow, hidden=[11], missing=missing, rows=50)
    mixed = build(spec, len(COLUMNS), context_dim=context_dim, seed=1).train()
    rows, generator = _rows(70, mixed.model_columns), torch.Generator().manual_seed(3)
    assert isinstance(mixed.transform, MixedDensity)
    for place, variable in enumerate(mixed.transform.layout.variables):
        rows[:, place] = torch.randint(-2, variable.size, (70,), generator=generator).float()
    _assert_gradients_agree(mixed, rows, 3.0)


@pytest.mark.parametrize("spec", [MafSpec(layers=3, hidden=[9]), RealNvpSpec(layers=3)], ids=repr)
def test_batch_norms_settle_on_the_statistics_of_rows_as_by_autograd(spec):
    fast, slow = (_flow(spec, 4).eval() for _ in range(2))
    CompiledSteps(fast, FitOptions()).settle(draw(300, 4).float())
    AutogradSteps(slow, FitOptions()).settle(draw(300, 4).float())
    _assert_close(fast, slow, rtol=1e-4, atol=1e-5)


def _assert_close(flow: Flow, other: Flow, *, rtol: float, atol: float) -> None:
    expected = other.state_dict()
    for name, tensor in flow.state_dict().items():
        torch.testing.assert_close(tensor, expected[name], rtol=rtol, atol=atol, msg=name)


def _trained(
    spec: FlowSpec, options: FitOptions, *, compiled: bool, monkeypatch: pytest.MonkeyPatch
) -> tuple[Flow, list[EpochReport]]:
    flow = build(spec, 4, seed=1)
    rows = ((example_rows(240, 4) - 10) / 3).float()
    with monkeypatch.context() as patch:
        if not compiled:
            patch.setattr(step, "load_kernels", lambda: None)
        reports = list(fit(flow, rows[:200], rows[200:], options=options))
    return flow, reports


OPTIONS = FitOptions(
    learning_rate=0.01, weight_decay=1e-3, max_gradient_norm=0.5, batch_size=30, max_epochs=3,
    schedule="cosine", row_loss_bound=3.0, weight_average=0.9,
)  # fmt: skip


@pytest.mark.parametrize(
    ("spec", "optimiser", "longest"),
    # The biases before a batch norm have no gradient but rounding errors, which Adam makes large.
    [(SPECS[0], "adam", 0.5), (SPECS[0], "adamw", 1e3), (SPECS[3], "adam", 0.5)],
    ids=["maf-adam", "maf-adamw-unclipped", "realnvp-adam"],
)
def test_a_training_goes_as_by_autograd(spec, optimiser, longest, monkeypatch):
    options = dataclasses.replace(OPTIONS, optimiser=optimiser, max_gradient_norm=longest)
    fast, found = _trained(spec, options, compiled=True, monkeypatch=monkeypatch)
    slow, expected = _trained(spec, options, compiled=False, monkeypatch=monkeypatch)
    for one, other in zip(found, expected, strict=True):
        for name in ("train_log_likelihood", "validation_log_likelihood"):
            assert getattr(one, name) == pytest.approx(getattr(other, name), rel=1e-4)
    states = found[-1].snapshot(), expected[-1].snapshot()
    assert states[0].tensors.keys() == states[1].tensors.keys()
    _assert_close(fast, slow, rtol=1e-3, atol=1e-3)
    if spec is SPECS[0]:
        part = fast.transform.parts()[0]
        assert isinstance(part, Made)
        weights, _, masks = part.network()
        for weight, mask in zip(weights, masks, strict=True):
            assert bool((weight[mask == 0] == 0).all())


def test_what_has_no_compiled_loops_is_left_to_autograd_and_so_is_all_without_numba(monkeypatch):
    flow = build(MafSpec(layers=1, hidden=[4]), 2, seed=0)
    sgd = dataclasses.replace(OPTIONS, optimiser="sgd")
    assert isinstance(choose_steps(flow, OPTIONS, batch_size=30), CompiledSteps)
    assert isinstance(choose_steps(flow, sgd, batch_size=30), AutogradSteps)
    monkeypatch.setitem(sys.modules, "flows.engine.training.kernels", None)
    monkeypatch.delattr("flows.engine.training.kernels", raising=False)
    step.load_kernels.cache_clear()
    try:
        assert isinstance(choose_steps(flow, OPTIONS, batch_size=30), AutogradSteps)
    finally:
        step.load_kernels.cache_clear()


@pytest.mark.parametrize("value", [1e30, float("inf"), float("nan")])
def test_a_number_that_is_too_large_or_none_has_the_effect_that_it_has_in_autograd(value):
    rows = _rows(30, 3)
    rows[4] = value
    fast, slow = _flow(SPECS[0], 3), _flow(SPECS[0], 3)
    compiled = choose_steps(fast, OPTIONS, batch_size=30)
    assert isinstance(compiled, CompiledSteps)
    found, expected = compiled.take(rows, 1), AutogradSteps(slow, OPTIONS).take(rows, 1)
    assert not math.isfinite(found)
    torch.testing.assert_close(found, float(expected), equal_nan=True)
    spoilt = [any(bool(p.isnan().any()) for p in flow.parameters()) for flow in (fast, slow)]
    assert spoilt[0] == spoilt[1]
