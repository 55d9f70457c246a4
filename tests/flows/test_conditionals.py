"""Densities of single columns given those before them: they sum to the density of the row, and see no more."""

import itertools

import pytest
import torch
from hypothesis import given, strategies as st

from flows import (
    FlowError,
    FlowSpec,
    GaussianMixtureSpec,
    GaussianSpec,
    MadeSpec,
    MafSpec,
    MixedColumn,
    MixedSpec,
    NafSpec,
    NsfSpec,
    PlanarSpec,
    PreprocessingSpec,
    build,
    conditional_densities,
    conditional_order,
    fit_encoding,
)
from tests.flows.cases import CASES, example_rows

SPECS: dict[str, FlowSpec] = {
    "gaussian": GaussianSpec(),
    "gaussian-diagonal": GaussianSpec(covariance="diagonal"),
    "gaussian-mixture": GaussianMixtureSpec(components=3),
    "made": MadeSpec(hidden=[8], order="random"),
    "made-mixture": MadeSpec(conditional="mixture", components=2, hidden=[8]),
    "maf": MafSpec(layers=1, hidden=[8]),
    "maf-tails": MafSpec(layers=1, hidden=[8], tails=True),
    "naf": NafSpec(layers=1, hidden=[8], units=3),
    "nsf": NsfSpec(layers=1, hidden=[8], bins=4),
}
MEANS = [name for name in SPECS if name not in ("maf-tails", "naf", "nsf")]
MOMENTS = torch.tensor([10.0, 9.0, 8.0]), torch.tensor([0.5, 2.0, 3.0])


def stirred(flow):
    """Return a flow that is no standard Gaussian, in float64."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.3)
        for name, buffer in flow.named_buffers():
            if name.endswith((".mean", ".var")) and "preprocessing" not in name:
                buffer.add_(0.2)
    return flow.double().eval()


def flow_of(name):
    return stirred(build(SPECS[name], 3, standardise=MOMENTS, seed=1))


def order_of(flow):
    order = conditional_order(flow)
    assert order is not None
    return order


@pytest.mark.parametrize("name", SPECS)
def test_they_sum_to_the_density_and_see_only_what_comes_before(name):
    flow = flow_of(name)
    rows = example_rows(20, 3)
    with torch.no_grad():
        found = conditional_densities(flow, rows)
        torch.testing.assert_close(found.log_probs.sum(dim=1), flow.log_prob(rows))
        inner = conditional_densities(flow, rows, space="model")
        torch.testing.assert_close(inner.log_probs.sum(dim=1), flow.log_prob(rows, space="model"))
        order = order_of(flow)
        assert sorted(order) == [0, 1, 2]
        for place in (1, 2):
            changed = rows.clone()
            changed[:, order[place:]] += 1.0
            other = conditional_densities(flow, changed)
            before, at = order[:place], order[place]
            torch.testing.assert_close(other.log_probs[:, before], found.log_probs[:, before])
            if name in MEANS:
                torch.testing.assert_close(
                    other.means[:, [*before, at]], found.means[:, [*before, at]]
                )
            assert not torch.allclose(other.log_probs[:, at], found.log_probs[:, at])
    assert bool(found.means.isnan().all()) == (name not in MEANS)


@pytest.mark.parametrize("name", SPECS)
def test_each_is_a_density_whose_mean_is_told(name):
    flow = flow_of(name)
    row = example_rows(1, 3)
    grid = 0.05 * torch.linspace(-13, 13, 6_001, dtype=torch.float64).sinh()
    with torch.no_grad():
        means = conditional_densities(flow, row).means
        for column in range(3):
            rows = row.repeat(len(grid), 1)
            rows[:, column] += grid
            density = conditional_densities(flow, rows).log_probs[:, column].exp()
            least = 0.98 if name == "maf-tails" else 0.9999
            assert least < float(torch.trapezoid(density, grid)) < 1.0001
            if name in MEANS:
                mean = torch.trapezoid(density * rows[:, column], grid)
                torch.testing.assert_close(mean, means[0, column], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_flow_without_an_order_says_so(case):
    for dim in range(case.min_dim, 4):
        flow = build(case.spec, dim, seed=0).double().eval()
        rows = example_rows(4, dim) - 10
        if conditional_order(flow) is None:
            assert dim > 1
            with pytest.raises(FlowError, match="autoregressive"):
                conditional_densities(flow, rows)
            continue
        with torch.no_grad():
            found = conditional_densities(flow, rows).log_probs.sum(dim=1)
            torch.testing.assert_close(found, flow.log_prob(rows))


@pytest.mark.parametrize(
    "spec",
    [MafSpec(layers=2, hidden=[8]), MadeSpec(hidden=[8], masks=2), PlanarSpec(layers=2)],
    ids=lambda spec: spec.family,
)
def test_several_orders_have_none(spec):
    assert conditional_order(build(spec, 3, seed=0)) is None


@pytest.mark.parametrize("direct", [False, True])
def test_the_means_of_a_bernoulli_made_are_probabilities_of_a_1(direct):
    spec = MadeSpec(conditional="bernoulli", hidden=[12, 9], order="random", direct=direct)
    flow = stirred(build(spec, 5, seed=1))
    rows = torch.tensor(list(itertools.product([0.0, 1.0], repeat=5)), dtype=torch.float64)
    with torch.no_grad():
        found = conditional_densities(flow, rows)
        torch.testing.assert_close(found.log_probs.sum(dim=1), flow.log_prob(rows))
    chosen = torch.where(rows > 0.5, found.means, 1 - found.means)
    torch.testing.assert_close(chosen, found.log_probs.exp())
    order = order_of(flow)
    for place, feature in enumerate(order):
        before = rows[:, order[:place]] @ 2.0 ** torch.arange(place).double()
        for values in before.unique():
            alike = found.means[before == values, feature]
            torch.testing.assert_close(alike, alike[:1].expand(len(alike)))
        assert place == 0 or float(found.means[:, feature].std()) > 1e-4


def test_a_context_and_preprocessing_are_conditioned_on():
    spec = PreprocessingSpec(levels=16, logit=0.05)
    flow = stirred(build(MadeSpec(hidden=[8]), 3, preprocessing=spec, context_dim=2, seed=1))
    rows = torch.tensor([[0.0, 7, 15], [3, 3, 8]], dtype=torch.float64)
    context = torch.tensor([[0.5, -1.0], [2.0, 0.0]], dtype=torch.float64)
    with torch.no_grad():
        found = conditional_densities(flow, rows, context)
        torch.testing.assert_close(found.log_probs.sum(dim=1), flow.log_prob(rows, context))
        other = conditional_densities(flow, rows, context + 1)
    assert not torch.allclose(found.log_probs, other.log_probs)
    assert bool(found.means.isnan().all())  # the mean of a logit is not that of its number


def test_a_row_that_is_too_far_has_no_density_and_one_that_lacks_a_value_none_that_is_known():
    flow = flow_of("made")
    rows = torch.tensor([[1e300, 9, 8], [10, torch.nan, 8]], dtype=torch.float64)
    found = conditional_densities(flow, rows).log_probs
    assert found[0].sum() == -torch.inf
    assert bool(found[1].isnan().any())


COLUMNS = [
    MixedColumn(levels=3),
    MixedColumn(missing=True, spikes=[0.0]),
    MixedColumn(),
    MixedColumn(levels=2),
    MixedColumn(transform="log", low=0.0),
]


def mixed_rows(count, seed=0):
    random = torch.Generator().manual_seed(seed)
    levels = torch.randint(0, 2, (count, 2), generator=random).double()
    values = torch.randn(count, 3, generator=random, dtype=torch.float64)
    some = torch.rand(count, generator=random)
    gaps = torch.where(some < 0.2, torch.nan, torch.where(some < 0.4, 0.0, values[:, 0]))
    return torch.stack([levels[:, 0], gaps, values[:, 1], levels[:, 1], values[:, 2].exp()], dim=1)


@pytest.mark.parametrize("missing", ["observed", "any"])
@pytest.mark.parametrize(
    "inner", [MafSpec(layers=1, hidden=[8]), MadeSpec(hidden=[8], order="random")]
)
def test_a_mixed_row_has_one_of_each_column(inner, missing):
    spec = MixedSpec(columns=COLUMNS, flow=inner, hidden=[8], rows=100, missing=missing)
    flow = build(spec, 5, seed=2)
    fit_encoding(flow, mixed_rows(100))
    flow = flow.double().eval()
    rows = mixed_rows(30, seed=1)
    order = order_of(flow)
    assert order[:2] == [0, 3]
    assert sorted(order) == list(range(5))
    with torch.no_grad():
        found = conditional_densities(flow, rows)
        torch.testing.assert_close(found.log_probs.sum(dim=1), flow.log_prob(rows))
        changed = rows.clone()
        changed[:, order[-1]] *= 1.5
        other = conditional_densities(flow, changed)
    seen = rows[:, order[-1]].abs() > 0
    torch.testing.assert_close(
        other.log_probs[seen][:, order[:-1]], found.log_probs[seen][:, order[:-1]]
    )
    known = ~found.means.isnan()
    assert known.any(dim=0).tolist()[0::3] == [False, False]  # levels have no mean
    assert not bool(known[:, 4].any())  # nor has a logarithm
    value = ~rows[:, 1].isnan() & (rows[:, 1] != 0)
    assert torch.equal(known[:, 1], value)


def test_levels_alone_have_their_probabilities():
    spec = MixedSpec(columns=[MixedColumn(levels=2), MixedColumn(levels=3)], hidden=[8], rows=100)
    flow = stirred(build(spec, 2, seed=0))
    rows = torch.tensor(list(itertools.product([0.0, 1.0], [0.0, 1.0, 2.0])), dtype=torch.float64)
    with torch.no_grad():
        probabilities = conditional_densities(flow, rows).log_probs.exp()
    known = 100 / 101
    torch.testing.assert_close(float(probabilities[::3, 0].sum()), known)
    for level in (0, 1):
        torch.testing.assert_close(float(probabilities[rows[:, 0] == level, 1].sum()), known)
    assert order_of(flow) == [0, 1]


@given(
    st.lists(st.floats(-1e6, 1e6), min_size=3, max_size=3),
    st.sampled_from(["made", "made-mixture", "maf", "gaussian", "gaussian-mixture", "nsf"]),
)
def test_they_sum_to_the_density_of_any_row(row, name):
    flow = flow_of(name)
    rows = torch.tensor([row], dtype=torch.float64)
    with torch.no_grad():
        total = conditional_densities(flow, rows).log_probs.sum(dim=1)
        torch.testing.assert_close(total, flow.log_prob(rows), rtol=1e-6, atol=1e-6)
