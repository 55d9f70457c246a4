import copy
import itertools
import math
import time
from typing import Any

import pytest
import torch
from torch import Tensor

from flows import (
    ElboDivergedError,
    FitError,
    FitInterrupted,
    Flow,
    FlowError,
    FormulaTarget,
    GaussianSpec,
    LinearRegression,
    LogisticRegression,
    MadeSpec,
    Potential,
    RealNvpSpec,
    Target,
    VariationalOptions,
    VariationalReport,
    build,
    diagnose,
    fit_variational,
    quadrature_kl,
)
from tests.flows.cases import CASES, assert_same, numbers, through_bytes

GENERATOR = torch.Generator().manual_seed(0)
X = torch.randn(80, 2, generator=GENERATOR, dtype=torch.float64)
X[:, 1] += 0.8 * X[:, 0]
NOISE = torch.randn(80, generator=GENERATOR, dtype=torch.float64)
LINEAR = LinearRegression(X, 3 - X[:, 0] + 0.5 * NOISE, noise_scale=0.5, prior_scale=5.0)
RING = Potential("U1")

OPTIONS = VariationalOptions(
    learning_rate=0.01, batch_size=20, iterations=35, report_every=10, seed=7
)
SMALL = RealNvpSpec(layers=2, hidden=[8])


def with_options(**fields: Any) -> VariationalOptions:
    return VariationalOptions(**{**vars(OPTIONS), **fields})


def train(flow: Flow, target: Target, **fields: Any) -> list[VariationalReport]:
    return list(fit_variational(flow, target, options=with_options(**fields)))


def moments(flow: Flow) -> tuple[Tensor, Tensor]:
    """Mean and covariance of an affine flow, from the images of 0 and the unit vectors."""
    u = torch.cat([torch.zeros(1, flow.dim), torch.eye(flow.dim)])
    x = flow.forward(u)[0].detach().double()
    root = (x[1:] - x[0]).t()
    return x[0], root @ root.t()


CONVERGE: dict[str, Any] = {
    "learning_rate": 0.1, "schedule": "cosine", "batch_size": 64, "iterations": 400,
    "report_every": 100,
}  # fmt: skip


def test_a_full_gaussian_reaches_the_exact_posterior_and_its_evidence():
    flow, exact = build(GaussianSpec(), 3, seed=0), LINEAR.posterior()
    reports = train(flow, LINEAR, **CONVERGE)
    mean, covariance = moments(flow)
    deviations = exact.covariance.diagonal().sqrt()
    assert float(((mean - exact.mean) / deviations).abs().max()) < 0.05
    scaled = (covariance - exact.covariance) / deviations / deviations[:, None]
    assert float(scaled.abs().max()) < 0.05
    assert -0.02 < reports[-1].best_elbo - exact.log_evidence < 0.001
    assert reports[-1].best_elbo > reports[0].elbo
    found = diagnose(flow, LINEAR, samples=2000, seed=0)
    assert found.verdict == "good"
    assert found.log_evidence == pytest.approx(exact.log_evidence, abs=0.005)


def test_a_diagonal_gaussian_reaches_the_mean_field_optimum():
    flow, exact = build(GaussianSpec(covariance="diagonal"), 3, seed=0), LINEAR.posterior()
    train(flow, LINEAR, **CONVERGE)
    mean, covariance = moments(flow)
    precision = exact.covariance.inverse()
    ratio = covariance.diagonal() * precision.diagonal()
    torch.testing.assert_close(ratio, torch.ones_like(ratio), rtol=0, atol=0.05)
    gap = 0.5 * (precision.diagonal().log().sum() - precision.logdet())
    assert float(gap) > 0.2
    found = diagnose(flow, LINEAR, samples=20_000, seed=0)
    expected = exact.log_evidence - float(gap)
    assert found.elbo == pytest.approx(expected, abs=0.005 + 3 * found.elbo_standard_error)
    assert float(((mean - exact.mean) / exact.covariance.diagonal().sqrt()).abs().max()) < 0.1


def test_a_flow_started_at_the_posterior_stays_there_whatever_its_place_and_scale():
    target = LinearRegression(X, 1e4 + X[:, 0] + 1e-3 * NOISE, noise_scale=1e-3, prior_scale=1e5)
    flow = build(GaussianSpec(), 3, standardise=target.starting_point(), seed=0)
    reports = train(flow, target, **{**CONVERGE, "iterations": 300})
    gap = target.posterior().log_evidence - reports[-1].elbo
    assert -0.01 < gap < 0.05


def test_minibatches_lead_to_the_same_posterior():
    y, flows = (X[:, 0] + 0.5 * NOISE > 0).double(), []
    whole = LogisticRegression(X, y, prior_scale=2.0)
    for target in (whole, LogisticRegression(X, y, prior_scale=2.0, batch_rows=20)):
        flow = build(GaussianSpec(), 3, standardise=target.starting_point(), seed=0)
        train(flow, target, **{**CONVERGE, "iterations": 200})
        flows.append(flow)
    (mean, covariance), (other, _) = moments(flows[0]), moments(flows[1])
    assert float(((mean - other) / covariance.diagonal().sqrt()).abs().max()) < 0.25
    elbos = [diagnose(flow, whole, samples=4000, seed=0).elbo for flow in flows]
    assert elbos[1] == pytest.approx(elbos[0], abs=0.1)


@pytest.mark.slow
def test_a_flow_comes_closer_to_the_ring_than_a_gaussian():
    divergences = []
    for spec in (GaussianSpec(), RealNvpSpec(layers=4, hidden=[8])):
        flow = build(spec, 2, seed=0)
        reports = train(flow, RING, **{**CONVERGE, "learning_rate": 0.02, "iterations": 250})
        found = quadrature_kl(flow, RING, points=120)
        divergences.append(found.kl)
        # log Z = ELBO + KL, up to what lies outside the window.
        best = diagnose(flow, RING, samples=4000, seed=0)
        sum_ = best.elbo + found.kl
        assert sum_ == pytest.approx(found.log_evidence, abs=0.02 + 4 * best.elbo_standard_error)
        assert reports[-1].best_elbo > reports[0].elbo
    assert divergences[1] < 0.5 * divergences[0]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_every_family_that_maps_noise_to_rows_is_trained(case):
    flow = build(case.spec, 5, seed=0)
    start = {name: value.clone() for name, value in flow.named_parameters()}
    target = FormulaTarget("-0.5 * norm(z1 - 3, z2, z3, z4, z5)^2", 5)
    (report,) = train(flow, target, iterations=3)
    assert math.isfinite(report.elbo)
    assert report.skipped == 0
    assert not any(torch.equal(value, start[name]) for name, value in flow.named_parameters())


def test_reports_count_iterations_and_samples():
    seen = []
    flow, told = build(SMALL, 2, seed=0), lambda done, most: seen.append((done, most))
    reports = list(fit_variational(flow, RING, options=OPTIONS, on_step=told))
    assert [report.iteration for report in reports] == [10, 20, 30, 35]
    assert seen == [(i, 35) for i in range(1, 36)]
    assert [report.stop_reason for report in reports] == [None, None, None, "max_iterations"]
    assert all(report.samples_per_second > 0 for report in reports)


def test_the_standard_error_is_that_of_the_samples_mean():
    target = FormulaTarget("z1", 1)
    flow = build(GaussianSpec(), 1, seed=0).double()
    (report,) = train(flow, target, learning_rate=1e-12, iterations=10, batch_size=200)
    found = diagnose(flow, target, samples=100_000, seed=0)
    ratio = report.elbo_standard_error / (found.elbo_standard_error * 50**0.5)
    assert ratio == pytest.approx(1, abs=0.1)
    assert report.elbo == pytest.approx(found.elbo, abs=4 * report.elbo_standard_error)


@pytest.mark.parametrize(
    ("spec", "optimiser"),
    [(GaussianSpec(), "adam"), *((SMALL, name) for name in ("adam", "adamw", "adagrad", "sgd"))],
    ids=lambda value: value if isinstance(value, str) else value.family,
)
def test_resuming_from_any_report_gives_the_same_flow_to_the_bit(spec, optimiser):
    options = with_options(optimiser=optimiser, schedule="cosine", annealing=15)
    before, undisturbed = torch.random.get_rng_state(), build(spec, 2, seed=0)
    states, reports = [], []
    for report in fit_variational(undisturbed, RING, options=options):
        reports += numbers(report)
        states.append(through_bytes(report.snapshot()))
    for index, state in enumerate(states):
        resumed = build(spec, 2, seed=99)
        found = fit_variational(resumed, RING, options=options, state=state)
        assert numbers(*found) == (reports[index + 1 :] or reports[-1:])
        assert_same(resumed, undisturbed)
    other = build(spec, 2, seed=0)
    train(other, RING, **{**vars(options), "seed": 8})
    with pytest.raises(AssertionError):
        assert_same(other, undisturbed)
    assert torch.equal(torch.random.get_rng_state(), before)


MINIBATCHES = LogisticRegression(X, (NOISE > 0).double(), batch_rows=10)


@pytest.mark.parametrize(
    ("spec", "target", "stop"),
    [*((SMALL, RING, stop) for stop in (1, 10, 17, 35)), (GaussianSpec(), MINIBATCHES, 11)],
    ids=["1", "10", "17", "35", "minibatches"],
)
def test_resuming_an_interrupted_training_gives_the_same_flow_to_the_bit(spec, target, stop):
    undisturbed, resumed = build(spec, target.dim, seed=0), build(spec, target.dim, seed=0)
    expected, calls = numbers(*train(undisturbed, target)), itertools.count(1)
    found: list[VariationalReport] = []
    reports = fit_variational(
        resumed, target, options=OPTIONS, interrupted=lambda: next(calls) == stop
    )
    with pytest.raises(FitInterrupted) as caught:
        found += reports
    other, state = build(spec, target.dim, seed=5), through_bytes(caught.value.state)
    found += fit_variational(other, target, options=OPTIONS, state=state)
    assert numbers(*found) == expected
    assert_same(other, undisturbed)


def test_the_flow_ends_with_the_best_weights_in_evaluation_mode():
    flow, kept = build(SMALL, 2, seed=0), {}
    options = with_options(learning_rate=0.3, iterations=300, patience=3)
    for report in fit_variational(flow, RING, options=options):
        if report.stop_reason is None:
            kept[report.iteration] = copy.deepcopy(flow)
    assert (report.stop_reason, report.iteration) == ("patience", report.best_iteration + 30)
    assert_same(flow, kept[report.best_iteration])
    assert not flow.training


def test_training_ends_within_a_report_when_its_time_is_up():
    flow = build(SMALL, 2, seed=0)
    reports = train(flow, RING, max_seconds=0.05, iterations=10**6, report_every=10**6)
    assert [report.stop_reason for report in reports] == ["max_seconds"]
    assert 1 <= reports[0].iteration < 10**6
    assert reports[0].best_iteration == reports[0].iteration


def test_annealing_weighs_the_target_less_at_first():
    options = with_options(annealing=100)
    weights = [options.target_weight_at(i) for i in (1, 51, 100, 101, 1000)]
    assert weights == pytest.approx([0.01, 0.505, 0.9901, 1, 1])
    assert with_options().target_weight_at(1) == 1

    # A target of precision 100 pulls the scale down; weighed by 0.01 its precision is 1.
    target = FormulaTarget("-50 * z1^2", 1)
    deviations = []
    for annealing in (0, 10**6):
        flow = build(GaussianSpec(), 1, seed=0)
        train(flow, target, learning_rate=0.05, iterations=150, annealing=annealing)
        deviations.append(float(moments(flow)[1]) ** 0.5)
    assert deviations == pytest.approx([0.1, 1.0], rel=0.15)


def test_while_the_target_is_annealed_no_report_is_the_best_for_good():
    reports = train(build(SMALL, 2, seed=0), RING, annealing=30, learning_rate=1e-9)
    assert [report.best_iteration for report in reports[:3]] == [10, 20, 30]


def test_samples_outside_the_targets_support_are_left_out_and_counted():
    flow = build(GaussianSpec(), 1, seed=0)
    target = FormulaTarget("4 * log(z1) - 10 * z1", 1)  # on the positive half only
    reports = train(flow, target, iterations=150, learning_rate=0.05)
    log_evidence = math.lgamma(5) - 5 * math.log(10)
    assert all(r.elbo < log_evidence + 3 * r.elbo_standard_error for r in reports)
    assert reports[-1].best_elbo > log_evidence - 0.5
    assert reports[0].skipped > 20
    assert reports[-1].skipped < 10
    assert moments(flow)[0].item() == pytest.approx(0.5, abs=0.15)


def test_densities_that_do_not_fit_the_target_are_refused():
    ensemble = build(MadeSpec(masks=2, hidden=[4]), 2, seed=0)
    with pytest.raises(FitError, match="2 dimensions, the flow 3"):
        fit_variational(build(SMALL, 3, seed=0), RING, options=OPTIONS)
    with pytest.raises(FitError, match="noise to rows"):
        fit_variational(ensemble, RING, options=OPTIONS)
    with pytest.raises(FitError, match="noise to rows"):
        diagnose(ensemble, RING, samples=100, seed=0)


def test_states_of_other_trainings_are_refused_and_snapshots_of_the_past_and_seconds_go_on():
    reports = fit_variational(build(SMALL, 2, seed=0), RING, options=OPTIONS)
    first = next(reports)
    state = first.snapshot()
    for spec, fields, words in (
        (GaussianSpec(), {}, "another flow"),
        (SMALL, {"seed": 8}, "other rows or options"),
    ):
        other, options = build(spec, 2, seed=0), with_options(**fields)
        with pytest.raises(FitError, match=words):
            next(fit_variational(other, RING, options=options, state=state))
    next(reports)
    with pytest.raises(FlowError, match="after iteration 10"):
        first.snapshot()
    progress = state.meta["progress"]
    assert isinstance(progress, dict)
    progress["seconds"] = 1000.0
    time.sleep(0.05)  # between two attempts, which does not count
    began = time.monotonic()
    second = next(fit_variational(build(SMALL, 2, seed=0), RING, options=OPTIONS, state=state))
    assert 1000 < second.seconds <= 1000 + time.monotonic() - began


def test_the_elbo_of_a_report_with_skipped_samples_is_that_of_the_restricted_flow():
    target = FormulaTarget("0 * log(z1)", 1)  # 1 on the positive half, undefined on the other
    flow = build(GaussianSpec(), 1, seed=0)
    (report,) = train(flow, target, learning_rate=1e-12, iterations=10, batch_size=2000)
    assert report.skipped == pytest.approx(10_000, rel=0.05)
    half_normal_entropy = 0.5 * math.log(2 * math.pi * math.e) - math.log(2)
    assert report.elbo == pytest.approx(half_normal_entropy, abs=0.05)


def test_a_gradient_that_is_not_finite_spoils_no_weight():
    # Where z1 < 0 the value is 0 and the gradient is not a number.
    target = FormulaTarget("-0.5 * (z1 - 1)^2 + 0 * sqrt(abs(z1 + abs(z1)))", 1)
    flow = build(GaussianSpec(), 1, seed=0)
    reports = train(flow, target, iterations=50)
    assert all(report.skipped > 0 for report in reports)
    assert all(bool(weight.isfinite().all()) for weight in flow.parameters())
    assert float(moments(flow)[0]) > 0.1


@pytest.mark.parametrize("formula", ["log(-1 - z1^2)", "1 / 0", "sqrt(-z1^2)", "exp(exp(9)) * z1"])
def test_a_target_that_is_never_finite_is_given_up(formula):
    flow = build(GaussianSpec(), 1, seed=0)
    with pytest.raises(ElboDivergedError, match="until iteration 10") as caught:
        train(flow, FormulaTarget(formula, 1))
    assert caught.value.iteration == 10
    with pytest.raises(ElboDivergedError) as caught:
        train(flow, FormulaTarget(formula, 1), report_every=1000, iterations=1000)
    assert caught.value.iteration == 100


def test_huge_densities_keep_reports_and_states_finite():
    flow = build(GaussianSpec(), 1, seed=0).double()
    target = FormulaTarget("-1e90 * z1^2 + 1e200 * max(0, z1 - 2)", 1)
    for report in fit_variational(flow, target, options=OPTIONS):
        assert math.isfinite(report.elbo_standard_error)
        through_bytes(report.snapshot())
