"""Families whose marginals are exact: sums and integrals over what is hidden of a row give its density."""

import itertools
import math
from typing import get_args

import numpy as np
import pytest
import torch
from torch import Tensor

from flows import (
    FitOptions,
    Flow,
    MixedColumn,
    MixedSpec,
    build,
    compile_flow,
    conditional_densities,
    fit,
    fit_encoding,
)
from flows.families.family import FamilySpec
from flows.mixed import hidden as summed
from flows.mixed.encoding import TableEncoding
from tests.flows.cases import CASES, Case, example_rows, trained_flow

EXACT = [case for case in CASES if case.spec.exact_marginals]
every_case = pytest.mark.parametrize("case", EXACT, ids=lambda case: case.name)

LEVELS = 20
COLUMNS = [
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
    spec = MixedSpec(columns=COLUMNS, flow=case.spec, hidden=[16], missing="any", rows=1500)
    flow = build(spec, len(COLUMNS), seed=0)
    fit_encoding(flow, rows)
    for _ in fit(flow, rows, rows[:200], options=FitOptions(max_epochs=3, seed=1)):
        pass
    return flow.double().eval()


def encoding_of(flow: Flow) -> TableEncoding:
    assert isinstance(flow.preprocessing, TableEncoding)
    return flow.preprocessing


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
