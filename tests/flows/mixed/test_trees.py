"""P(d) of small tables: it begins at a tree of tables of pairs, and keeps its own best epoch."""

import itertools

import numpy as np
import pytest
import torch
from torch import Tensor

from flows import (
    FitOptions,
    Flow,
    MixedColumn,
    MixedSpec,
    NsfSpec,
    build,
    compile_flow,
    fit,
    fit_encoding,
    with_tree,
)
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
