"""Steps: their options, rows, optimisers, averages of weights, and what they take for zero."""

from typing import get_args

import pytest
import torch
from torch import nn

from flows import (
    FitOptions,
    Flow,
    MadeSpec,
    MafSpec,
    NsfSpec,
    PlanarSpec,
    Potential,
    StepFactor,
    StepSchedule,
    VariationalOptions,
    build,
    count_parameters,
    fit,
    fit_variational,
)
from flows.defaults import default_flow
from flows.training import rows as fit_rows
from flows.training.denormals import denormals_as_zero
from flows.training.optimiser import make_optimiser, moments_of, restore_moments
from flows.training.options import Optimiser
from flows.training.state import copies
from flows.training.steps import AutogradSteps, CompiledSteps, Steps, one_core_suffices
from tests.flows.cases import assert_same
from tests.flows.training.test_fit import TRAIN, VALIDATION, new_flow, with_options


@pytest.mark.parametrize(
    "fields",
    [
        {"learning_rate": 0.0},
        {"learning_rate": float("nan")},
        {"learning_rate": float("inf")},
        {"weight_decay": -1.0},
        {"batch_size": 0},
        {"max_epochs": 0},
        {"patience": 0},
        {"max_seconds": 0.0},
        {"row_loss_bound": 0.0},
        {"weight_average": 1.0},
        {"restarts": -1},
        {"seed": -1},
    ],
)
def test_options_out_of_range_are_refused(fields):
    with pytest.raises(ValueError, match=next(iter(fields))):
        FitOptions(**fields)


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({"epochs": 0, "factor": 0.1}, "epochs"),
        ({"epochs": 1, "factor": 0.0}, "factor"),
        ({"epochs": 1, "factor": 1.5}, "factor"),
    ],
)
def test_step_schedules_out_of_range_are_refused(fields, name):
    with pytest.raises(ValueError, match=name):
        StepFactor(**fields)


def test_a_constant_schedule_keeps_the_learning_rate():
    options = FitOptions(learning_rate=0.5)
    assert options.learning_rate_at(1) == options.learning_rate_at(900) == 0.5


def test_a_step_schedule_lowers_the_learning_rate_after_so_many_epochs():
    options = FitOptions(learning_rate=1.0, schedule=StepSchedule(StepFactor(50, 0.1)))
    rates = [options.learning_rate_at(epoch) for epoch in (1, 50, 51, 100, 101)]
    assert rates == pytest.approx([1, 1, 0.1, 0.1, 0.01])


def test_a_cosine_schedule_falls_from_the_learning_rate_towards_0():
    options = FitOptions(learning_rate=2.0, schedule="cosine", max_epochs=10)
    rates = [options.learning_rate_at(epoch) for epoch in range(1, 11)]
    assert rates[0] == 2.0
    assert rates[5] == pytest.approx(1.0)
    assert rates == sorted(rates, reverse=True)
    assert 0 < rates[-1] < 0.1


@pytest.mark.parametrize(
    "fields",
    [
        {"learning_rate": 0.0},
        {"max_gradient_norm": 0.0},
        {"batch_size": 0},
        {"iterations": 0},
        {"report_every": 0},
        {"patience": 0},
        {"max_seconds": 0.0},
        {"annealing": -1},
        {"seed": -1},
    ],
)
def test_variational_options_out_of_range_are_refused(fields):
    with pytest.raises(ValueError, match=next(iter(fields))):
        VariationalOptions(**fields)


def test_the_variational_learning_rate_follows_its_schedule():
    constant = VariationalOptions(learning_rate=2.0)
    cosine = VariationalOptions(learning_rate=2.0, schedule="cosine", iterations=10)
    assert constant.learning_rate_at(1) == constant.learning_rate_at(9999) == 2.0
    assert [cosine.learning_rate_at(i) for i in (1, 6)] == pytest.approx([2.0, 1.0])
    assert 0 < cosine.learning_rate_at(10) < 0.1


@pytest.mark.parametrize(("columns", "suffices"), [(1, True), (20, True), (500, False)])
def test_steps_of_narrow_default_flows_suit_one_core(columns: int, suffices: bool) -> None:
    weights = count_parameters(default_flow(50_000, columns), columns)
    assert one_core_suffices(weights, 250) is suffices


@pytest.mark.parametrize("spec", [None, NsfSpec(layers=1, hidden=[8])], ids=["maf", "nsf"])
def test_rows_beside_the_device_are_trained_on_as_those_on_it(monkeypatch, spec):
    """Rows that stay beside the device, as larger ones than a GPU do, give the same bits."""

    def beside(*arguments, **named):
        rows = fit_rows.ModelRows(*arguments, **named)
        monkeypatch.setattr(rows, "_streamed", True)  # as a table on another device makes it
        return rows

    spec_given = () if spec is None else (spec,)
    flows = [new_flow(*spec_given), new_flow(*spec_given)]
    options = with_options(max_epochs=3, patience=None)
    list(fit(flows[0], TRAIN, VALIDATION, options=options))
    monkeypatch.setattr("flows.training.fit.ModelRows", beside)
    list(fit(flows[1], TRAIN, VALIDATION, options=options))
    if spec is not None:
        assert_same(*flows)
    for one, other in zip(*(flow.state_dict().values() for flow in flows), strict=True):
        torch.testing.assert_close(other, one, rtol=1e-5, atol=1e-6)  # sums of batch norms


@pytest.mark.gpu
def test_a_table_larger_than_a_gpu_stays_beside_it_and_gives_the_same_flow():
    flows = [new_flow(NsfSpec(layers=1, hidden=[8])).to("cuda") for _ in range(2)]
    options = with_options(max_epochs=3, patience=None)
    list(fit(flows[0], TRAIN.to("cuda"), VALIDATION.to("cuda"), options=options))
    list(fit(flows[1], TRAIN, VALIDATION, options=options))
    assert_same(*flows)


@pytest.mark.parametrize("spec", [None, NsfSpec(layers=1, hidden=[8])], ids=["maf", "nsf"])
def test_mixed_precision_trains_to_about_the_same_likelihood(spec):
    before, best = torch.get_float32_matmul_precision(), []
    for mixed in (False, True):
        flow = new_flow() if spec is None else build(spec, TRAIN.shape[1], seed=1)
        options = with_options(max_epochs=8, patience=None, mixed_precision=mixed)
        best.append(list(fit(flow, TRAIN, VALIDATION, options=options))[-1])
    likelihoods = [report.best_validation_log_likelihood for report in best]
    assert likelihoods[1] == pytest.approx(likelihoods[0], abs=0.2)
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


def averaging(kind: type[AutogradSteps | CompiledSteps], decay: float) -> tuple[Flow, Steps]:
    flow = build(MadeSpec(hidden=[4]), 3, seed=0)
    return flow, kind(flow, FitOptions(weight_average=decay, learning_rate=0.1))


@KINDS_OF_STEPS
@pytest.mark.parametrize(
    ("number", "decay", "share"), [(1000, 0.9, 0.1), (1, 0.999, 9 / 11)], ids=["decay", "first"]
)
def test_the_average_follows_the_weights_and_soon_forgets_the_first(kind, number, decay, share):
    flow, steps = averaging(kind, decay)
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


@KINDS_OF_STEPS
def test_the_average_goes_on_from_its_own_tensors(kind):
    flow, steps = averaging(kind, 0.9)
    before = copies(dict(flow.named_parameters()))
    steps.compute(TRAIN[:20, :3].float())
    steps.move(1)
    _, restored = averaging(kind, 0.9)
    restored.restore(steps.tensors())
    for name, value in restored.tensors()["average"].items():
        assert torch.equal(value, steps.tensors()["average"][name])
        assert value.numel() == 0 or not torch.equal(value, before[name])


def takes_denormals_for_zero():
    return bool(torch.full((1,), torch.finfo(torch.float32).tiny) / 2 == 0)


flushes = pytest.mark.skipif(
    not torch.set_flush_denormal(False), reason="this processor cannot take denormals for zero"
)


@flushes
def test_denormals_are_zero_inside_alone():
    with denormals_as_zero():
        assert takes_denormals_for_zero()
        with denormals_as_zero():
            pass
        assert takes_denormals_for_zero()
    assert not takes_denormals_for_zero()


@flushes
def test_denormals_come_back_after_an_error():
    with pytest.raises(ZeroDivisionError), denormals_as_zero():
        raise ZeroDivisionError
    assert not takes_denormals_for_zero()


@flushes
def test_training_takes_denormals_for_zero():
    seen = []
    rows = torch.randn(64, 2, generator=torch.Generator().manual_seed(0))
    for _ in fit(
        build(MafSpec(layers=1, hidden=[4]), 2, seed=0),
        rows,
        rows,
        options=FitOptions(batch_size=32, max_epochs=2),
        on_batch=lambda _done, _batches: seen.append(takes_denormals_for_zero()),
    ):
        assert not takes_denormals_for_zero()
    for _ in fit_variational(
        build(PlanarSpec(layers=1, closed="sampling"), 2, seed=0),
        Potential("U1"),
        options=VariationalOptions(iterations=4, report_every=2),
        on_step=lambda _done, _steps: seen.append(takes_denormals_for_zero()),
    ):
        assert not takes_denormals_for_zero()
    assert len(seen) >= 8
    assert all(seen)
