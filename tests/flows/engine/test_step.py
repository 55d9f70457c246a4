"""The compiled gradient against autograd's, and its steps against those of the reference."""

import copy
import dataclasses
import logging
import math
import sys
from typing import Literal

import pytest
import torch
from torch import Tensor

from flows import (
    BatchNormSpec,
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
from flows.families.family import FamilySpec
from flows.families.made import Made
from flows.mixed.density import MixedDensity
from flows.training.robust import bound_losses
from flows.training.steps import AutogradSteps, CompiledSteps, choose_steps
from tests.flows.cases import CASES, example_rows

RUNNING = BatchNormSpec(statistics="running", momentum=0.5)
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
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in flow.parameters():
            if parameter.dim() == 1:
                parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.3)
    return flow


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
    order = {
        id(parameter): view
        for parameter, view in zip(compiled.program.parameters, views, strict=True)
    }
    found = [order[id(parameter)] for parameter in flow.parameters()]
    scale = torch.cat([gradient.flatten() for gradient in expected]).norm()
    apart = torch.cat([(a - b).flatten() for a, b in zip(found, expected, strict=True)]).norm()
    assert float(apart / scale) < 1e-5
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a.double(), b, rtol=1e-4, atol=1e-5 * float(scale))


def _assert_scores_agree(compiled: CompiledGradient, flow: Flow, rows: Tensor) -> None:
    """The log densities of more rows than are computed at once, in evaluation mode."""
    few, times = rows.clamp(-3, 3), compiled.chunk_rows // len(rows) + 1
    exact, many = copy.deepcopy(flow).double().eval(), few.repeat(times, 1)
    with torch.no_grad():
        expected = exact.log_prob_of_table(few.double(), space="model").repeat(times)
    torch.testing.assert_close(compiled.score(many).double(), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("spec", SPECS, ids=repr)
@pytest.mark.parametrize("rows", [2, 33, 100])
def test_gradients_are_autograds(spec, rows):
    _assert_gradients_agree(_flow(spec, 5), _rows(rows, 5), 3.0)


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


@pytest.mark.parametrize("dim", [1, 2, 40])
def test_gradients_of_few_and_of_many_features_are_autograds(dim):
    _assert_gradients_agree(_flow(SPECS[0], dim), _rows(40, dim), 3.0)


@pytest.mark.parametrize("flow", [SPECS[0], SPECS[3], SPECS[6], SPECS[7], SPECS[11]], ids=repr)
@pytest.mark.parametrize("context_dim", [0, 2])
@pytest.mark.parametrize("missing", ["observed", "any"])
def test_gradients_of_mixed_rows_are_autograds(flow, context_dim, missing):
    mixed = _mixed(flow, missing, context_dim)
    _assert_gradients_agree(mixed, _mixed_rows(mixed, 70), 3.0)


def _mixed(flow: FamilySpec, missing: Literal["observed", "any"], context_dim: int = 0) -> Flow:
    spec = MixedSpec(columns=COLUMNS, flow=flow, hidden=[11], missing=missing, rows=50)
    return build(spec, len(COLUMNS), context_dim=context_dim, seed=1).train()


def _mixed_rows(mixed: Flow, count: int) -> Tensor:
    """Rows with a level that no training row had, and hidden ones, among the others."""
    rows, generator = _rows(count, mixed.model_columns), torch.Generator().manual_seed(3)
    assert isinstance(mixed.transform, MixedDensity)
    for place, variable in enumerate(mixed.transform.layout.variables):
        levels = torch.randint(-2, variable.size, (count,), generator=generator)
        rows[:, place] = levels.float()
    return rows


@pytest.mark.parametrize("spec", [MafSpec(layers=3, hidden=[9]), RealNvpSpec(layers=3)], ids=repr)
def test_batch_norms_settle_on_the_statistics_of_rows_as_by_autograd(spec):
    rows = torch.randn(300, 4, generator=torch.Generator().manual_seed(5))
    flows = [_flow(spec, 4, 0) for _ in range(2)]
    CompiledSteps(flows[0], FitOptions()).settle(rows)
    AutogradSteps(flows[1], FitOptions()).settle(rows)
    expected = flows[1].state_dict()
    for name, tensor in flows[0].state_dict().items():
        torch.testing.assert_close(tensor, expected[name], rtol=1e-4, atol=1e-5)


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
    learning_rate=0.01,
    weight_decay=1e-3,
    max_gradient_norm=0.5,
    batch_size=30,
    max_epochs=3,
    schedule="cosine",
    row_loss_bound=3.0,
    weight_average=0.9,
)


@pytest.mark.parametrize(
    ("spec", "optimiser"),
    # The biases before a batch norm have no gradient but rounding errors, which Adam makes large.
    [(SPECS[0], "adam"), (SPECS[0], "adamw"), (SPECS[3], "adam")],
    ids=["maf-adam", "maf-adamw", "realnvp-adam"],
)
def test_a_training_goes_as_by_autograd(spec, optimiser, monkeypatch):
    options = dataclasses.replace(OPTIONS, optimiser=optimiser)
    fast, found = _trained(spec, options, compiled=True, monkeypatch=monkeypatch)
    slow, expected = _trained(spec, options, compiled=False, monkeypatch=monkeypatch)
    for one, other in zip(found, expected, strict=True):
        assert one.train_log_likelihood == pytest.approx(other.train_log_likelihood, rel=1e-4)
        assert one.validation_log_likelihood == pytest.approx(
            other.validation_log_likelihood, rel=1e-4
        )
    states = found[-1].snapshot(), expected[-1].snapshot()
    assert states[0].tensors.keys() == states[1].tensors.keys()
    for (name, one), other in zip(
        fast.state_dict().items(), slow.state_dict().values(), strict=True
    ):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-3, msg=name)


def test_masked_weights_stay_0(monkeypatch):
    flow, _ = _trained(SPECS[0], OPTIONS, compiled=True, monkeypatch=monkeypatch)
    part = flow.transform.parts()[0]
    assert isinstance(part, Made)
    weights, _, masks = part.network()
    for weight, mask in zip(weights, masks, strict=True):
        assert bool((weight[mask == 0] == 0).all())


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


def test_what_has_no_compiled_loops_is_left_to_autograd_and_one_line_says_why(caplog):
    flow = build(MafSpec(layers=1, hidden=[4]), 2, seed=0)
    with caplog.at_level(logging.INFO, logger="flows"):
        steps = choose_steps(flow, dataclasses.replace(OPTIONS, optimiser="sgd"), batch_size=30)
    assert isinstance(steps, AutogradSteps)
    assert [record.message for record in caplog.records] == [
        "autograd computes the gradients: the optimiser is sgd"
    ]


def test_without_numba_autograd_trains(monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "flows.engine.training.kernels", None)
    monkeypatch.delattr("flows.engine.training.kernels", raising=False)
    step.load_kernels.cache_clear()
    try:
        flow = build(MafSpec(layers=1, hidden=[4]), 2, seed=0)
        with caplog.at_level(logging.INFO, logger="flows"):
            assert isinstance(choose_steps(flow, OPTIONS, batch_size=30), AutogradSteps)
        assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]
    finally:
        step.load_kernels.cache_clear()
