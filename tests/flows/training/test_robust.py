"""Training on rows that are not as the textbooks have them, and what happens when it diverges."""

import itertools
import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.utils import parameters_to_vector

from flows import (
    DivergedError,
    EpochReport,
    FitInterrupted,
    FitOptions,
    Flow,
    MadeSpec,
    MafSpec,
    MixedColumn,
    build,
    evaluate,
    fit,
)
from flows.training.robust import bound_losses, robust_mean, robust_standard_error
from flows.training.steps import CompiledSteps
from tests.flows.cases import assert_same, example_rows, numbers, through_bytes, trained

ROWS = example_rows(240, 3).float()
TRAIN, VALIDATION = ROWS[:200], ROWS[200:]
SPEC = MafSpec(layers=2, hidden=[8], batch_norm=None)
PLAIN = FitOptions(learning_rate=0.01, batch_size=50, max_epochs=8, seed=3)


def with_options(**fields: Any) -> FitOptions:
    return FitOptions(**{**vars(PLAIN), **fields})


ROBUST = with_options(row_loss_bound=10.0, weight_average=0.9, noise="epoch", restarts=1)


def new_flow(**rest: Any) -> Flow:
    return build(SPEC, 3, standardise=(TRAIN.mean(dim=0), TRAIN.std(dim=0)), seed=1, **rest)


def train(flow: Flow, options: FitOptions = ROBUST, **rest: Any) -> list[EpochReport]:
    rows = rest.pop("rows", TRAIN)
    validation = rest.pop("validation", VALIDATION)
    return list(fit(flow, rows, validation, options=options, **rest))


def with_outlier(rows: Tensor, value: float) -> Tensor:
    changed = rows.clone()
    changed[0, 1] = value
    return changed


def test_one_wild_validation_row_does_not_choose_the_epoch():
    # Each epoch makes the density of a row at 1e6 worse.
    rows, options = with_outlier(VALIDATION, 1e6), {"learning_rate": 0.003, "patience": 3}
    plain, robust = (
        train(new_flow(), with_options(**options, row_loss_bound=bound), validation=rows)[-1]
        for bound in (None, 10.0)
    )
    assert plain.best_epoch == 1
    assert robust.best_epoch > 5
    assert robust.validation_log_likelihood < -1e6
    assert -100 < robust.robust_validation_log_likelihood < 0


@pytest.mark.parametrize(("options", "times"), [(ROBUST, 2), (PLAIN, 1)], ids=["again", "at all"])
def test_a_training_that_diverges_more_often_than_it_may_restart_fails(options, times):
    with pytest.raises(DivergedError) as caught:
        sabotaged(options, epoch=4, times=times)
    assert caught.value.epoch == 4


def test_a_validation_row_of_density_0_is_told_and_survives_the_state():
    reports = fit(new_flow(), TRAIN, with_outlier(VALIDATION, 1e30), options=ROBUST)
    report = next(reports)
    assert report.validation_log_likelihood == -math.inf
    assert math.isfinite(report.robust_validation_log_likelihood)
    state = through_bytes(report.snapshot())
    resumed = train(new_flow(), state=state, validation=with_outlier(VALIDATION, 1e30))
    assert numbers(*resumed) == numbers(*reports)


def test_one_wild_training_row_does_not_throw_the_others_off():
    rows, reached = with_outlier(TRAIN, 1e4), {}
    for bound in (None, 10.0):
        flow = new_flow()
        train(flow, with_options(row_loss_bound=bound, max_epochs=6), rows=rows)
        reached[bound] = evaluate(flow, VALIDATION).mean
    assert reached[10.0] is not None
    assert reached[10.0] > reached[None] + 0.1


def test_without_a_bound_the_robust_numbers_are_the_plain_ones():
    result = evaluate(new_flow(), VALIDATION)
    assert result.robust_mean == result.mean
    for report in train(new_flow(), PLAIN):
        assert report.robust_validation_log_likelihood == report.validation_log_likelihood


def test_the_averaged_weights_are_those_that_are_evaluated_and_kept():
    flow, plain = new_flow(), new_flow()
    report = train(flow, with_options(weight_average=0.9))[-1]
    train(plain, PLAIN)
    with pytest.raises(AssertionError):
        assert_same(flow, plain)
    reached = evaluate(flow, VALIDATION).mean
    assert reached == pytest.approx(report.best_validation_log_likelihood, abs=1e-5)


class Sabotage:
    """Makes the weights of a flow NaN after a given batch of a given epoch, some times."""

    def __init__(self, flow: Flow, *, epoch: int, batch: int, times: int) -> None:
        self.flow, self.epoch, self.batch, self.times = flow, epoch, batch, times
        self.epochs_done = 0

    def __call__(self, done: int, total: int) -> None:
        if (self.epochs_done + 1, done) == (self.epoch, self.batch) and self.times:
            self.times -= 1
            with torch.no_grad():
                next(self.flow.parameters()).fill_(math.nan)


def sabotaged(options: FitOptions, *, epoch: int, times: int, **rest: Any) -> list[EpochReport]:
    flow = rest.pop("flow", None) or new_flow()
    sabotage = Sabotage(flow, epoch=epoch, batch=2, times=times)
    reports = []
    for report in fit(flow, TRAIN, VALIDATION, options=options, on_batch=sabotage, **rest):
        sabotage.epochs_done = report.epoch
        reports.append(report)
    return reports


@pytest.mark.parametrize("epoch", [1, 4])
def test_a_training_that_diverges_goes_back_to_its_best_state_once(epoch):
    reports = sabotaged(ROBUST, epoch=epoch, times=1)
    assert [report.epoch for report in reports] == list(range(1, 9))
    assert [report.restarts for report in reports] == [0] * (epoch - 1) + [1] * (9 - epoch)
    assert reports[-1].best_validation_log_likelihood >= reports[0].validation_log_likelihood


def test_after_a_restart_each_step_is_a_tenth():
    moved, options = [], with_options(max_epochs=1, restarts=1, optimiser="adam")
    for times in (0, 1):
        flow = new_flow()
        before = parameters_to_vector(flow.parameters()).detach()
        sabotaged(options, epoch=1, times=times, flow=flow)
        moved.append(float((parameters_to_vector(flow.parameters()).detach() - before).abs().max()))
    assert moved[1] == pytest.approx(moved[0] / 10, rel=0.2)


def test_patience_counts_from_the_restart():
    options = with_options(restarts=1, learning_rate=1e-12, patience=3, optimiser="sgd")
    calm = train(new_flow(), options)
    stopped = sabotaged(options, epoch=calm[0].best_epoch + 2, times=1)
    assert stopped[-1].epoch > calm[-1].epoch


@pytest.mark.parametrize("batch", [1, 7, 9, 11])
def test_resuming_after_a_restart_gives_the_same_flow_to_the_bit(batch):
    options, columns = (
        with_options(**{**vars(ROBUST), "max_epochs": 3}),
        [MixedColumn(step=0.5), *[MixedColumn()] * 2],
    )
    undisturbed, flow, resumed = (new_flow(columns=columns) for _ in range(3))
    expected = sabotaged(options, epoch=2, times=1, flow=undisturbed)
    sabotage, asked, reports = Sabotage(flow, epoch=2, batch=2, times=1), itertools.count(1), []

    def interrupted() -> bool:
        return next(asked) >= batch and sabotage.times == 0

    def train_on() -> None:
        for report in fit(
            flow, TRAIN, VALIDATION, options=options, on_batch=sabotage, interrupted=interrupted
        ):
            sabotage.epochs_done = report.epoch
            reports.append(report)

    with pytest.raises(FitInterrupted) as caught:
        train_on()
    rest = train(resumed, options, state=through_bytes(caught.value.state))
    assert numbers(*rest) == numbers(*expected[len(reports) :])
    assert expected[-1].restarts == 1
    assert_same(resumed, undisturbed)


def test_noise_is_drawn_once_or_for_each_epoch(monkeypatch):
    rows = torch.zeros(64, 1)
    rows[:32] = 1.0
    seen: dict[str, list[Tensor]] = {"once": [], "epoch": []}
    take = CompiledSteps.take
    for noise, kept in seen.items():
        flow = build(MadeSpec(hidden=[4]), 1, columns=[MixedColumn(step=1.0)], seed=0)
        options = with_options(noise=noise, batch_size=64, max_epochs=3, patience=None)

        def watched(steps, x, number, kept=kept):
            kept.append(x.clone())
            return take(steps, x, number)

        monkeypatch.setattr(CompiledSteps, "take", watched)
        list(fit(flow, rows, rows, options=options))
    once, epoch = ([x.sort(dim=0).values for x in seen[noise]] for noise in seen)
    assert torch.equal(once[0], once[1])
    assert not torch.equal(seen["once"][0], seen["once"][1])  # each epoch has an order of its own
    assert not torch.equal(epoch[0], epoch[1])
    assert all(len(kept) == 3 for kept in seen.values())
    assert float(seen["once"][0].mean()) == pytest.approx(float(rows.mean()), abs=0.15)


def test_a_spike_with_noise_does_not_reach_an_unbounded_density():
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(600, 1, generator=generator)
    rows[:300] = 0.0
    rows, peaks = rows[torch.randperm(600, generator=generator)], {}
    options = {"learning_rate": 0.05, "max_epochs": 25, "patience": None, "noise": "epoch"}
    for width in (0.0, 0.5):
        spec = MadeSpec(conditional="mixture", components=4, hidden=[2])
        flow = build(spec, 1, columns=[MixedColumn(noise=width)], seed=0)
        trained(flow, rows[:500], rows[500:], **options)
        peaks[width] = float(flow.log_prob(torch.zeros(1, 1)).detach())
    assert peaks[0.0] > 2.0
    # Half of the rows over a width of a half is a density of 1; the others add 0.2 at most.
    assert peaks[0.5] < 0.5


def test_a_density_of_0_is_finite_for_one_row_and_not_for_most_and_nan_stays():
    one = torch.cat([LOSSES, torch.tensor([math.inf])])
    assert torch.isfinite(bound_losses(one, 10.0)).all()
    most = torch.cat([LOSSES, torch.full((9,), math.inf)])
    assert not torch.isfinite(bound_losses(most, 10.0)).all()
    assert bound_losses(torch.cat([LOSSES, torch.tensor([math.nan])]), 10.0).isnan().any()
    for rows in (1, 2, 3):
        assert torch.isfinite(bound_losses(LOSSES[:rows], 10.0)).all()
    assert torch.equal(bound_losses(LOSSES, 10.0), LOSSES)


LOSSES = torch.tensor([3.0, 1.0, 2.0, 5.0, 4.0, 7.0, 6.0, 8.0])


def test_beyond_the_fence_a_loss_grows_like_its_logarithm_and_its_gradient_fades():
    losses = torch.cat([LOSSES, torch.tensor([1e6])]).requires_grad_()
    bounded = bound_losses(losses, 2.0)
    fence, spread = 5.0 + 2.0 * 4.0, 4.0  # of the sorted nine: quartiles 3 and 7, median 5
    assert float(bounded[-1].detach()) == pytest.approx(
        fence + spread * math.log1p((1e6 - fence) / spread), rel=1e-5
    )
    bounded.sum().backward()
    assert losses.grad is not None
    assert torch.equal(losses.grad[:-1], torch.ones(8))
    assert float(losses.grad[-1]) == pytest.approx(1 / (1 + (1e6 - fence) / spread), rel=1e-4)


def test_the_bound_is_continuous_with_the_slope_1_at_the_fence():
    fence = 5.0 + 2.0 * 4.0
    for beyond in (-1e-3, 1e-3):
        losses = torch.cat([LOSSES, torch.tensor([fence + beyond])]).requires_grad_()
        bounded = bound_losses(losses, 2.0)
        assert float(bounded[-1].detach()) == pytest.approx(fence + beyond, abs=1e-5)
        bounded[-1].backward()
        assert losses.grad is not None
        assert float(losses.grad[-1]) == pytest.approx(1.0, abs=1e-3)


def test_a_quarter_of_wild_rows_does_not_move_the_fence_far():
    calm = torch.randn(300, generator=torch.Generator().manual_seed(0))
    wild = torch.cat([calm, torch.full((70,), 1e30)])
    assert float(bound_losses(wild, 10.0).mean()) < 200
    assert torch.equal(bound_losses(wild, 10.0)[:300], calm)


def test_a_robust_mean_leaves_out_the_worst_row_of_twenty_and_none_of_fewer():
    zeros = torch.zeros(19)
    assert robust_mean(torch.cat([zeros, torch.tensor([-1e12])]), 10.0) == 0
    assert robust_mean(torch.cat([zeros[1:], torch.tensor([-1e12])]), 10.0) < 0
    calm = torch.randn(1000, generator=torch.Generator().manual_seed(0))
    more_than_are_left_out = torch.cat([calm, torch.full((50,), -1e12)])
    assert robust_mean(more_than_are_left_out, 10.0) > float(calm.mean()) - 10


def test_the_standard_error_of_a_difference_is_that_of_the_rows_that_both_means_keep():
    noise = torch.randn(2, 1000, generator=torch.Generator().manual_seed(0))
    one, other = noise[0], noise[0] + 0.1 * noise[1]
    error = robust_standard_error(one, other, 10.0)
    assert error == pytest.approx(0.1 / math.sqrt(1000), rel=0.1)
    one[0], other[1], one[2] = -1e12, -1e12, math.nan
    assert robust_standard_error(one, other, 10.0) == pytest.approx(error, rel=0.1)
    assert robust_standard_error(one[:1], other[:1], 10.0) == 0
