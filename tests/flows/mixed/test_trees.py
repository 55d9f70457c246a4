"""P(d) of small tables: it begins at a tree of tables of pairs, and keeps its own best epoch."""

import itertools

import numpy as np
import pytest
import torch
from torch import Tensor

from flows import (
    FitOptions,
    Flow,
    MafSpec,
    MixedColumn,
    MixedSpec,
    NsfSpec,
    build,
    check_dim,
    compile_flow,
    default_continuous,
    default_hidden,
    fit,
    fit_encoding,
    flow_cost,
    with_tree,
)
from flows.defaults import default_flow
from flows.mixed.categorical import one_hot
from flows.mixed.density import MixedDensity
from flows.mixed.trees import log_frequencies, pair_counts, smoothed_log_table, tree_of

COLUMNS = [
    MixedColumn(levels=4),
    MixedColumn(spikes=[0.0]),
    MixedColumn(levels=3),
    MixedColumn(levels=3),
]


def cells(rows: int = 400) -> Tensor:
    """The last column depends on the third, the first on the last; every third amount is 0."""
    random = np.random.default_rng(0)
    third = random.integers(0, 3, rows)
    last = (third + (random.random(rows) < 0.2)) % 3
    first = np.where(random.random(rows) < 0.8, last, random.integers(0, 4, rows))
    amount = np.where(random.random(rows) < 0.3, 0.0, random.normal(third, 1.0))
    return torch.from_numpy(np.stack([first, amount, third, last], axis=1).astype(float))


def started(rows: Tensor) -> tuple[Flow, MixedDensity]:
    spec = MixedSpec(
        columns=COLUMNS, flow=NsfSpec(layers=1, hidden=[8]), hidden=[8], rows=len(rows)
    )
    flow = build(with_tree(spec, rows.numpy()), 4, seed=0)
    fit_encoding(flow, rows)
    transform = flow.eval().transform
    assert isinstance(transform, MixedDensity)
    return flow, transform


@torch.no_grad()
def log_probabilities(transform: MixedDensity, indices: Tensor) -> Tensor:
    made = transform.made
    assert made is not None
    inputs = one_hot(indices, made.sizes, made.starts, made.slots)
    return made.log_prob(indices, inputs).sum(dim=1)


def test_training_begins_at_the_tree_whatever_the_order_of_the_columns() -> None:
    rows = cells()
    flow, transform = started(rows[:300])
    sizes = [variable.size for variable in transform.layout.variables]
    assert transform.layout.variables[0].column == 3
    known, other = (flow.preprocessing.inverse(part)[0][:, :4] for part in (rows[:300], rows[300:]))
    expected = torch.zeros(100, dtype=torch.float64)
    parents = tree_of(known, sizes).parents
    assert sorted(parents) == [-1, -1, 0, 0]
    for place, parent in enumerate(parents):
        if parent < 0:
            expected += log_frequencies(known[:, place], sizes[place])[other[:, place].long()]
            continue
        pair = known[:, place], known[:, parent]
        table = smoothed_log_table(*pair, (sizes[place], sizes[parent]))
        expected += table[other[:, parent].long(), other[:, place].long()]
    found = log_probabilities(transform, other.float())
    assert found.numpy() == pytest.approx(expected.numpy(), abs=1e-5)
    every = torch.tensor(list(itertools.product(*map(range, sizes))), dtype=torch.float32)
    total = log_probabilities(transform, every).exp().sum()
    assert float(total) == pytest.approx(1.0, abs=1e-5)
    compiled = compile_flow(flow, device=torch.device("cpu"))
    scores = flow.log_prob(rows).detach().numpy()
    assert compiled.log_prob(rows.numpy()) == pytest.approx(scores, abs=1e-3)


def test_variables_that_have_nothing_to_do_with_each_other_have_no_parents() -> None:
    random = np.random.default_rng(2)
    for rows in (50, 300, 3000):
        indices = torch.from_numpy(random.integers(0, 5, (rows, 12))).float()
        assert set(tree_of(indices, [5] * 12).parents) == {-1}
    # Of 400 rows a parameter must gain half of log 400, which is 3.0: this pair gains 1.5 more.
    counts = torch.tensor([115, 85, 85, 115])
    levels = torch.tensor([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
    assert tree_of(levels.repeat_interleave(counts, dim=0), [2, 2]).parents == [-1, 0]


def test_tables_of_few_rows_are_smoothed_as_the_rows_suggest() -> None:
    """No fixed count for each cell suits both a child that copies its parent and one that does not."""
    random, gains = np.random.default_rng(1), []
    for copies in [0.0, 0.9] * 20:
        parent = random.integers(0, 6, 2060)
        alone = random.choice(6, 2060, p=[0.5, 0.3, 0.1, 0.05, 0.03, 0.02])
        child = np.where(random.random(2060) < copies, parent, alone)
        pair = [torch.from_numpy(one[:60]).float() for one in (child, parent)]
        table = smoothed_log_table(pair[0], pair[1], (6, 6))
        assert float(table.exp().sum(dim=1).sub(1).abs().max()) < 1e-9
        counts = pair_counts(pair[0], pair[1], (6, 6))
        fixed = [counts + one for one in (0.1, 0.5, 1.0)]
        tables = [table, *((one / one.sum(dim=1, keepdim=True)).log() for one in fixed)]
        found = [float(one[parent[60:], child[60:]].mean()) for one in tables]
        gains.append([found[0] - other for other in found[1:]])
    assert (np.mean(gains, axis=0) > 0.03).all()


def test_a_part_that_training_makes_worse_stays_as_it_was_at_its_best() -> None:
    rows = cells()
    flow, _ = started(rows[:300])
    before = flow.log_prob_parts(rows[300:]).detach().mean(dim=0)
    options = FitOptions(learning_rate=3.0, max_epochs=3, batch_size=300, max_gradient_norm=1e9)
    *_, last = fit(flow, rows[:300], rows[300:], options=options)
    after = flow.log_prob_parts(rows[300:]).detach().mean(dim=0)
    assert after[0] >= before[0]
    assert float(after.sum()) == pytest.approx(last.best_validation_log_likelihood, abs=1e-3)


def test_samples_do_not_lie_beyond_the_training_rows() -> None:
    rows = cells()
    flow, _ = started(rows)
    drawn = flow.sample(5000, generator=torch.Generator().manual_seed(0))[:, 1]
    assert float(drawn.min()) >= float(rows[:, 1].min())
    assert float(drawn.max()) <= float(rows[:, 1].max())


KINDS = [
    MixedColumn(levels=3, missing=True),
    MixedColumn(missing=True, spikes=[0.0], low=0.0, transform="quantiles"),
    MixedColumn(transform="log"),
]


def default(
    columns: list[MixedColumn], rows: int, context: tuple[MixedColumn, ...] = ()
) -> MixedSpec:
    count = sum(column.levels == 0 for column in columns)
    return MixedSpec(
        columns=columns,
        context=list(context),
        flow=default_continuous(count, rows) if count else None,
        hidden=default_hidden(rows),
        rows=rows,
    )


@pytest.mark.parametrize("rows", [1, 10, 5_000, 10**6])
def test_defaults_can_be_built_for_any_number_of_rows(rows):
    build(default(KINDS, rows, tuple(KINDS[:2])), 3, context_dim=2, seed=0)


def test_splines_are_for_tables_of_few_columns():
    assert isinstance(default(KINDS, 5_000).flow, NsfSpec)
    wide = default([MixedColumn(missing=True)] * 4096, 5_000)
    check_dim(wide, 4096)
    assert isinstance(wide.flow, MafSpec)
    assert flow_cost(wide, 4096).parameters < 200_000_000


@pytest.mark.parametrize("levels", [1_000, 100_000])
def test_many_levels_are_counted_before_they_take_memory(levels):
    few = flow_cost(default([MixedColumn(levels=10)] * 2, 5_000), 2)
    many = flow_cost(default([MixedColumn(levels=levels)] * 2, 5_000), 2)
    assert many.parameters - few.parameters > 2 * 2 * 128 * (levels - 10)
    assert many.row_bytes - few.row_bytes > 4 * 2 * levels
    if levels == 1_000:
        assert many.load_bytes < 48 * 2**20


@pytest.mark.parametrize("levels", [3, 300])
def test_numbers_beside_levels_are_counted_with_what_they_are_given(levels):
    spec = default([MixedColumn(levels=levels), MixedColumn(missing=True)], 5_000)
    flow, cost = build(spec, 2, context_dim=2, seed=0), flow_cost(spec, 2, 2)
    assert cost.parameters == sum(parameter.numel() for parameter in flow.parameters())
    assert cost.flow_bytes >= sum(one.nbytes for one in [*flow.parameters(), *flow.buffers()])


def test_a_single_variable_has_one_bias_a_level():
    spec = default([MixedColumn(levels=1_000)], 5_000)
    flow = build(spec, 1, seed=0)
    assert sum(parameter.numel() for parameter in flow.parameters()) == 1_024
    assert flow_cost(spec, 1).parameters == 1_024


@pytest.mark.parametrize(
    ("columns", "rows", "units"),
    [(4_096, 180, 180), (784, 50_000, 1_024), (200, 50_000, 400), (4_096, 3, 32)],
)
def test_wide_flows_have_no_more_units_than_there_are_rows(columns, rows, units):
    for flow in (default_continuous(columns, rows), default_flow(rows, columns)):
        assert isinstance(flow, MafSpec)
        assert flow.hidden == [units, units]
