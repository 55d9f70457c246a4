"""The companion of a flow, and answers about any columns given any others, against sums, integrals and closed forms."""

import itertools
import math
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch

from flows import (
    FitOptions,
    Flow,
    FlowError,
    GaussianMixtureSpec,
    MixedColumn,
    MixedSpec,
    NsfSpec,
    build,
    compile_flow,
    fit,
    fit_encoding,
)
from flows.compiled.answers import expect, impute, weighted_quantiles, weighted_shares
from flows.compiled.calibration import companion_of
from flows.compiled.conditions import Conditions, Within
from flows.compiled.questions import Effort, Questions, pareto_k
from flows.mixed.companion_fitting import fit_companion

COLUMNS = [
    MixedColumn(levels=3),
    MixedColumn(levels=2, missing=True),
    MixedColumn(spikes=[0.0], missing=True, transform="asinh"),
]
SPEC = MixedSpec(
    columns=COLUMNS, flow=NsfSpec(layers=1, hidden=[8], bins=4), hidden=[8], rows=10**6
)


def example_rows(count: int = 600) -> torch.Tensor:
    draw = np.random.default_rng(0)
    kind = draw.integers(0, 3, count).astype(float)
    flag = (draw.random(count) < 0.2 + 0.3 * kind).astype(float)
    number = kind + draw.normal(size=count)
    number[draw.random(count) < 0.2] = 0.0
    number[draw.random(count) < 0.1] = np.nan
    flag[draw.random(count) < 0.1] = np.nan
    return torch.from_numpy(np.column_stack([kind, flag, number]))


@cache
def trained() -> Flow:
    rows, flow = example_rows(), build(SPEC, 3, seed=1)
    fit_encoding(flow, rows[:500])
    options = FitOptions(learning_rate=0.02, batch_size=50, max_epochs=12, seed=3)
    for _ in fit(flow, rows[:500], rows[500:], options=options):
        pass
    return flow.eval()


@cache
def questions() -> Questions:
    rows, flow = example_rows(), build(SPEC, 3, seed=1)
    fit_encoding(flow, rows[:500])
    options = FitOptions(learning_rate=0.01, batch_size=100, max_epochs=4, seed=3)
    for _ in fit(flow, rows[:500], rows[500:], options=options):
        pass
    flow = flow.eval()
    flow.companion = fit_companion(flow, rows[:500], rows[500:], seed=0)
    return Questions(compile_flow(flow))


def cells(column: int) -> list[tuple[float, float]]:
    """All states of a cell with their log volumes; a continuous one on a grid of its scores."""
    if column < 2:
        return [(float(level), 0.0) for level in range(3 - column)] + [(math.nan, 0.0)] * column
    scores = torch.linspace(-8, 8, 400, dtype=torch.float64)[:, None]
    flow = questions().flow
    values = flow.decode_continuous(scores, [0])[:, 0]
    rows = torch.zeros(400, 3, dtype=torch.float64)
    rows[:, 2] = torch.from_numpy(values)
    volumes = math.log(16 / 399) - flow.encode(rows)[1][:, 2].numpy()
    return [*zip(values.tolist(), volumes.tolist(), strict=True), (0.0, 0.0), (math.nan, 0.0)]


def log_sum(row: np.ndarray, columns: tuple[int, ...]) -> float:
    """Log density of some cells of a row, by the sum over all others."""
    every = [[(row[c], 0.0)] if c in columns else cells(c) for c in range(3)]
    table = np.array(list(itertools.product(*every)))
    terms = questions().flow.log_prob(table[:, :, 0].copy()) + table[:, :, 1].sum(axis=1)
    return float(torch.from_numpy(terms).logsumexp(dim=0))


SUBSETS = [s for size in (1, 2) for s in itertools.combinations(range(3), size)]


@pytest.mark.parametrize("asked", SUBSETS, ids=str)
def test_densities_of_some_columns_agree_with_sums_within_their_standard_errors(asked):
    rows = example_rows()[500:512].numpy()
    found = questions().log_prob(rows, asked)
    wanted = np.array([log_sum(row, asked) for row in rows])
    assert (np.abs(found.log_prob - wanted) <= 3 * found.standard_error + 2e-3).all()
    if 2 in asked:  # what is left are few categories
        assert (found.standard_error == 0).all()


def test_the_density_of_the_others_knows_no_level_that_training_never_saw():
    rows, found = example_rows(), []
    for unseen in (0.0, 0.3):
        columns = [replace(COLUMNS[0], unseen=unseen), *COLUMNS[1:]]
        flow = build(replace(SPEC, columns=columns), 3, seed=1)
        flow.load_state_dict(trained().state_dict())
        flow.companion = fit_companion(flow.eval(), rows[:500], rows[500:], seed=0)
        found.append(Questions(compile_flow(flow)).log_prob(rows[500:510].numpy(), [1]).log_prob)
    assert found[1] == pytest.approx(found[0], abs=1e-3)


def test_a_conditional_density_is_the_joint_over_the_known_part():
    rows = example_rows()[500:510].numpy()
    found = questions().log_prob(rows, [0], [1, 2])
    whole = questions().flow.log_prob(rows)
    assert found.log_prob == pytest.approx(whole - [log_sum(row, (1, 2)) for row in rows], abs=1e-3)
    assert (found.standard_error == 0).all()


def test_a_conditional_density_is_as_uncertain_as_what_it_is_given() -> None:
    rows = example_rows()[500:504].numpy()
    found, given = questions().log_prob(rows, [2], [0]), questions().log_prob(rows, [0])
    assert (questions().log_prob(rows, [0, 2]).standard_error == 0).all()
    assert (found.standard_error == given.standard_error).all()
    assert (given.standard_error > 0).all()
    # A companion of other rows proposes what is hardly ever so.
    misled = build(SPEC, 3, seed=1)
    misled.load_state_dict(trained().state_dict())
    others = example_rows() * torch.tensor([1, 1, 30])
    misled.companion = fit_companion(misled.eval(), others[:500], others[500:], seed=0)
    asks = Questions(compile_flow(misled))
    assert (asks.log_prob(rows, [0, 2]).uncertain == 0).all()
    assert (asks.log_prob(rows, [2], [0]).uncertain == 1).all()


@pytest.mark.parametrize("high", [1.5, math.inf])
def test_unknown_cells_are_drawn_within_their_conditions(high):
    row = np.array([[np.nan, 1.0, np.nan]])
    conditions = Conditions({0: Within(values=(0.0, 2.0)), 2: Within(low=0.5, high=high)})
    known = np.array([False, True, False])
    effort = Effort(draws=512, most=512)
    [(_, found)] = questions().weighted(row, known, conditions=conditions, effort=effort)
    kind, number = found.cells[0].T
    assert set(kind) <= {0.0, 2.0}
    assert number.min() >= 0.5
    assert number.max() <= high
    exact = {
        level: sum(
            math.exp(questions().flow.log_prob(np.array([[level, 1.0, v]]))[0] + w)
            for v, w in cells(2)
            if 0.5 <= v <= high
        )
        for level in (0.0, 2.0)
    }
    share = found.weights[0][kind == 2.0].sum()
    assert share == pytest.approx(exact[2.0] / sum(exact.values()), abs=0.05)
    levels = found.levels[0]
    assert levels is not None
    assert levels[0][1] == 0
    assert levels[0][2] == pytest.approx(share, abs=0.1)
    one = Conditions({2: Within(low=1.5, high=1.5)})  # which has no probability, as a spike would
    with pytest.raises(FlowError, match="no value of column 2"):
        list(questions().weighted(row, known, conditions=one))


def test_a_condition_at_the_bound_of_a_column_leaves_its_last_step_whole():
    rows = torch.from_numpy(np.random.default_rng(0).integers(0, 4, (600, 2)).astype(float))
    ends = MixedColumn(transform="logit", low=0.0, high=3.0, step=1.0)
    flow = build(replace(SPEC, columns=[ends, MixedColumn()]), 2, seed=1)
    fit_encoding(flow, rows)
    flow.companion = fit_companion(flow.eval(), rows[:500], rows[500:], seed=0)
    asks, row = Questions(compile_flow(flow)), np.array([[np.nan, 1.0]])
    for pair in (Within(low=0.0), Within(low=-1.0)), (Within(high=3.0), Within(high=4.0)):
        weighted = [
            asks.weighted(row, ~np.isnan(row[0]), conditions=Conditions({0: one})) for one in pair
        ]
        (_, at), (_, beyond) = (next(iter(found)) for found in weighted)
        assert np.array_equal(at.cells, beyond.cells)


def test_draws_fill_gaps_and_leave_known_cells_as_they_are():
    rows = np.array([[np.nan, 1.0, 99.0], [2.0, np.nan, 0.123456789]])
    found = impute(questions(), rows, fill="draw").rows
    assert np.where(np.isnan(rows), np.nan, found) == pytest.approx(rows, rel=0, abs=0, nan_ok=True)
    assert found[0, 0] in {0.0, 1.0, 2.0}


def test_probabilities_of_a_category_are_those_that_validation_rows_make_likely():
    """Rows that tell nothing of a category make its probabilities flatter, and none of other answers different."""
    rows, flow = example_rows(), trained()
    noise = rows.clone()
    noise[:, 0] = torch.arange(600) % 3
    found = []
    for validation in (rows[500:], noise):
        flow.companion = companion_of(flow, example_rows()[:500], validation, seed=0)
        asks = Questions(compile_flow(flow))
        density = asks.log_prob(rows[:9].numpy(), [0], [1, 2]).log_prob
        found.append((expect(asks, rows[:200].numpy(), 0).levels, density))
    (fitted, exact), (flat, same) = found
    assert (exact == same).all()
    assert flat.max(axis=1).mean() < fitted.max(axis=1).mean() - 0.05
    assert (flat.argmax(axis=1) == fitted.argmax(axis=1)).mean() > 0.95


@pytest.mark.parametrize("fill", ["mean", "median"])
def test_levels_that_are_numbers_have_means_and_quantiles_among_them(fill):
    """Those of the probabilities that `expect` gives, summed up from the least number."""
    numbers, draw = [0.5, 1.0, 2.0, 7.0], np.random.default_rng(0)
    kind = draw.integers(0, 2, 400)
    level = np.array(numbers)[np.minimum(draw.poisson(0.3 + 1.5 * kind), 3)]
    rows = torch.from_numpy(np.column_stack([level, kind]).astype(float))
    columns = [MixedColumn(levels=4, values=numbers), MixedColumn(levels=2)]
    flow = build(replace(SPEC, columns=columns, rows=400), 2, seed=1)
    fit_encoding(flow, rows)
    flow.companion = fit_companion(flow.eval(), rows[:300], rows[300:], seed=0)
    asks = Questions(compile_flow(flow))
    asked = np.array([[np.nan, 0.0], [np.nan, 1.0]])
    answer, found = expect(asks, asked, 0), impute(asks, asked, fill=fill, level=0.8)
    assert answer.mean == pytest.approx(answer.levels @ numbers)
    low, high, middle = asks.companion.calibrated(0, [0.1, 0.9, 0.5])
    for row, probabilities in enumerate(answer.levels):
        upto = list(zip(itertools.accumulate(probabilities), numbers, strict=True))
        ends = [next(n for total, n in upto if total >= share - 1e-9) for share in (low, high)]
        assert [found.low[row, 0], found.high[row, 0]] == ends
        median = next(number for total, number in upto if total >= middle - 1e-9)
        target = median if fill == "median" else answer.mean[row]
        assert found.rows[row, 0] == min(numbers, key=lambda number: abs(number - target))


def test_intervals_hold_their_share_of_rows_like_those_of_validation():
    """Numbers twice as far apart as those of training make the intervals wider, others not half as wide."""
    rows, flow = example_rows(2000), trained()
    rows[:, 2] *= 2
    asked = rows[1000:].numpy().copy()
    x = asked[:, 2].copy()
    asked[:, 2] = np.nan
    there, held, shares = np.isfinite(x), [], []
    middles = example_rows()
    middles[:, 2] = torch.where(middles[:, 0] > 0, middles[:, 0], torch.nan)
    for validation in (middles, rows[:1000]):
        flow.companion = companion_of(flow, example_rows()[:500], validation, seed=0)
        assert flow.companion is not None
        shares.append(flow.companion.calibrated(2, [0.1, 0.9]))
        found = impute(Questions(compile_flow(flow)), asked, level=0.8)
        inside = (found.low[:, 2] <= x) & (x <= found.high[:, 2])
        held.append(inside[there].mean())
    narrow, calibrated = held
    assert narrow < 0.6
    assert shares[0] == pytest.approx([0.2, 0.8])
    assert 0.75 < calibrated < 0.88


def test_the_shares_of_a_number_are_those_whose_quantile_it_is():
    draw = np.random.default_rng(0)
    cells, weights = draw.normal(size=(4, 50)).round(1), draw.dirichlet(np.ones(50), 4)
    for share in (0.1, 0.5, 0.93):
        x = weighted_quantiles(cells, weights, [share])[:, 0]
        below, upto = weighted_shares(cells, weights, x)
        assert (below <= share + 1e-9).all()
        assert (upto >= share - 1e-9).all()
    outside = [weighted_shares(cells, weights, np.full(4, x)) for x in (-9.0, 9.0)]
    assert np.array_equal(outside, [[[0.0] * 4] * 2, [[1.0] * 4] * 2])


def test_a_mixture_of_gaussians_answers_in_closed_form():
    draw = np.random.default_rng(1)
    rows = torch.from_numpy(
        draw.normal(size=(400, 3)) @ np.array([[1, 0.5, 0], [0, 1, 0.3], [0, 0, 1]])
    )
    flow = build(GaussianMixtureSpec(components=1), 3, seed=0)
    for _ in fit(flow, rows[:300], rows[300:], options=FitOptions(seed=1)):
        pass
    asks = Questions(compile_flow(flow.eval()))
    found = asks.log_prob(rows[:5].numpy(), [1], [0])
    mean, cov = rows[:300].mean(dim=0).numpy(), np.cov(rows[:300].numpy().T)
    slope = cov[0, 1] / cov[0, 0]
    scale = math.sqrt(cov[1, 1] - slope * cov[0, 1])
    centred = rows[:5, 1] - mean[1] - slope * (rows[:5, 0] - mean[0])
    wanted = torch.distributions.Normal(0.0, scale).log_prob(centred).numpy()
    assert found.log_prob == pytest.approx(wanted, abs=0.02)
    assert (found.standard_error == 0).all()
    assert (found.uncertain == 0).all()


@pytest.mark.parametrize("shape", [0.2, 0.5, 0.9])
def test_the_shape_of_the_tail_of_weights_is_found(shape):
    uniform = torch.rand(500, 2000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    # The fit is drawn towards 0.5 as by 10 observations beside the tail's 135.
    expected = (135 * shape + 10 * 0.5) / 145
    assert float(pareto_k(uniform**-shape).mean()) == pytest.approx(expected, abs=0.015)
    assert pareto_k(torch.ones(1, 100, dtype=torch.float64)) == 0


def test_gaps_by_which_many_rows_differ_leave_the_companion_a_density():
    draw = np.random.default_rng(2)
    table = torch.from_numpy(draw.normal(size=(160, 6)))
    table[torch.from_numpy(draw.random((160, 6)) < 0.4)] = math.nan
    spec = replace(SPEC, columns=[MixedColumn(missing=True)] * 6)
    flow = build(spec, 6, seed=0)
    fit_encoding(flow, table)
    companion = fit_companion(flow, table[:130], table[130:], seed=0)
    assert companion is not None
    assert companion.log_weights.logsumexp(dim=0) == pytest.approx(0, abs=1e-9)
    shares = companion.log_levels.view(companion.components, 6, 2).exp().sum(dim=2)
    assert shares == pytest.approx(1)
    assert torch.linalg.cholesky(companion.covariances).isfinite().all()
