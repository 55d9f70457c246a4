"""Rows with gaps and spikes, and rows of which cells are hidden: every density of them is one."""

import itertools
import math
from dataclasses import replace
from typing import Any, get_args

import numpy as np
import pytest
import torch
from torch import Tensor

from flows import (
    BatchNormSpec,
    CompiledFlow,
    FitInterrupted,
    FitOptions,
    Flow,
    FlowError,
    MadeSpec,
    MafSpec,
    MixedColumn,
    MixedSpec,
    NafSpec,
    NiceSpec,
    NsfSpec,
    PlanarSpec,
    RealNvpSpec,
    SpecError,
    build,
    compile_flow,
    conditional_densities,
    evaluate,
    fit,
    fit_encoding,
)
from flows.mixed import hidden as summed
from flows.mixed.encoding import TableEncoding
from flows.mixed.explain import explain
from flows.specs.family import FamilySpec
from tests.flows.cases import CASES, Case, assert_same, example_rows, trained_flow

COLUMNS = [
    MixedColumn(missing=True, spikes=[-9.0, 0.0], transform="quantiles"),
    MixedColumn(levels=2, values=[3.0, 5.0]),
    MixedColumn(missing=True, transform="asinh"),
]
FLOW = NsfSpec(layers=2, hidden=[10], bins=4)
SPEC = MixedSpec(columns=COLUMNS, flow=FLOW, hidden=[10], activation="tanh", rows=50)
OPTIONS = FitOptions(learning_rate=0.01, batch_size=50, max_epochs=3, seed=3)


def rows_with_gaps(rows: int = 400) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(rows, 3, generator=generator).double()
    kind = torch.rand(rows, generator=generator)
    x[:, 0] = 2 + x[:, 0].exp()
    x[kind < 0.4, 0] = 0.0
    x[kind < 0.2, 0] = -9.0
    x[kind < 0.1, 0] = math.nan
    x[:, 2] = x[:, 2] + x[:, 0].nan_to_num(-1)
    x[:, 1] = torch.where(x[:, 2] > 1, 3.0, 5.0)
    x[torch.rand(rows, generator=generator) < 0.3, 2] = math.nan
    return x


def trained(spec: MixedSpec = SPEC, *, epochs: int = 3) -> Flow:
    rows = rows_with_gaps()
    flow = build(spec, rows.shape[1], seed=1)
    fit_encoding(flow, rows[:300])
    list(fit(flow, rows[:300], rows[300:], options=replace(OPTIONS, max_epochs=epochs)))
    return flow.double().eval()


def encoding_of(flow: Flow) -> TableEncoding:
    assert isinstance(flow.preprocessing, TableEncoding)
    return flow.preprocessing


Points = list[tuple[float, float]]


def points_of(flow: Flow, place: int, *, count: int = 91) -> Points:
    """Values of a continuous column, evenly spread over its scores, and their log volumes."""
    scores = torch.linspace(-9, 9, count, dtype=torch.float64)
    width = len(encoding_of(flow).layout.continuous)
    values, log_det = encoding_of(flow).maps.forward(scores[:, None].expand(-1, width))
    volumes = log_det[:, place] + math.log(18 / (count - 1))
    return list(zip(values[:, place].tolist(), volumes.tolist(), strict=True))


def levels(*values: float) -> Points:
    return [(value, 0.0) for value in values]


def rows_of(*columns: Points) -> tuple[Tensor, Tensor]:
    """All rows of some cells, and their log volumes."""
    cells = list(itertools.product(*columns))
    table = torch.tensor(cells, dtype=torch.float64)
    return table[:, :, 0], table[:, :, 1].sum(dim=1)


def test_all_states_and_values_have_probability_1_together():
    flow = trained()
    first = [*points_of(flow, 0), *levels(-9.0, 0.0, math.nan)]
    third = [*points_of(flow, 1), *levels(math.nan)]
    rows, volumes = rows_of(first, levels(3.0, 5.0, 4.0), third)
    with torch.no_grad():
        total = float((flow.log_prob(rows) + volumes).exp().sum())
    assert total == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize(
    "family",
    [
        MafSpec(layers=2, hidden=[8], batch_norm=BatchNormSpec()),
        NafSpec(layers=1, hidden=[8], units=3),
        RealNvpSpec(layers=2, hidden=[8]),
        NiceSpec(layers=2, hidden=[8]),
        MadeSpec(conditional="mixture", components=3, hidden=[8]),
        NsfSpec(layers=2, hidden=[8], bins=4, coupling=True),
    ],
    ids=lambda spec: spec.family,
)
def test_every_family_that_can_has_a_density_of_each_pattern(family):
    flow, rows = trained(replace(SPEC, flow=family)).float(), rows_with_gaps()[:60]
    scores, compiled = flow.log_prob(rows).detach(), compile_flow(flow)
    assert torch.isfinite(scores).all()
    assert np.allclose(compiled.log_prob(rows.numpy()), scores, atol=2e-3)
    plain = flow.sample(64, generator=torch.Generator().manual_seed(2)).numpy()
    samples = compiled.sample(64, seed=2)
    assert np.allclose(samples, plain, rtol=0.02, atol=0.02, equal_nan=True)


def test_a_family_that_cannot_is_refused_with_those_that_can():
    with pytest.raises(SpecError, match="nsf or maf"):
        build(replace(SPEC, flow=PlanarSpec()), 3, seed=0)


def test_samples_have_gaps_and_spikes_as_often_as_the_rows():
    rows = rows_with_gaps()
    samples = trained(epochs=40).sample(4000, generator=torch.Generator().manual_seed(1))
    for column, value in ((0, math.nan), (0, 0), (0, -9), (2, math.nan), (1, 3)):
        share, expected = (
            float(
                torch.isclose(one[:, column], torch.tensor(value).double(), equal_nan=True)
                .double()
                .mean()
            )
            for one in (samples, rows[:300])
        )
        assert abs(share - expected) < 0.07
    assert set(samples[:, 1].tolist()) == {3.0, 5.0}


def explained_by_sums(compiled: CompiledFlow, rows: Tensor) -> np.ndarray:
    """What the category adds: its density over the sum over all levels, the last never seen."""
    scores = []
    for level in (3.0, 5.0, 4.0):
        other = rows.clone()
        other[:, 1] = level
        scores.append(compiled.log_prob(other.numpy()))
    return np.asarray(compiled.log_prob(rows.numpy()) - np.logaddexp.reduce(scores))


def test_explanations_are_what_each_column_adds():
    flow, rows = trained_any().float(), whole_rows()[:30]
    compiled = compile_flow(flow)
    assert compiled.explained_kinds == ["learnt", "exact", "learnt"]
    found = compiled.explain(rows.numpy())
    model, terms = encoding_of(flow).encode(rows)
    with torch.no_grad():
        whole = flow.log_prob(model, space="model").double()
        for column in (0, 2):
            hidden = encoding_of(flow).without(model, column)
            rest = flow.log_prob(hidden, space="model").double()
            assert np.allclose(found[:, column], whole - rest + terms[:, column], atol=1e-3)
    rows[::2, 1] = math.nan
    found = compiled.explain(rows.numpy())[:, 1]
    assert (found[::2] == 0).all()
    assert np.allclose(found[1::2], explained_by_sums(compiled, rows)[1::2], atol=1e-3)


def test_without_hidden_cells_categories_are_explained_exactly():
    compiled, rows = compile_flow(trained().float()), rows_with_gaps(30)
    assert compiled.explained_kinds == ["unavailable", "exact", "unavailable"]
    found = compiled.explain(rows.numpy())
    assert np.isnan(found[:, [0, 2]]).all()
    assert np.allclose(found[:, 1], explained_by_sums(compiled, rows), atol=1e-3)


def test_training_with_hidden_cells_goes_on_bit_for_bit():
    steps = itertools.count()
    with pytest.raises(FitInterrupted) as caught:
        trained_any(interrupted=lambda: next(steps) == 20)
    assert_same(trained_any(state=caught.value.state), trained_any())


ANY = replace(SPEC, missing="any", columns=[*COLUMNS[:2], MixedColumn(transform="asinh")])


def whole_rows() -> Tensor:
    rows = rows_with_gaps(1200)
    return rows[~rows[:, 2].isnan()]


def trained_any(*, epochs: int = 3, **given: Any) -> Flow:
    rows, flow = whole_rows(), build(ANY, 3, seed=1)
    fit_encoding(flow, rows)
    options = replace(OPTIONS, max_epochs=epochs, patience=None)
    list(fit(flow, rows[:700], rows[700:], options=options, **given))
    return flow.double().eval()


@pytest.mark.parametrize("hidden", [[0], [1], [2], [0, 2], [1, 2], [0, 1]])
def test_the_density_of_any_cells_sums_to_1(hidden):
    flow = trained_any()
    count = 181 if {0, 2} & set(hidden) else 91
    cells = [
        [*points_of(flow, 0, count=count), *levels(-9.0, 0.0, math.nan)],
        levels(3.0, 5.0, 4.0),
        points_of(flow, 1, count=count),
    ]
    for column in hidden:
        cells[column] = levels(1.0)
    rows, volumes = rows_of(*cells)
    model, terms = encoding_of(flow).encode(rows)
    for column in hidden:
        model = encoding_of(flow).without(model, column)
        terms[:, column] = 0
    with torch.no_grad():
        scores = flow.log_prob(model, space="model") + terms.sum(dim=1)
    assert float((scores + volumes).exp().sum()) == pytest.approx(1, abs=1e-3)


def test_a_gap_of_a_column_without_gaps_is_a_hidden_cell():
    flow, rows = trained_any(), whole_rows()[:20]
    gap = rows.clone()
    gap[:, 2] = math.nan
    model, terms = encoding_of(flow).encode(rows)
    hidden = encoding_of(flow).without(model, 2)
    expected = flow.log_prob(hidden, space="model") + terms[:, :2].sum(dim=1)
    assert torch.allclose(flow.log_prob(gap), expected)


def test_the_learnt_marginal_is_near_that_of_the_density():
    """p_S is learnt: this measures by how many nats it misses the marginal of the whole density."""
    flow, rows = trained_any(epochs=20), whole_rows()[760:800]
    encoding = encoding_of(flow)
    with torch.no_grad():
        model, terms = encoding.encode(rows)
        learnt = flow.log_prob(encoding.without(model, 2), space="model") + terms[:, :2].sum(dim=1)
        values, volumes = torch.tensor(points_of(flow, 1), dtype=torch.float64).t()
        repeated = rows.repeat_interleave(len(values), dim=0)
        repeated[:, 2] = values.repeat(len(rows))
        exact = (flow.log_prob(repeated).view(len(rows), -1) + volumes).logsumexp(dim=1)
        learnt_levels = flow.log_prob(encoding.without(model, 1), space="model") + terms.sum(dim=1)
        summed = []
        for level in (3.0, 5.0, 4.0):
            other = rows.clone()
            other[:, 1] = level
            summed.append(flow.log_prob(other))
    assert float((learnt - exact).abs().mean()) < 0.25
    exact_levels = torch.stack(summed).logsumexp(dim=0)
    assert float((learnt_levels - exact_levels).abs().mean()) < 0.7


def test_other_families_explain_nothing():
    compiled = compile_flow(build(MafSpec(layers=1, hidden=[4]), 2, seed=0))
    assert compiled.explained_kinds == ["unavailable", "unavailable"]
    with pytest.raises(FlowError):
        compiled.explain(np.zeros((1, 2)))


def test_half_of_the_rows_stay_whole_and_one_cell_is_hidden_of_half_of_the_others():
    flow = trained_any()
    encoding = encoding_of(flow)
    model = encoding.inverse(whole_rows())[0].repeat(10, 1)
    hidden = encoding.hide(model, generator=torch.Generator().manual_seed(0))
    is_hidden = hidden[:, :3] == -2
    counts = torch.bincount(is_hidden.sum(dim=1), minlength=4).double() / len(hidden)
    # A quarter of the rows have a hidden share that is uniform, and so each count as often.
    assert counts.tolist() == pytest.approx(
        [1 / 2 + 1 / 16, 1 / 4 + 1 / 16, 1 / 16, 1 / 16], abs=0.02
    )
    assert is_hidden.double().mean(dim=0).tolist() == pytest.approx([1 / 12 + 1 / 8] * 3, abs=0.02)
    assert (hidden[:, 3][is_hidden[:, 0]] == 0).all()
    assert torch.equal(hidden[:, :3][~is_hidden], model[:, :3][~is_hidden])


def test_evaluation_spreads_values_of_a_grid():
    column = MixedColumn(step=1.0, transform="log", low=0.0, spikes=[0.0])
    spec = MixedSpec(columns=[column], flow=MadeSpec(hidden=[4]), rows=300)
    rows = torch.randint(0, 9, (300, 1), generator=torch.Generator().manual_seed(0)).double()
    flow = build(spec, 1, seed=0)
    fit_encoding(flow, rows)
    assert evaluate(flow, rows, noise_seed=1).mean != evaluate(flow, rows).mean
    samples = flow.sample(200, generator=torch.Generator().manual_seed(0))
    assert torch.equal(samples, samples.round())
    assert float(samples.min()) >= 0


@pytest.mark.parametrize("missing", ["observed", "any"])
def test_the_passes_that_are_promised_are_those_that_are_computed(missing):
    columns = [MixedColumn(levels=3), MixedColumn(levels=2, missing=True), MixedColumn()]
    flow = MafSpec(layers=1, hidden=[8], batch_norm=None)
    spec, calls = MixedSpec(columns=columns, flow=flow, missing=missing), []
    built = build(spec, 3, seed=0).eval()

    def log_density(rows):
        calls.append(len(rows))
        return torch.zeros(len(rows), dtype=torch.float64)

    explain(encoding_of(built), torch.zeros(4, 3).double(), log_density)
    assert len(calls) == compile_flow(built, device=torch.device("cpu")).explaining_passes


EXACT = [case for case in CASES if case.spec.exact_marginals]
every_case = pytest.mark.parametrize("case", EXACT, ids=lambda case: case.name)

LEVELS = 20
MARGINAL_COLUMNS = [
    MixedColumn(),
    MixedColumn(levels=LEVELS),
    MixedColumn(missing=True, spikes=[0.0], transform="asinh"),
    MixedColumn(levels=3, missing=True),
]
# By column, what a cell may be beside a value of its own: the last level is one that training never saw.
STATES = [[], [*range(LEVELS), LEVELS + 1], [0.0, math.nan], [0, 1, 2, math.nan, 7]]
HIDDEN = [chosen for count in (1, 2, 3, 4) for chosen in itertools.combinations(range(4), count)]


def mixed_rows(rows: int) -> Tensor:
    """Clusters that the levels tell apart, with gaps and zeros."""
    random = np.random.default_rng(0)
    level = random.integers(LEVELS, size=rows)
    group = np.where(random.random(rows) < 0.7, level % 3, random.integers(3, size=rows))
    first = 4.0 * (level % 5) + random.normal(size=rows)
    second = 3.0 * group + 0.5 * first + random.normal(size=rows)
    kind = random.random(rows)
    second = np.where(kind < 0.1, np.nan, np.where(kind < 0.2, 0.0, second))
    missing = np.where(random.random(rows) < 0.1, np.nan, group)
    return torch.from_numpy(np.column_stack([first, level, second, missing]))


def mixed_flow(case: Case) -> Flow:
    rows = mixed_rows(1500)
    assert isinstance(case.spec, get_args(FamilySpec))
    spec = MixedSpec(
        columns=MARGINAL_COLUMNS, flow=case.spec, hidden=[16], missing="any", rows=1500
    )
    flow = build(spec, len(MARGINAL_COLUMNS), seed=0)
    fit_encoding(flow, rows)
    list(fit(flow, rows, rows[:200], options=FitOptions(max_epochs=3, seed=1)))
    return flow.double().eval()


def without(flow: Flow, row: Tensor, hidden: tuple[int, ...]) -> float:
    """Log density of a row without some of its cells."""
    model, terms = encoding_of(flow).encode(row)
    for column in hidden:
        model = encoding_of(flow).without(model, column)
        terms[:, column] = 0
    return float(flow.log_prob(model, space="model") + terms.sum(dim=1))


def summed_over(flow: Flow, row: Tensor, hidden: tuple[int, ...]) -> float:
    """Logarithm of the sum, and the integral, of the densities of all rows with the other cells."""
    count = 161
    scores = torch.linspace(-10, 10, count, dtype=torch.float64)
    values, log_det = encoding_of(flow).maps.forward(scores[:, None].expand(-1, 2))
    log_det = log_det + math.log(20 / (count - 1))
    cells = []
    for column, states in enumerate(STATES):
        if column not in hidden:
            cells.append([(float(row[0, column]), 0.0)])
            continue
        cells.append([(float(state), 0.0) for state in states])
        if column in (0, 2):
            place = column // 2
            cells[-1] += list(
                zip(values[:, place].tolist(), log_det[:, place].tolist(), strict=True)
            )
    table = torch.tensor(list(itertools.product(*cells)), dtype=torch.float64)
    # Numbers of density 0 are outside of what a column of levels holds.
    pieces = zip(table[:, :, 0].split(4096), table[:, :, 1].sum(dim=1).split(4096), strict=True)
    totals = [(flow.log_prob(rows) + volumes).logsumexp(dim=0) for rows, volumes in pieces]
    return float(torch.stack(totals).logsumexp(dim=0))


@every_case
def test_the_density_of_a_mixed_row_is_the_sum_over_what_its_hidden_cells_may_be(case):
    flow = mixed_flow(case)
    rows = mixed_rows(4)
    rows[0, 2], rows[1, 2] = 0.0, 4.0
    with torch.no_grad():
        for row, hidden in itertools.product(rows[:, None], HIDDEN):
            if {0, 2} <= set(hidden) and 1 in hidden:
                continue  # a million rows
            expected = summed_over(flow, row, hidden)
            assert without(flow, row, hidden) == pytest.approx(expected, abs=1e-3), hidden


@every_case
def test_a_gap_of_a_level_scores_so_compiled_too_and_its_columns_sum_to_it(case):
    flow = mixed_flow(case)
    rows = mixed_rows(300)
    rows[::2, 1] = math.nan
    rows[::3, 0] = math.nan
    with torch.no_grad():
        expected = flow.log_prob(rows)
        found = conditional_densities(flow, rows)
        torch.testing.assert_close(found.log_probs.sum(dim=1), expected)
        torch.testing.assert_close(flow.log_prob_parts(rows).sum(dim=1), expected)
        moved = rows + torch.tensor([0.3, 0.0, 0.0, 0.0])  # no value tells its own mean
        means = conditional_densities(flow, moved).means
        torch.testing.assert_close(means[:, 0], found.means[:, 0], equal_nan=True)
    compiled = compile_flow(flow.float())
    assert np.allclose(compiled.log_prob(rows.numpy()), expected, atol=0.05)
    assert compiled.explained_kinds[1] == "learnt"
    explained = compiled.explain(rows[1:2].numpy())[0, 1]
    without_it = rows[1:2].clone()
    without_it[0, 1] = math.nan
    whole, rest = (compiled.log_prob(one.numpy())[0] for one in (rows[1:2], without_it))
    assert explained == pytest.approx(whole - rest, abs=0.01)


@every_case
def test_levels_beyond_those_that_are_summed_are_no_context_of_the_mixture(case, monkeypatch):
    flow, rows = mixed_flow(case), mixed_rows(200)
    hidden = rows.clone()
    hidden[:, 1] = math.nan
    with torch.no_grad():
        exact = flow.log_prob(hidden)
        monkeypatch.setattr(summed, "MOST_FILLINGS", LEVELS)
        found = flow.log_prob(hidden)
        assert float((found - exact).abs().mean()) < 1
        columns = conditional_densities(flow, hidden).log_probs
        torch.testing.assert_close(columns.sum(dim=1), found)
        row, states = rows[:1], rows[:1].repeat(len(STATES[3]), 1)
        states[:, 3] = torch.tensor(STATES[3])  # the fewest levels are still summed over
        parts = torch.tensor([without(flow, one[None], (1,)) for one in states])
        assert without(flow, row, (1, 3)) == pytest.approx(float(parts.logsumexp(0)), abs=1e-4)
    compiled = compile_flow(flow.float())
    assert np.allclose(compiled.log_prob(hidden.numpy()), found, atol=0.05)


@every_case
@pytest.mark.parametrize("hidden", [0, 1, 2])
def test_the_density_of_some_numbers_is_the_integral_over_the_others(case, hidden):
    layer = trained_flow(case, 3).transform
    rows = example_rows(5, 3) - 10
    axis = torch.linspace(-40, 40, 8001, dtype=torch.float64)
    observed = torch.ones_like(rows)
    observed[:, hidden] = 0
    with torch.no_grad():
        found = layer.log_density(rows, None, observed)
        for row, score in zip(rows, found, strict=True):
            filled = row.repeat(len(axis), 1)
            filled[:, hidden] = axis
            total = torch.logsumexp(layer.log_density(filled), dim=0) + math.log(80 / 8000)
            torch.testing.assert_close(score, total, rtol=1e-6, atol=1e-6)
