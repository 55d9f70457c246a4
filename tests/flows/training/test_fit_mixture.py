"""Expectation maximisation against scikit-learn and closed forms, and its states."""

import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from flows import (
    EpochReport,
    FitError,
    FitInterrupted,
    FitOptions,
    FitState,
    Flow,
    GaussianMixtureSpec,
    MixedColumn,
    MixedSpec,
    build,
    compile_flow,
    fit,
    fit_encoding,
)
from tests.flows.cases import assert_same, draw, through_bytes, trained


def clusters(rows: int, *, seed: int = 0) -> Tensor:
    """Three clusters of different covariances in three dimensions."""
    kind = torch.randint(3, (rows,), generator=torch.Generator().manual_seed(seed))
    centres = torch.tensor([[0, 0, 0], [6, -4, 2], [-5, 5, 5]], dtype=torch.float64)
    return (
        torch.einsum("bij,bj->bi", draw(3, 3, 3, seed=9)[kind], draw(rows, 3, seed=seed))
        + centres[kind]
    )


def fitted(
    spec: GaussianMixtureSpec, rows: Tensor, held_out: Tensor, **given: object
) -> tuple[Flow, list[EpochReport]]:
    moments = rows.mean(dim=0), rows.std(dim=0).clamp(min=1e-9)
    flow = build(spec, rows.shape[1], standardise=moments, seed=1)
    options = FitOptions(max_epochs=500, seed=2)
    return flow, list(fit(flow, rows, held_out, options=options, **given))  # type: ignore[arg-type]


def test_it_reaches_the_likelihood_of_scikit_learn_and_finds_the_number_of_clusters():
    train, held_out = clusters(3000), clusters(2000, seed=1)
    flow, reports = fitted(GaussianMixtureSpec(), train, held_out)
    from sklearn.mixture import GaussianMixture  # noqa: PLC0415  seconds to import

    peer = GaussianMixture(3, random_state=0).fit(train.numpy())
    found = compile_flow(flow).log_prob(held_out.numpy()).mean()
    assert found == pytest.approx(peer.score(held_out.numpy()), abs=0.01)
    assert clusters_of(flow) == 3
    assert reports[-1].stop_reason == "converged"
    assert reports[-1].best_validation_log_likelihood == pytest.approx(found, abs=1e-3)
    near = draw(600, 2, seed=3)  # by half the likelihood it would be one cluster
    near[:200, 0] += 3
    peers = (GaussianMixture(count, random_state=0).fit(near.numpy()) for count in (1, 2, 3))
    criteria = [peer.bic(near.numpy()) for peer in peers]
    assert clusters_of(fitted(GaussianMixtureSpec(), near, near)[0]) == 1 + np.argmin(criteria)


def clusters_of(flow: Flow) -> int:
    return int((flow.transform.get_parameter("logits") > -5e3).sum())


def test_the_likelihood_of_the_training_rows_never_falls_while_a_number_is_fitted():
    _, reports = fitted(GaussianMixtureSpec(components=4), clusters(800), clusters(100, seed=1))
    reached = [report.train_log_likelihood for report in reports[:-1]]
    assert len(reached) > 3
    assert all(after > before - 1e-4 for before, after in itertools.pairwise(reached))
    best = reports[reports[-1].best_epoch - 1].robust_validation_log_likelihood
    assert reports[-1].best_robust_validation_log_likelihood == pytest.approx(best)


def test_constant_and_repeated_columns_and_few_rows_have_a_density():
    rows = clusters(60)
    rows = torch.cat([rows, rows[:, :1], torch.full((60, 1), 3.0)], dim=1)
    flow, _ = fitted(GaussianMixtureSpec(), rows, rows)
    assert bool(flow.log_prob(rows).isfinite().all())
    samples = flow.sample(50, generator=torch.Generator().manual_seed(0))
    assert bool(samples.isfinite().all())


def test_more_components_than_rows_are_refused():
    with pytest.raises(FitError, match="needs as many whole rows"):
        fitted(GaussianMixtureSpec(components=30), clusters(20), clusters(5))


def test_a_fit_that_is_interrupted_at_every_iteration_ends_as_an_undisturbed_one() -> None:
    spec, train, held_out = GaussianMixtureSpec(), clusters(300), clusters(150, seed=1)
    whole, reports = fitted(spec, train, held_out)
    state, attempts, resumed = None, 0, None
    while resumed is None:
        try:
            resumed, _ = fitted(spec, train, held_out, state=state, interrupted=lambda: True)
        except FitInterrupted as interruption:
            state, attempts = through_bytes(interruption.state), attempts + 1
    assert attempts == len(reports) - 1
    assert_same(whole, resumed)
    assert fitted(spec, train, held_out, state=reports[-1].snapshot())[1][-1].epoch == len(reports)


def mixed_table(spec: GaussianMixtureSpec, **fields: Any) -> tuple[Flow, Tensor]:
    rows = clusters(600)
    rows[:, 2] = (rows[:, 2] > 2).double()
    columns = [MixedColumn(), MixedColumn(), MixedColumn(levels=2)]
    mixed = MixedSpec(columns=columns, flow=spec, hidden=[8], rows=600, **fields)
    flow = build(mixed, 3, seed=0)
    fit_encoding(flow, rows)
    return flow, rows


def test_a_time_limit_keeps_the_mixture_so_far():
    rows = clusters(500)
    flow = build(GaussianMixtureSpec(components=5), 3, seed=1)
    options = FitOptions(max_seconds=1e-6)
    reports = list(fit(flow, rows, rows, options=options))
    assert [report.stop_reason for report in reports] == ["max_seconds"]
    assert bool(flow.log_prob(rows).isfinite().all())


def test_one_wild_validation_row_does_not_reach_the_robust_likelihood():
    rows = clusters(300)
    far = torch.cat([rows[1:], torch.full((1, 3), 1e6, dtype=torch.float64)])
    flow = build(GaussianMixtureSpec(components=2), 3, seed=1)
    report = list(fit(flow, rows, far, options=FitOptions(max_epochs=3, row_loss_bound=10.0)))[-1]
    assert report.validation_log_likelihood < -1e6
    assert -100 < report.robust_validation_log_likelihood < 0


def test_a_marginal_and_a_conditional_are_those_of_the_gaussians():
    flow, _ = fitted(GaussianMixtureSpec(components=3), clusters(1000), clusters(100, seed=1))
    layer = flow.transform
    x = torch.randn(40, 3)
    observed = torch.tensor([[1.0, 0.0, 1.0]]).expand(40, -1)
    marginal = layer.log_density(x * observed, None, observed)
    parts = layer.components()  # type: ignore[operator]
    inverse = torch.linalg.inv(parts.factors)
    covariances = (inverse @ inverse.mT)[:, [0, 2]][:, :, [0, 2]]
    gaussians = torch.distributions.MultivariateNormal(parts.means[:, [0, 2]], covariances)
    expected = torch.logsumexp(parts.log_weights + gaussians.log_prob(x[:, None, [0, 2]]), dim=1)
    torch.testing.assert_close(marginal, expected, rtol=1e-4, atol=1e-4)

    spec = GaussianMixtureSpec(components=3)
    joint = build(spec, 2, context_dim=1, seed=1)
    joint.transform.load_state_dict(layer.state_dict())
    given = joint.log_prob(x[:, 1:], x[:, :1])
    first = torch.tensor([[1.0, 0.0, 0.0]]).expand(40, -1)
    expected = layer.log_density(x) - layer.log_density(x * first, None, first)
    torch.testing.assert_close(given, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("limit", "iterations"), [(1e-6, 1), (None, 10)])
def test_in_a_mixed_table_the_limit_of_time_counts_the_fit_of_the_mixture(limit, iterations):
    (flow, rows), states = mixed_table(GaussianMixtureSpec()), list[FitState]()
    options = FitOptions(max_epochs=1, batch_size=100, max_seconds=limit)
    keep = lambda make: states.append(make())  # noqa: E731
    list(fit(flow, rows[:500], rows[500:], options=options, on_state=keep))
    fitting = [state for state in states if "mixture" in state.meta]
    assert len(fitting) == iterations if limit else len(fitting) > iterations
    assert bool(flow.log_prob(rows).isfinite().all())


def test_in_a_mixed_table_hidden_numbers_have_the_exact_marginal():
    flow, rows = mixed_table(GaussianMixtureSpec(components=3), missing="any")
    before = flow.log_prob(rows).mean()
    trained(flow, rows[:500], rows[500:], max_epochs=2, batch_size=100, seed=1)
    gap = rows[:1].clone()
    gap[:, 0] = math.nan
    filled = gap.repeat(4001, 1)
    filled[:, 0] = torch.linspace(-40, 40, 4001, dtype=torch.float64)
    with torch.no_grad():
        assert flow.log_prob(rows).mean() > before + 0.5
        parts = flow.log_prob_parts(filled)[:, 1].double()
    total = torch.logsumexp(parts, dim=0) + math.log(80 / 4000)
    compiled = compile_flow(flow)
    assert compiled.log_prob_parts(gap.numpy())[0, 1] == pytest.approx(float(total), abs=0.02)
    assert np.isfinite(compiled.sample(20, seed=0)[:, :2]).all()
