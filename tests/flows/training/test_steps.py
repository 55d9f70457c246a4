"""Steps: their options, rows, optimisers, averages of weights, and what they take for zero."""

import math
from dataclasses import replace
from functools import partial
from typing import get_args

import pytest
import torch
from torch import nn
from torch.nn.utils import parameters_to_vector

from flows import (
    FitOptions,
    GaussianMixtureSpec,
    MadeSpec,
    MafSpec,
    MixedColumn,
    MixedSpec,
    NsfSpec,
    PlanarSpec,
    Potential,
    RealNvpSpec,
    StepFactor,
    StepSchedule,
    VariationalOptions,
    build,
    count_parameters,
    fit,
    fit_variational,
)
from flows.defaults import (
    candidate_flows,
    default_epochs,
    default_flow,
    default_learning_rate,
)
from flows.training.denormals import denormals_as_zero
from flows.training.optimiser import make_optimiser, moments_of, restore_moments
from flows.training.options import Optimiser
from flows.training.state import copies
from flows.training.steps import AutogradSteps, CompiledSteps, one_core_suffices
from tests.flows.cases import assert_same
from tests.flows.training.test_fit import SPEC, TRAIN, VALIDATION, new_flow, with_options


@pytest.mark.parametrize(
    ("make", "name", "value"),
    [
        *((FitOptions, "learning_rate", wrong) for wrong in (0.0, float("nan"), float("inf"))),
        (FitOptions, "weight_decay", -1.0),
        (FitOptions, "max_epochs", 0),
        (FitOptions, "row_loss_bound", 0.0),
        (FitOptions, "weight_average", 1.0),
        (FitOptions, "restarts", -1),
        *((one, "batch_size", 0) for one in (FitOptions, VariationalOptions)),
        *((one, "patience", 0) for one in (FitOptions, VariationalOptions)),
        *((one, "max_seconds", 0.0) for one in (FitOptions, VariationalOptions)),
        *((one, "seed", -1) for one in (FitOptions, VariationalOptions)),
        (VariationalOptions, "learning_rate", 0.0),
        (VariationalOptions, "max_gradient_norm", 0.0),
        (VariationalOptions, "iterations", 0),
        (VariationalOptions, "report_every", 0),
        (VariationalOptions, "annealing", -1),
        (partial(StepFactor, factor=0.1), "epochs", 0),
        *((partial(StepFactor, 1), "factor", wrong) for wrong in (0.0, 1.5)),
    ],
)
def test_options_out_of_range_are_refused(make, name, value):
    with pytest.raises(ValueError, match=name):
        make(**{name: value})


STEP = StepSchedule(StepFactor(50, 0.1))


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (FitOptions(learning_rate=0.5), {1: 0.5, 900: 0.5}),
        (VariationalOptions(learning_rate=2.0), {1: 2.0, 9999: 2.0}),
        (FitOptions(learning_rate=1.0, schedule=STEP), {1: 1, 50: 1, 51: 0.1, 100: 0.1, 101: 0.01}),
        (
            FitOptions(learning_rate=2.0, schedule="cosine", max_epochs=10),
            {n: 1 + math.cos(math.pi * (n - 1) / 10) for n in range(1, 11)},
        ),
        (
            VariationalOptions(learning_rate=2.0, schedule="cosine", iterations=10),
            {n: 1 + math.cos(math.pi * (n - 1) / 10) for n in range(1, 11)},
        ),
    ],
)
def test_the_learning_rate_follows_its_schedule(options, expected):
    assert {n: options.learning_rate_at(n) for n in expected} == pytest.approx(expected)


@pytest.mark.parametrize(("columns", "suffices"), [(1, True), (20, True), (500, False)])
def test_steps_of_narrow_default_flows_suit_one_core(columns: int, suffices: bool) -> None:
    weights = count_parameters(default_flow(50_000, columns), columns)
    assert one_core_suffices(weights, 250) is suffices


@pytest.mark.parametrize(
    ("rows", "columns", "affine"), [(10_000, 5, True), (10_000, 4, False), (9_999, 5, False)]
)
def test_splines_of_five_columns_of_many_rows_follow_affine_layers(rows, columns, affine):
    flow = default_flow(rows, columns)
    assert isinstance(flow, NsfSpec)
    assert bool(flow.affine_layers) is affine


AFFINE = NsfSpec(affine_layers=3)
SPIKED = MixedSpec(columns=[MixedColumn(spikes=[0.0])], flow=AFFINE)


@pytest.mark.parametrize(
    ("flow", "dim", "rows", "steps", "epochs"),
    [
        (GaussianMixtureSpec(), 3, 10_000, 100, 1000),
        (MafSpec(), 3, 9_999, 100, 80),
        (MafSpec(), 3, 10_000, 100, 160),
        (MadeSpec(), 3, 10_000, 100, 160),
        (NsfSpec(), 3, 10_000, 100, 80),
        (AFFINE, 3, 9_999, 100, 80),
        (AFFINE, 3, 10_000, 100, 140),
        (SPIKED, 1, 10_000, 100, 140),
        (replace(SPIKED, columns=[MixedColumn()]), 1, 10_000, 100, 40),
        (replace(SPIKED, flow=MafSpec()), 1, 10_000, 100, 40),
        (RealNvpSpec(), 3, 10_000, 100, 40),
        (RealNvpSpec(), 3, 10_000, 1, 1000),  # few steps
        (RealNvpSpec(), 20, 10_000, 10, 400),
        (RealNvpSpec(), 100, 10_000, 10, 1000),
        (RealNvpSpec(), 3, 10_000, 10_000, 20),
        (MafSpec(), 3, 10_000, 1_250, 80),
    ],
)
def test_default_epochs_suit_the_flow_and_the_table(flow, dim, rows, steps, epochs):
    assert default_epochs(flow, dim, rows=rows, steps=steps) == epochs


def test_default_rates_are_inverse_to_the_width_and_flows_grow_with_the_table():
    narrow, wide = MafSpec(hidden=[8]), MafSpec(hidden=[64])
    rates = [
        default_learning_rate(flow, 3) for flow in (narrow, wide, replace(AFFINE, hidden=[64]))
    ]
    assert rates == [0.16 / 32, 0.16 / 64, 0.32 / 64]
    assert default_learning_rate(wide, 128) == 0.16 / 64
    assert default_learning_rate(wide, 129) == 1e-4
    assert default_learning_rate(SPIKED, 1) == 3e-3
    sizes = (9_999, 10_000, 99_999, 100_000)
    hidden = [getattr(default_flow(rows, 3), "hidden", None) for rows in sizes]
    assert hidden == [[width] * 2 for width in (32, 64, 64, 128)]


@pytest.mark.parametrize(
    ("effort", "columns", "tried"),
    [
        (0, 8, "gaussian_mixture maf nsf"),
        (1, 8, "gaussian_mixture maf nsf maf"),
        (2, 8, "gaussian_mixture maf nsf maf nsf realnvp naf maf nsf"),
        (2, 9, "gaussian_mixture maf nsf maf nsf realnvp maf nsf"),
    ],
)
def test_a_search_tries_more_flows_with_more_effort(effort, columns, tried):
    flows = list(candidate_flows(MafSpec(hidden=[48, 8]), columns, effort=effort))
    assert [flow.family for flow in flows] == tried.split()
    hidden = [getattr(flow, "hidden", None) for flow in flows]
    assert hidden[1:3] == [[48, 48]] * 2
    if effort == 2:
        assert hidden[-2:] == [[96, 96]] * 2


@pytest.mark.gpu
def test_a_table_larger_than_a_gpu_stays_beside_it_and_gives_the_same_flow():
    flows = [new_flow(NsfSpec(layers=1, hidden=[8])).to("cuda") for _ in range(2)]
    options = with_options(max_epochs=3, patience=None)
    list(fit(flows[0], TRAIN.to("cuda"), VALIDATION.to("cuda"), options=options))
    list(fit(flows[1], TRAIN, VALIDATION, options=options))
    assert_same(*flows)


@pytest.mark.parametrize("spec", [SPEC, NsfSpec(layers=1, hidden=[8])], ids=["maf", "nsf"])
def test_mixed_precision_trains_to_about_the_same_likelihood(spec):
    before, best = torch.get_float32_matmul_precision(), []
    for mixed in (False, True):
        options = with_options(max_epochs=8, patience=None, mixed_precision=mixed)
        *_, last = fit(new_flow(spec), TRAIN, VALIDATION, options=options)
        best.append(last.best_validation_log_likelihood)
    assert best[1] == pytest.approx(best[0], abs=0.2)
    assert torch.get_float32_matmul_precision() == before


def some_parameters() -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(1)
    return [nn.Parameter(torch.randn(size, generator=generator)) for size in ((3, 2), (4,), ())]


def step(optimiser: torch.optim.Optimizer, parameters: list[nn.Parameter], number: int) -> None:
    optimiser.zero_grad()
    # The last one has a gradient only now and then.
    used = parameters[: 2 + number % 2]
    losses = [(parameter - number).square().sum() for parameter in used]
    torch.stack(losses).sum().backward()
    optimiser.step()


@pytest.mark.parametrize("name", get_args(Optimiser))
def test_restored_moments_go_on_to_the_bit(name: Optimiser) -> None:
    stopped, whole = some_parameters(), some_parameters()
    first, undisturbed = (
        make_optimiser(of, name, learning_rate=0.1, weight_decay=0.1) for of in (stopped, whole)
    )
    for number in range(5):
        if number == 3:
            moments = moments_of(first)
            first = make_optimiser(stopped, name, learning_rate=0.1, weight_decay=0.1)
            restore_moments(first, moments)
        step(first, stopped, number)
        step(undisturbed, whole, number)
    assert all(map(torch.equal, stopped, whole))


KINDS_OF_STEPS = pytest.mark.parametrize("kind", [AutogradSteps, CompiledSteps])


@KINDS_OF_STEPS
@pytest.mark.parametrize(
    ("number", "decay", "share"), [(1000, 0.9, 0.1), (1, 0.999, 9 / 11)], ids=["decay", "first"]
)
def test_the_average_follows_the_weights_soon_forgets_the_first_and_is_restored(
    kind, number, decay, share
):
    flow, other = (build(MadeSpec(hidden=[4]), 3, seed=0) for _ in range(2))
    options = FitOptions(weight_average=decay, learning_rate=0.1)
    steps, restored = kind(flow, options), kind(other, options)
    before = copies(dict(flow.named_parameters()))
    steps.compute(TRAIN[:20, :3].float())
    steps.move(number)
    after = copies(dict(flow.named_parameters()))
    with steps.averaged():
        for name, weight in flow.named_parameters():
            expected = before[name] + share * (after[name] - before[name])
            torch.testing.assert_close(weight, expected)
    for name, weight in flow.named_parameters():
        assert torch.equal(weight, after[name])
    restored.restore(steps.tensors())
    for name, value in restored.tensors()["average"].items():
        assert torch.equal(value, steps.tensors()["average"][name])
        assert value.numel() == 0 or not torch.equal(value, before[name])


def test_both_kinds_of_steps_are_the_same_with_any_weight_decay():
    found = []
    for kind in (AutogradSteps, CompiledSteps):
        flow = build(MadeSpec(hidden=[4]), 3, seed=0)
        steps = kind(flow, FitOptions(weight_decay=5.0, learning_rate=0.1))
        for number in (1, 2):
            steps.take(TRAIN[:20, :3].float(), number)
        found.append(parameters_to_vector(flow.parameters()))
    torch.testing.assert_close(*found, rtol=1e-3, atol=1e-4)


def takes_denormals_for_zero():
    return bool(torch.full((1,), torch.finfo(torch.float32).tiny) / 2 == 0)


flushes = pytest.mark.skipif(
    not torch.set_flush_denormal(False), reason="this processor cannot take denormals for zero"
)


@flushes
def test_denormals_are_zero_inside_alone_and_come_back_after_an_error():
    with denormals_as_zero():
        with denormals_as_zero():
            pass
        assert takes_denormals_for_zero()
    assert not takes_denormals_for_zero()
    with pytest.raises(ZeroDivisionError), denormals_as_zero():
        raise ZeroDivisionError
    assert not takes_denormals_for_zero()


@flushes
def test_training_takes_denormals_for_zero():
    seen, rows = [], torch.randn(64, 2, generator=torch.Generator().manual_seed(0))
    look = lambda *_: seen.append(takes_denormals_for_zero())  # noqa: E731
    flow = build(MafSpec(layers=1, hidden=[4]), 2, seed=0)
    fitting = fit(flow, rows, rows, options=with_options(max_epochs=2), on_batch=look)
    flow = build(PlanarSpec(layers=1, closed="sampling"), 2, seed=0)
    options = VariationalOptions(iterations=4, report_every=2)
    for reports in (fitting, fit_variational(flow, Potential("U1"), options=options, on_step=look)):
        for _ in reports:
            assert not takes_denormals_for_zero()
    assert len(seen) >= 8
    assert all(seen)
