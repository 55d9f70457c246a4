"""Densities that are conditioned on a context, for every family."""

import itertools

import numpy as np
import pytest
import torch
from torch import Tensor

from flows import (
    EncoderSpec,
    Flow,
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
    SpecError,
    build,
    check_dim,
    compile_flow,
    conditional_densities,
    conditional_order,
    count_parameters,
    evaluate,
    fit_encoding,
)
from flows.usual_cells import Candidates, judge_cells
from tests.flows.cases import CASES, Case, draw, example_rows, stirred, trained

CONTEXT_DIM = 3
ENCODED = [
    Case("made-encoder", MadeSpec(hidden=[8], encoder=EncoderSpec(hidden=[5], features=4))),
    Case("maf-encoder", MafSpec(layers=1, hidden=[8, 7], encoder=EncoderSpec(activation="relu"))),
]
every_case = pytest.mark.parametrize("case", CASES + ENCODED, ids=lambda case: case.name)


def conditional_flow(spec: FlowSpec, dim: int) -> Flow:
    (mean, std), (context_mean, context_std) = (
        (table.mean(dim=0), table.std(dim=0)) for table in (example_rows(100, dim), contexts(100))
    )
    flow = build(
        spec,
        dim,
        standardise=(mean, std),
        context_dim=CONTEXT_DIM,
        standardise_context=(context_mean, context_std),
        seed=3,
    )
    return stirred(flow, 0.1).double().eval()


def contexts(rows: int) -> Tensor:
    return 5 + 2 * draw(rows, CONTEXT_DIM, seed=7)


@every_case
def test_directions_cancel_and_log_dets_are_those_of_autograd(case):
    flow, x, context = conditional_flow(case.spec, 3), example_rows(5, 3), contexts(5)
    with torch.no_grad():
        u, log_det = flow.inverse(x, context)
        back, back_log_det = flow.forward(u, context)
    torch.testing.assert_close(back, x, rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(back_log_det, -log_det, rtol=1e-8, atol=1e-8)
    jacobian = torch.autograd.functional.jacobian(
        lambda row: flow.inverse(row[None], context[:1])[0][0], x[0]
    )
    assert isinstance(jacobian, Tensor)
    torch.testing.assert_close(jacobian.slogdet().logabsdet, log_det[0])


@every_case
def test_every_context_has_a_density_of_its_own_that_integrates_to_1(case):
    dim = case.min_dim
    flow, scores = conditional_flow(case.spec, dim), []
    reach = 300 if getattr(case.spec, "tails", False) else 12
    points = 2001 * reach // 12 if dim == 1 else 241
    axis = torch.linspace(-reach, reach, points, dtype=torch.float64)
    cells = torch.cartesian_prod(*[axis] * dim).reshape(-1, dim)
    for row in contexts(2):
        with torch.no_grad():
            scores.append(flow.log_prob(cells, row[None], space="model"))
        total = float(scores[-1].exp().sum()) * float(axis[1] - axis[0]) ** dim
        assert total == pytest.approx(1, abs=5e-3)
    assert not torch.allclose(scores[0], scores[1], atol=1e-3)


@every_case
def test_a_compiled_flow_equals_the_reference(case):
    flow, x, context = conditional_flow(case.spec, 4), example_rows(300, 4), contexts(300)
    table, compiled = torch.cat([x, context], dim=1).numpy(), compile_flow(flow)
    with torch.no_grad():
        u, log_det = flow.inverse(x, context)
        score = flow.log_prob(x, context)
    samples = flow.sample(300, generator=torch.Generator().manual_seed(4), context=context)
    drawn, one = (compiled.sample(300, seed=4, context=c.numpy()) for c in (context, context[:1]))
    noise = torch.cat([u, context], dim=1).numpy()
    for found, expected in (
        (compiled.log_prob(table), score),
        (compiled.inverse(table)[0], u),
        (compiled.inverse(table)[1], log_det),
        (compiled.forward(noise)[0], x),
        (drawn, samples),
        (one[:1], samples[:1]),
    ):
        np.testing.assert_allclose(found, expected.numpy(), rtol=2e-4, atol=2e-3)


@every_case
def test_parameters_are_counted_and_gradients_reach_them_and_the_context(case):
    flow, x = conditional_flow(case.spec, 5), example_rows(30, 5)
    expected = sum(parameter.numel() for parameter in flow.parameters())
    assert count_parameters(case.spec, 5, CONTEXT_DIM) == expected
    context = contexts(30).requires_grad_()
    flow.log_prob(x, context).sum().backward()
    assert context.grad is not None
    assert bool((context.grad != 0).any())
    for name, parameter in flow.named_parameters():
        assert parameter.grad is not None, name
        assert bool((parameter.grad != 0).any()), name


def test_a_conditional_density_is_learnt():
    context, noise = (
        4 * torch.rand(2000, 1, generator=torch.Generator().manual_seed(0)).double() - 2,
        draw(2000, 1),
    )
    truth = torch.distributions.Normal(torch.sin(2 * context), torch.exp(context / 2))
    x = truth.mean + noise * truth.stddev
    table = torch.cat([x, context], dim=1)
    means, stds = table.mean(dim=0), table.std(dim=0)
    flow = build(
        MadeSpec(hidden=[32]),
        1,
        standardise=(means[:1], stds[:1]),
        context_dim=1,
        standardise_context=(means[1:], stds[1:]),
        seed=0,
    )
    trained(flow, table[:1500], table[1500:], learning_rate=0.02, batch_size=100, max_epochs=25)
    expected = float(truth.log_prob(x)[1500:].mean())
    assert evaluate(flow, table[1500:]).mean == pytest.approx(expected, abs=0.1)


def moved(flow: Flow) -> Flow:
    """A flow that is no standard Gaussian, in float64."""
    with torch.no_grad():
        for name, buffer in flow.named_buffers():
            if name.endswith((".mean", ".var")) and "preprocessing" not in name:
                buffer.add_(0.2)
    return stirred(flow, 0.3).double().eval()


def test_a_missing_or_needless_context_is_refused():
    plain = build(MafSpec(layers=1, hidden=[4]), 2, seed=0)
    conditional = build(MafSpec(layers=1, hidden=[4]), 2, context_dim=1, seed=0)
    rows = torch.zeros(3, 2)
    with pytest.raises(FlowError, match="no context"):
        plain.log_prob(rows, rows)
    with pytest.raises(FlowError, match="needs a context"):
        conditional.log_prob(rows)
    compiled = compile_flow(conditional)
    for context in (None, np.zeros((2, 1)), np.zeros((1, 2))):
        with pytest.raises(FlowError, match="context"):
            compiled.sample(3, seed=0, context=context)


def test_an_encoder_without_a_context_is_refused():
    with pytest.raises(SpecError, match="needs a context") as caught:
        check_dim(MafSpec(encoder=EncoderSpec()), 3)
    assert caught.value.code == "encoder-without-context"


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


def flow_of(name):
    return moved(build(SPECS[name], 3, standardise=MOMENTS, seed=1))


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
    flow = moved(build(spec, 5, seed=1))
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
    flow = moved(build(MadeSpec(hidden=[8]), 3, preprocessing=spec, context_dim=2, seed=1))
    rows = torch.tensor([[0.0, 7, 15], [3, 3, 8]], dtype=torch.float64)
    context = torch.tensor([[0.5, -1.0], [2.0, 0.0]], dtype=torch.float64)
    with torch.no_grad():
        found = conditional_densities(flow, rows, context)
        torch.testing.assert_close(found.log_probs.sum(dim=1), flow.log_prob(rows, context))
        other = conditional_densities(flow, rows, context + 1)
    assert not torch.allclose(found.log_probs, other.log_probs)
    assert bool(found.means.isnan().all())  # the mean of a logit is not that of its number
    beyond = torch.tensor([[-1.2, 7.3, 16.2]], dtype=torch.float64)
    assert flow.preprocessing.to_grid(beyond).tolist() == [[0, 7, 15]]


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
    flow = moved(build(spec, 2, seed=0))
    rows = torch.tensor(list(itertools.product([0.0, 1.0], [0.0, 1.0, 2.0])), dtype=torch.float64)
    with torch.no_grad():
        probabilities = conditional_densities(flow, rows).log_probs.exp()
    known = 100 / 101
    torch.testing.assert_close(float(probabilities[::3, 0].sum()), known)
    for level in (0, 1):
        torch.testing.assert_close(float(probabilities[rows[:, 0] == level, 1].sum()), known)
    assert order_of(flow) == [0, 1]


def test_usual_levels_are_at_least_a_tenth_as_likely_as_the_likeliest():
    shares = np.log([0.6, 0.04, 0.36])
    seen = np.array([-1.0, 0.5, 2.0])  # of which the first two are no levels
    many = Candidates.of(np.repeat(np.arange(70.0), np.arange(70)), range(70), is_discrete=True)
    assert many.atoms.tolist() == list(range(69, 5, -1))  # the 64 that are most frequent
    levels = Candidates.of(seen, [0.0, 1.0, 2.0], is_discrete=True)
    [[cell]] = judge_cells(lambda rows: shares[rows[:, 0].astype(int)], np.ones((1, 1)), [levels])
    assert cell[0] == shares[1] - shares[0]
    assert cell[3:].tolist() == [0, 2, -1]


def test_a_gap_that_is_rarer_than_all_values_together_is_unusual():
    column = Candidates.of(np.arange(11.0), [np.nan], is_discrete=False)

    def log_prob(rows):  # gaps are a tenth, and denser than one of ten even units of values
        return np.log(np.where(np.isnan(rows[:, 0]), 0.1, 0.09))

    [[cell]] = judge_cells(log_prob, np.full((1, 1), np.nan), [column])
    np.testing.assert_allclose(cell[:3], [np.log(0.1 / 0.9), 0.5, 9.5])
