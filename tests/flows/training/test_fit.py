import copy
import itertools
import math
import time
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.utils import parameters_to_vector

from flows import (
    BatchNormSpec,
    DivergedError,
    EpochReport,
    FitError,
    FitInterrupted,
    FitOptions,
    FitState,
    Flow,
    FlowError,
    FlowSpec,
    MadeSpec,
    MafSpec,
    MixedColumn,
    RealNvpSpec,
    build,
    evaluate,
    fit,
    fit_encoding,
    quantiles_of,
    rank_among,
)
from flows.bijections.batch_norm import set_dataset_statistics
from flows.preprocess import Standardise
from flows.training.steps import CompiledSteps
from tests.flows.cases import assert_same, example_rows, find, numbers, through_bytes, trained_flow

ROWS = example_rows(240, 4).float()
TRAIN, VALIDATION = ROWS[:200], ROWS[200:]
SPEC = MafSpec(layers=2, hidden=[12])
OPTIONS = FitOptions(learning_rate=0.01, weight_decay=1e-6, batch_size=32, max_epochs=4, seed=7)


def new_flow(spec: FlowSpec = SPEC) -> Flow:
    return build(spec, 4, standardise=(TRAIN.mean(dim=0), TRAIN.std(dim=0)), seed=1)


def train(flow: Flow, options: FitOptions = OPTIONS, **rest: Any) -> list[EpochReport]:
    return list(fit(flow, TRAIN, VALIDATION, options=options, **rest))


def with_options(**fields: Any) -> FitOptions:
    return FitOptions(**{**vars(OPTIONS), **fields})


def test_training_raises_the_likelihood():
    flow = new_flow()
    before = evaluate(flow, VALIDATION).mean
    reports = train(flow, with_options(max_epochs=20))
    assert reports[-1].best_validation_log_likelihood > before + 0.3
    assert [report.epoch for report in reports] == list(range(1, 21))
    assert [report.stop_reason for report in reports] == [None] * 19 + ["max_epochs"]


def test_the_same_seed_gives_the_same_flow_and_leaves_the_global_generator_alone():
    before = torch.random.get_rng_state()
    first, second, other = new_flow(), new_flow(), new_flow()
    assert numbers(*train(first)) == numbers(*train(second))
    assert_same(first, second)
    train(other, with_options(seed=8))
    with pytest.raises(AssertionError):
        assert_same(first, other)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_the_last_report_leaves_the_best_weights_and_exact_statistics_in_evaluation_mode():
    flow = new_flow()
    report = train(flow, with_options(learning_rate=0.05, max_epochs=30, patience=3))[-1]
    assert (report.stop_reason, report.epoch) == ("patience", report.best_epoch + 3)
    assert not flow.training
    found = evaluate(flow, VALIDATION).mean
    assert found == pytest.approx(report.best_validation_log_likelihood, abs=1e-5)
    assert found > report.validation_log_likelihood
    assert found == pytest.approx(report.best_robust_validation_log_likelihood, abs=1e-5)

    recomputed = copy.deepcopy(flow)
    assert recomputed.preprocessing.standardise is not None
    pieces = [(recomputed.preprocessing.standardise.inverse(TRAIN)[0].float(), None, None)]
    set_dataset_statistics(recomputed.transform, lambda: iter(pieces))
    for name, tensor in flow.state_dict().items():
        torch.testing.assert_close(tensor, recomputed.state_dict()[name], msg=name)


def test_without_patience_training_goes_on_to_the_last_epoch():
    reports = train(new_flow(), with_options(learning_rate=0.05, max_epochs=12, patience=None))
    assert len(reports) == 12
    assert reports[-1].best_epoch < 12


SPECS = [SPEC, RealNvpSpec(layers=2, hidden=[8], batch_norm=BatchNormSpec(statistics="running"))]


@pytest.mark.parametrize(
    ("spec", "optimiser"),
    [(SPECS[0], "adam"), (SPECS[0], "adamw"), (SPECS[1], "adagrad"), (SPECS[1], "sgd")],
    ids=lambda value: value if isinstance(value, str) else value.family,
)
def test_resuming_from_any_epoch_gives_the_same_flow_to_the_bit(spec, optimiser):
    options = with_options(optimiser=optimiser, schedule="cosine")
    undisturbed, states, reports = new_flow(spec), [], []
    for report in fit(undisturbed, TRAIN, VALIDATION, options=options):
        reports += numbers(report)
        states.append(through_bytes(report.snapshot()))
    for epoch, state in enumerate(states, start=1):
        resumed = build(spec, 4, standardise=(torch.zeros(4), torch.ones(4)), seed=99)
        resumed.load_state_dict(new_flow(spec).state_dict())
        rest = numbers(*train(resumed, options, state=state))
        assert rest == (reports[epoch:] or reports[-1:])
        assert_same(resumed, undisturbed)


def test_a_training_interrupted_at_every_batch_ends_as_an_undisturbed_one():
    undisturbed, flow, state, runs = new_flow(), new_flow(), None, 0
    reports: list[EpochReport] = []
    taken: list[int] = []
    expected = numbers(*train(undisturbed))
    while not (reports and reports[-1].stop_reason):
        flow, runs = new_flow(), runs + 1
        steps = fit(flow, TRAIN, VALIDATION, options=OPTIONS, state=state, interrupted=lambda: True)
        try:
            reports += steps
        except FitInterrupted as stop:
            state = through_bytes(stop.state)
            taken.append(state.step)
    assert runs == 4 * 7 + 1
    assert taken == list(range(1, runs))
    assert numbers(*reports) == expected
    assert_same(flow, undisturbed)


def test_an_interrupted_evaluation_is_repeated():
    """A crash in the midst of the validation rows costs their scores alone."""
    undisturbed, resumed, kept, calls = new_flow(), new_flow(), [], itertools.count(1)
    expected = train(undisturbed)

    def crash_behind_the_last_batch(*_args: object) -> None:
        if next(calls) == 8:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(
            new_flow(),
            on_batch=crash_behind_the_last_batch,
            on_state=lambda state: kept.append(through_bytes(state())),
        )
    assert numbers(*train(resumed, state=kept[-1])) == numbers(*expected)
    assert_same(resumed, undisturbed)


def test_a_snapshot_of_an_epoch_that_has_passed_is_refused():
    reports = fit(new_flow(), TRAIN, VALIDATION, options=OPTIONS)
    first = next(reports)
    next(reports)
    with pytest.raises(FlowError, match="epoch 1"):
        first.snapshot()


def test_a_finished_training_goes_on_with_more_epochs():
    longer, flow = new_flow(), new_flow()
    expected = train(longer, with_options(max_epochs=6))
    rest = train(flow, with_options(max_epochs=6), state=train(flow)[-1].snapshot())
    assert numbers(*rest) == numbers(*expected[4:])
    assert_same(flow, longer)


@pytest.mark.parametrize(
    ("spec", "fields"),
    [
        (MafSpec(layers=3, hidden=[12]), {}),
        (SPEC, {"optimiser": "sgd"}),
        (SPEC, {"batch_size": 20}),
        (SPEC, {"seed": 8}),
    ],
    ids=["flow", "optimiser", "batches", "seed"],
)
def test_a_state_of_another_training_is_refused(spec, fields):
    state = next(fit(new_flow(), TRAIN, VALIDATION, options=OPTIONS)).snapshot()
    with pytest.raises(FitError, match="the state belongs to"):
        train(new_flow(spec), with_options(**fields), state=state)


def test_a_state_of_an_earlier_release_lacks_what_samples_alone_depend_on():
    columns = [MixedColumn(noise=0.1), *[MixedColumn()] * 3]
    flows = [build(SPEC, 4, columns=columns, seed=1) for _ in range(3)]
    for flow in flows:
        fit_encoding(flow, TRAIN)
    state = next(fit(flows[0], TRAIN, VALIDATION, options=OPTIONS)).snapshot()
    absent = "/preprocessing.extent", "/preprocessing.denoise."
    kept = {k: v for k, v in state.tensors.items() if not any(name in k for name in absent)}
    assert len(kept) < len(state.tensors)
    train(flows[1], state=FitState(kept, state.meta))
    train(flows[2])
    assert_same(*flows[1:])


@pytest.mark.parametrize("rows", [33, 65, 97, 2])
def test_no_batch_is_left_with_a_single_row(rows, monkeypatch):
    sizes = []
    take = CompiledSteps.take

    def watched(steps, x, number):
        sizes.append(len(x))
        return take(steps, x, number)

    monkeypatch.setattr(CompiledSteps, "take", watched)
    list(fit(new_flow(), ROWS[:rows], VALIDATION, options=with_options(max_epochs=1)))
    assert sum(sizes) == rows
    assert max(sizes) <= 32
    assert max(sizes) - min(sizes) <= 1


def test_batch_norm_refuses_batches_of_one_row():
    with pytest.raises(FitError, match="at least 2 rows"):
        train(new_flow(), with_options(batch_size=1))
    with pytest.raises(FitError, match="at least 2 rows"):
        list(fit(new_flow(), TRAIN[:1], VALIDATION, options=OPTIONS))
    plain = new_flow(MadeSpec(hidden=[4]))
    list(fit(plain, TRAIN[:3], VALIDATION, options=with_options(batch_size=1, max_epochs=1)))


def test_batches_are_reported_as_they_are_done_and_so_are_chunks_of_the_evaluation():
    seen = []
    train(new_flow(), with_options(max_epochs=2), on_batch=lambda *args: seen.append(args))
    epoch = [*((batch, 7) for batch in range(1, 8)), (7, 7)]  # and the validation rows
    norms = 2  # whose statistics are set at the end
    assert seen == epoch * 2 + [(7, 7)] * (norms + 1)


def test_divergence_is_found_within_the_epoch():
    flow, rows, done = new_flow(MadeSpec(hidden=[4])), TRAIN.repeat(50, 1), []
    options = with_options(optimiser="sgd", learning_rate=1e30)
    with pytest.raises(DivergedError, match="epoch 1") as caught:
        list(fit(flow, rows, VALIDATION, options=options, on_batch=lambda b, _: done.append(b)))
    assert caught.value.epoch == 1
    assert done[-1] < 40 < len(rows) / 32


def test_a_validation_likelihood_that_is_not_finite_is_divergence():
    flow = new_flow(MadeSpec(hidden=[4]))
    with pytest.raises(DivergedError):
        list(fit(flow, TRAIN, VALIDATION * 1e25, options=OPTIONS))


def test_time_is_up_within_an_epoch_and_counted_over_resumptions():
    flow = new_flow()
    options = with_options(max_seconds=0.05, max_epochs=100)
    (report,) = train(flow, options, on_batch=lambda *_: time.sleep(0.03))
    assert (report.stop_reason, report.epoch) == ("max_seconds", 1)
    assert report.seconds >= 0.05
    again = train(flow, with_options(max_seconds=0.05), state=through_bytes(report.snapshot()))
    assert numbers(*again) == numbers(report)
    (later,) = train(flow, with_options(max_seconds=1e-9), state=report.snapshot())
    assert later.seconds == report.seconds


def test_seconds_go_on_from_those_of_the_state():
    reports = fit(new_flow(), TRAIN, VALIDATION, options=OPTIONS)
    state = next(reports).snapshot()
    progress = state.meta["progress"]
    assert isinstance(progress, dict)
    progress["seconds"] = 1000.0
    assert train(new_flow(), state=state)[0].seconds > 1000


def test_a_gradient_longer_than_the_bound_is_shortened_to_it():
    steps, fields = {}, {"optimiser": "sgd", "weight_decay": 0.0, "max_epochs": 1}
    for bound in (None, 1e-3, 1e9):
        flow = new_flow()
        before = parameters_to_vector(flow.parameters()).detach()
        train(flow, with_options(batch_size=200, max_gradient_norm=bound, **fields))
        steps[bound] = float((parameters_to_vector(flow.parameters()).detach() - before).norm())
    assert steps[1e-3] == pytest.approx(OPTIONS.learning_rate * 1e-3, rel=0.05)
    assert steps[1e9] == steps[None] > 10 * steps[1e-3]


def test_likelihoods_are_in_the_units_of_the_data():
    plain, scaled = build(SPEC, 4, seed=1), new_flow()
    standardise = Standardise(TRAIN.mean(dim=0), TRAIN.std(dim=0))
    rows = [standardise.inverse(x)[0].float() for x in (TRAIN, VALIDATION)]
    constant = float(standardise.std.log().sum())
    for report, other in zip(train(scaled), fit(plain, *rows, options=OPTIONS), strict=True):
        for name in ("train_log_likelihood", "validation_log_likelihood"):
            gap = getattr(other, name) - getattr(report, name)
            assert gap == pytest.approx(constant, abs=1e-4)


def test_an_evaluation_gives_the_mean_and_two_standard_errors_and_tells_each_chunk():
    flow, x, told = trained_flow(find("maf"), 3), example_rows(101, 3, seed=1), []
    scores = flow.log_prob(x).detach()
    result = evaluate(flow, x, chunk_rows=10, on_chunk=lambda: told.append(1))
    assert (result.rows, len(told)) == (101, 11)
    assert result.mean == pytest.approx(float(scores.mean()))
    assert result.two_standard_errors == pytest.approx(2 * float(scores.std()) / math.sqrt(101))
    assert math.isfinite(evaluate(flow, x[:1]).mean)
    assert math.isnan(evaluate(flow, x[:1]).two_standard_errors)
    with pytest.raises(FitError, match="no rows"):
        evaluate(flow, x[:0])


def test_weight_decay_of_adam_is_an_l2_term_of_the_gradient():
    flow, other = new_flow(MadeSpec(hidden=[8])), new_flow(MadeSpec(hidden=[8])).train()
    options = with_options(weight_decay=0.3, batch_size=200, max_epochs=1)
    train(flow, options)
    rows = Standardise(TRAIN.mean(dim=0), TRAIN.std(dim=0)).inverse(TRAIN)[0].float()
    penalty = sum(parameter.square().sum() for parameter in other.parameters())
    (-other.log_prob(rows, space="model").mean() + 0.15 * penalty).backward()
    torch.optim.Adam(other.parameters(), lr=options.learning_rate).step()
    for parameter, expected in zip(flow.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(parameter, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("train_rows", "validation_rows", "text"),
    [
        (TRAIN[:, :3], VALIDATION[:, :3], "training"),
        (TRAIN[:0], VALIDATION, "training"),
        (TRAIN, VALIDATION[:0], "validation"),
        (TRAIN * float("nan"), VALIDATION, "training rows hold"),
        (TRAIN, VALIDATION * float("inf"), "validation rows hold"),
    ],
)
def test_rows_that_cannot_be_trained_on_are_refused(train_rows, validation_rows, text):
    with pytest.raises(FitError, match=text):
        fit(new_flow(), train_rows, validation_rows, options=OPTIONS)


def test_the_callers_rows_are_left_as_they_are():
    rows, kept = TRAIN.clone(), TRAIN.clone()
    flow = build(SPEC, 4, seed=1)
    list(fit(flow, rows, VALIDATION, options=OPTIONS))
    assert torch.equal(rows, kept)
    assert math.isfinite(evaluate(flow, rows).mean)


@pytest.mark.gpu
def test_training_on_a_gpu_resumes_where_it_stopped():
    undisturbed = new_flow().cuda()
    reports = fit(undisturbed, TRAIN, VALIDATION, options=OPTIONS)
    states = [through_bytes(report.snapshot()) for report in reports]
    resumed = new_flow().cuda()
    train(resumed, state=states[1])
    for parameter, expected in zip(resumed.parameters(), undisturbed.parameters(), strict=True):
        torch.testing.assert_close(parameter, expected, rtol=1e-4, atol=1e-5)


def test_sums_are_taken_in_float64():
    flow = trained_flow(find("maf"), 3).float()
    x = example_rows(20_000, 3, seed=1).float()
    with torch.no_grad():
        exact = flow.log_prob(x).double().mean()
    assert evaluate(flow, x).mean == pytest.approx(float(exact), rel=1e-6)


def test_the_mode_of_the_flow_is_kept_and_not_used():
    flow, x = trained_flow(find("maf"), 3), example_rows(40, 3, seed=1)
    expected = evaluate(flow.eval(), x)
    assert not flow.training
    assert evaluate(flow.train(), x) == expected
    assert flow.training


HELD_OUT = np.random.default_rng(0).normal(size=5_000)


@pytest.mark.parametrize("rows", [5, 50, 400, 1000])
def test_a_rank_counts_the_row_and_the_rows_that_are_at_most_as_likely(rows):
    held_out, fresh = HELD_OUT[:rows], HELD_OUT[-1000:]
    ranks = rank_among(fresh, quantiles_of(held_out), rows=rows)
    exact = (1 + (held_out <= fresh[:, None]).sum(axis=1)) / (rows + 1)
    assert np.mean(np.abs(ranks - exact) > 1e-12) < 0.005  # some differ by less than rounding does


def test_of_many_rows_the_ranks_are_as_fine_as_the_rows():
    fresh = np.random.default_rng(1).normal(size=2_000)
    ranks = rank_among(fresh, quantiles_of(HELD_OUT), rows=len(HELD_OUT))
    exact = (1 + (fresh[:, None] >= HELD_OUT).sum(axis=1)) / (len(HELD_OUT) + 1)
    assert np.abs(ranks - exact).max() < 0.001
    assert len(np.unique(ranks)) > 1_900


@pytest.mark.parametrize("interpolated", [False, True])
@pytest.mark.parametrize("rows", [9, 50, 333])
def test_fresh_rows_are_below_a_rank_as_seldom_as_it_says(rows, interpolated):
    """Models of before kept quantiles that were interpolated between rows."""
    random = np.random.default_rng(rows)
    trials, each = 2_000, 20
    below = {0.01: 0, 0.05: 0}
    for _ in range(trials):
        held_out = random.standard_t(3, size=rows)
        quantiles = quantiles_of(held_out)
        if interpolated:
            quantiles = np.quantile(held_out, np.linspace(0, 1, 1001))
        ranks = rank_among(random.standard_t(3, size=each), quantiles, rows=rows)
        for rank in below:
            below[rank] += int((ranks <= rank).sum())
    for rank, count in below.items():
        # Fresh rows of one trial are judged by the same rows, so the share of each trial is one draw.
        deviation = np.sqrt(rank * (1 - rank) * (1 / each + 1 / rows) / trials)
        assert count / (trials * each) < rank + 4 * deviation


def test_what_is_beyond_all_rows_has_the_least_and_the_greatest_rank():
    beyond = np.array([-1e9, -1e300, -np.inf, 1e9, np.inf, np.nan])
    ranks = rank_among(beyond, quantiles_of(HELD_OUT), rows=5_000)
    assert ranks[:5] == pytest.approx([1 / 5001, 1 / 5001, 0, 1, 1])
    assert np.isnan(ranks[5])


def test_rows_that_are_as_likely_all_count_and_rounding_changes_nothing():
    quantiles = quantiles_of(np.repeat([-2.0, -1.0], 500))
    for moved in (0.0, 1e-6, -1e-6):
        ranks = rank_among(np.array([-2.0, -1.0]) + moved, quantiles, rows=1000)
        assert ranks == pytest.approx([501 / 1001, 1])
    ranks = rank_among(np.array([-2.1, -1.5, -0.9]), quantiles, rows=1000)
    assert ranks == pytest.approx([1 / 1001, 501 / 1001, 1])


def test_rows_without_a_density_count_as_the_least_likely():
    quantiles = quantiles_of(np.array([-np.inf, np.nan, -2.0, -1.0]))
    assert np.isfinite(quantiles).all()
    ranks = rank_among(np.array([-50.0, -np.inf]), quantiles, rows=4)
    assert ranks == pytest.approx([3 / 5, 3 / 5])
    with pytest.raises(FlowError):
        quantiles_of(np.array([]))
