"""Mixed rows: probabilities sum to 1, and what a flow of them can do."""

import copy
import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st
from torch import Tensor

from flows import (
    FitInterrupted,
    FitOptions,
    Flow,
    FlowError,
    MafSpec,
    MixedColumn,
    MixedSpec,
    NsfSpec,
    build,
    compile_flow,
    fit,
    fit_encoding,
    spec_from_dict,
    spec_to_dict,
)
from flows.bijections.autoregressive.masked import MaskedLinear
from flows.mixed.categorical import CategoricalMade, one_hot
from flows.mixed.density import MixedDensity
from flows.mixed.encoding import TableEncoding
from flows.mixed.levels import Levels
from flows.specs.made import MadeSpec
from tests.flows.cases import assert_same

COLUMNS = [
    MixedColumn(levels=3, missing=True),
    MixedColumn(transform="quantiles"),
    MixedColumn(levels=2),
    MixedColumn(levels=1),
]
SPEC = MixedSpec(
    columns=COLUMNS,
    flow=NsfSpec(layers=2, hidden=[12], bins=4),
    hidden=[10],
    activation="tanh",
    rows=100,
)
OPTIONS = FitOptions(learning_rate=0.01, batch_size=50, max_epochs=3, noise="epoch", seed=3)


def example_rows(rows: int = 400) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    first = torch.randint(0, 3, (rows,), generator=generator).double()
    first[::7] = math.nan
    second = torch.randn(rows, generator=generator).double() * 2 + first.nan_to_num(5)
    third = (second > 1).double()
    return torch.stack([first, second, third, torch.zeros(rows)], dim=1)


def trained(spec: MixedSpec = SPEC, context: Tensor | None = None, **given: Any) -> Flow:
    rows = example_rows()
    if context is not None:
        rows = torch.cat([rows, context], dim=1)
    flow = build(spec, 4, context_dim=rows.shape[1] - 4, seed=1)
    fit_encoding(flow, rows[:300])
    list(fit(flow, rows[:300], rows[300:], options=OPTIONS, **given))
    return flow.double().eval()


@pytest.mark.parametrize(
    ("value", "same"),
    [*((value, -1.0) for value in (3.0, 0.5, -2.0, 1e30, -1e300)), (math.inf, math.nan)],
)
def test_what_is_no_level_counts_as_unseen_and_what_is_infinite_as_a_gap(value, same):
    rows = example_rows(3)
    other = rows.clone()
    rows[1, 0], other[1, 0] = value, same
    flow = trained()
    assert torch.equal(flow.log_prob(rows), flow.log_prob(other))


def all_levels() -> Tensor:
    choices = [[-1.0, 0.0, 1.0, 2.0, math.nan], [-1.0, 0.0, 1.0], [-1.0, 0.0]]
    return torch.tensor(list(itertools.product(*choices)), dtype=torch.float64)


def test_the_density_sums_and_integrates_to_1():
    flow = trained()
    grid = torch.linspace(-60, 80, 4_001, dtype=torch.float64)
    total = 0.0
    for first, third, fourth in all_levels().tolist():
        rows = torch.tensor([first, 0, third, fourth], dtype=torch.float64).repeat(len(grid), 1)
        rows[:, 1] = grid
        with torch.no_grad():
            total += float(torch.trapezoid(flow.log_prob(rows).exp(), grid))
    assert total == pytest.approx(1, abs=1e-3)


def test_an_unseen_level_has_a_stated_probability():
    flow = trained()
    rows = example_rows(5)
    rows[:, 0], rows[:, 3] = 1.0, -1.0
    seen = rows.clone()
    seen[:, 3] = 0.0
    parts = flow.log_prob_parts(rows)[:, 0] - flow.log_prob_parts(seen)[:, 0]
    assert torch.allclose(parts, torch.tensor(math.log(1 / 100)).double())


def test_a_column_tells_what_its_unseen_levels_have():
    spec = MixedSpec(columns=[MixedColumn(levels=3, unseen=0.2), MixedColumn(levels=2)], rows=9)
    flow = build(spec, 2, seed=0)
    rows = torch.tensor([[0.0, 0], [1, 0], [2, 0], [-1, 0], [0, -1], [0, 1]]).double()
    found = flow.log_prob(rows).detach().exp()
    assert found[4] / (found[0] + found[4] + found[5]) == pytest.approx(0.1)
    whole = flow.log_prob(torch.tensor([[-1.0, -1]]).double()).detach().exp()
    assert whole == pytest.approx(0.2 * 0.1)


def test_a_gap_that_training_never_had_makes_its_row_nan_alone():
    rows = example_rows(4)
    rows[1, 1], rows[2, 2] = math.nan, math.nan
    assert trained().log_prob(rows).isnan().tolist() == [False, True, True, False]


def test_other_families_have_nothing_discrete():
    flow = build(NsfSpec(layers=1, hidden=[4]), 2, seed=0)
    with pytest.raises(FlowError):
        flow.log_prob_parts(torch.zeros(1, 2))
    compiled, rows = compile_flow(flow), np.zeros((1, 2))
    assert compiled.log_prob_parts(rows).tolist() == [[0.0, *compiled.log_prob(rows)]]


def test_compiled_flows_score_and_sample_the_same():
    flow, rows = trained().float(), example_rows(300)
    compiled = compile_flow(flow)
    with torch.no_grad():
        scores, parts = flow.log_prob(rows), flow.log_prob_parts(rows)
    assert torch.allclose(parts.sum(dim=1), scores, atol=1e-4)
    assert np.allclose(compiled.log_prob(rows.numpy()), scores, atol=1e-4)
    assert np.allclose(compiled.log_prob_parts(rows.numpy()), parts, atol=1e-4)
    expected = flow.sample(300, generator=torch.Generator().manual_seed(7))
    assert np.allclose(compiled.sample(300, seed=7), expected, atol=1e-3, equal_nan=True)
    model = compiled.sample(10, seed=7, space="model")
    assert model.shape == (10, 4)
    assert np.isfinite(compiled.log_prob(model, space="model")).all()


def test_samples_have_the_frequencies_of_the_levels():
    flow, chi, cells = trained(), 0.0, 0
    assert isinstance(flow.transform, MixedDensity)
    samples = flow.sample(4000, generator=torch.Generator().manual_seed(3))
    levels = samples[:, [0, 2, 3]]
    for wanted in all_levels():
        if bool((wanted == -1).any()):
            continue
        same = (levels == wanted) | (levels.isnan() & wanted.isnan())
        rows = torch.tensor([[wanted[0], 0.0, wanted[1], wanted[2]]], dtype=torch.float64)
        with torch.no_grad():
            indices = flow.preprocessing.inverse(rows)[0][:, :3]
            expected = 4000 * float(flow.transform.log_levels(indices).sum().exp())
        chi += (int(same.all(dim=1).sum()) - expected) ** 2 / expected
        cells += 1
    # The 99.9 % quantile of chi-square with 7 degrees of freedom, for the floor of unseen levels too.
    assert cells == 8
    assert chi < 26


def test_weights_and_encodings_survive_saving():
    flow, rows = trained(), example_rows(20)
    described = spec_from_dict(spec_to_dict(SPEC))
    assert described == SPEC
    other = build(described, 4, seed=9).double().eval()
    other.load_state_dict(flow.state_dict())
    assert torch.equal(other.log_prob(rows), flow.log_prob(rows))


def test_gradients_are_those_of_finite_differences():
    flow, rows = trained(), example_rows(6)
    flow.log_prob(rows).sum().backward()
    for parameter in (p for p in flow.parameters() if p.numel() > 4):
        assert parameter.grad is not None
        place = int(parameter.grad.abs().argmax())
        flat, step, values = parameter.data.view(-1), 1e-6, []
        for move in (step, -2 * step):
            flat[place] += move
            values.append(float(flow.log_prob(rows).sum().detach()))
        flat[place] += step
        slope = (values[0] - values[1]) / (2 * step)
        assert slope == pytest.approx(float(parameter.grad.view(-1)[place]), rel=1e-4, abs=1e-5)


def test_an_interrupted_training_goes_on_bit_for_bit():
    steps = itertools.count()
    with pytest.raises(FitInterrupted) as caught:
        trained(interrupted=lambda: next(steps) == 8)
    assert_same(trained(state=caught.value.state), trained())


def test_an_untrained_density_starts_at_the_frequencies_of_the_levels():
    rows = example_rows(4000)
    rows[rows[:, 0] == 1, 0] = 0
    flow = build(SPEC, 4, seed=1)
    fit_encoding(flow, rows)
    drawn = torch.as_tensor(compile_flow(flow).sample(4000, seed=2))
    for column, levels in ((0, (0, 1, 2, math.nan)), (2, (0, 1))):
        for level in levels:
            shares = [
                float(
                    (one[:, column].nan_to_num(9) == (9 if level != level else level))
                    .float()
                    .mean()
                )
                for one in (rows, drawn)
            ]
            assert shares[1] == pytest.approx(shares[0], abs=0.03)


CONTEXT = [MixedColumn(levels=2, missing=True), MixedColumn(transform="asinh")]


def test_a_context_has_categories_and_gaps_too():
    generator = torch.Generator().manual_seed(5)
    context = torch.randn(400, 2, generator=generator).double()
    context[:, 0] = (context[:, 0] > 0).double()
    context[::5, 0] = math.nan
    spec = copy.copy(SPEC)
    object.__setattr__(spec, "context", CONTEXT)
    flow = trained(spec, context)
    rows = torch.cat([example_rows(), context], dim=1)[:50]
    scores = flow.log_prob_of_table(rows)
    assert torch.isfinite(scores).all()
    compiled = compile_flow(flow)
    assert np.allclose(compiled.log_prob(rows.numpy()), scores.detach().numpy(), atol=1e-4)
    gap = rows.clone()
    gap[3, 5] = math.nan
    assert flow.log_prob_of_table(gap).isnan().nonzero().flatten().tolist() == [3]
    samples = compiled.sample(20, seed=1, context=context[:1].numpy())
    assert samples.shape == (20, 4)


def test_only_categories_need_no_flow():
    spec = MixedSpec(columns=[MixedColumn(levels=4)], flow=None, rows=10)
    flow = build(spec, 1, seed=0)
    rows = torch.tensor([[0.0], [1.0], [2.0], [3.0], [-1.0]], dtype=torch.float64)
    assert float(flow.log_prob(rows).exp().sum().detach()) == pytest.approx(1, abs=1e-5)
    samples = flow.sample(50, generator=torch.Generator().manual_seed(0))
    assert set(samples.unique().tolist()) <= {0.0, 1.0, 2.0, 3.0}


def test_only_numbers_are_the_flow_itself():
    spec = MixedSpec(flow=MafSpec(layers=2, hidden=[8], batch_norm=None))
    flow = build(spec, 3, seed=0)
    rows = torch.randn(10, 3, generator=torch.Generator().manual_seed(1)).double()
    assert torch.equal(flow.log_prob_parts(rows)[:, 0], torch.zeros(10))
    assert torch.isfinite(flow.log_prob(rows)).all()


def test_two_levels_are_the_case_of_the_bernoulli_made() -> None:
    dim, hidden = 9, [24, 17]
    generator = torch.Generator().manual_seed(0)
    bernoulli = MadeSpec(conditional="bernoulli", hidden=hidden).build(dim, generator)
    made = CategoricalMade(
        [2] * dim, hidden=hidden, activation="tanh", context_dim=0, generator=generator
    )
    first, *_, last = made_layers = layers_of(made)
    with torch.no_grad():
        for layer, source in zip(made_layers, layers_of(bernoulli), strict=True):
            weight = source.weight * source.mask
            if layer is first:  # the input of a 1 is that of the level 1
                layer.weight.zero_()[:, 1::2] = weight
                layer.bias.copy_(source.bias)
            elif layer is last:  # and its logit is that of the level 1 against the level 0
                layer.weight.zero_()[1::2] = weight
                layer.bias.zero_()[1::2] = source.bias
            else:
                layer.weight.copy_(weight)
                layer.bias.copy_(source.bias)
    rows = torch.randint(2, (64, dim), generator=generator).float()
    inputs = one_hot(rows, made.sizes, made.starts, made.slots)
    torch.testing.assert_close(
        made.log_prob(rows, inputs).sum(dim=1), bernoulli.log_density(rows), rtol=1e-5, atol=1e-5
    )


def layers_of(module: torch.nn.Module) -> list[MaskedLinear]:
    return [layer for layer in module.modules() if isinstance(layer, MaskedLinear)]


NUMBERS = st.floats(allow_nan=False, allow_infinity=False, width=32)


@given(st.lists(st.lists(NUMBERS, min_size=1, max_size=9, unique=True), min_size=1, max_size=5))
def test_numbers_of_levels_are_found_and_given_back(listed):
    levels = Levels([MixedColumn(levels=len(v), values=v) for v in listed], hides=False)
    rows = max(len(values) for values in listed)
    cells = torch.tensor([[v[i % len(v)] for v in listed] for i in range(rows)]).double()
    indices = torch.tensor([[i % len(v) for v in listed] for i in range(rows)]).double()
    assert torch.equal(levels.encode(cells), indices)
    assert torch.equal(levels.encode(cells.float().double()), indices)
    assert torch.equal(levels.decode(indices), cells)


def test_other_numbers_are_unseen_and_gaps_are_a_level_where_there_were_some():
    columns = [
        MixedColumn(levels=3, values=[-1.0, 0.0, 2.5], missing=True),
        MixedColumn(levels=2),
        MixedColumn(levels=2, values=[0.1, 0.2]),
    ]
    levels = Levels(columns, hides=False)
    cells = torch.tensor(
        [[-1, 0, 0.1], [2.5, 1, 0.2], [0.5, 2, 0.3], [math.nan, -1, 0.05], [1e300, 0.5, 7]],
        dtype=torch.float64,
    )
    expected = [[0, 0, 0], [2, 1, 1], [-1, -1, -1], [3, -1, -1], [-1, -1, -1]]
    assert levels.encode(cells.float().double()[:2]).tolist() == expected[:2]
    assert levels.encode(cells).tolist() == expected
    gaps = torch.full((1, 3), math.nan).double()
    assert levels.encode(gaps)[0, 1:].isnan().all()
    assert Levels(columns, hides=True).encode(gaps).tolist() == [[3, -2, -2]]
    assert levels.encode(torch.full((1, 3), math.inf).double()).isnan().all()
    back = levels.decode(torch.tensor([[3.0, -2, -1], [1, 1, 1]]).double())
    assert back.nan_to_num(99).tolist() == [[99, 99, -1], [0, 1, 0.2]]


def test_levels_whose_numbers_are_near_each_other_begin_alike():
    values = (torch.arange(20.0) * 7 % 20).tolist()
    columns = [MixedColumn(levels=20, values=values), MixedColumn(levels=2), MixedColumn()]
    rows = (
        torch.arange(400.0).double()[:, None]
        // torch.tensor([1, 20, 1])
        % torch.tensor([20, 2, 400])
    )
    for inner in (MafSpec(layers=1, hidden=[16], batch_norm=None), SPEC.flow):
        flow = build(MixedSpec(columns=columns, flow=inner, hidden=[16], rows=400), 3, seed=0)
        fit_encoding(flow, rows)
        with torch.no_grad():
            parts = flow.eval().log_prob_parts(rows[:20])
        assert (parts.diff(dim=0).square().mean(dim=0) < 0.3 * 2 * parts.var(dim=0)).all(), parts


def test_weights_from_before_samples_were_rounded_are_read() -> None:
    spec = MixedSpec(flow=MafSpec(layers=1, hidden=[4]), hidden=[4])
    flow, earlier = build(spec, 2, seed=0), build(spec, 2, seed=1)
    assert isinstance(flow.preprocessing, TableEncoding)
    assert isinstance(earlier.preprocessing, TableEncoding)
    flow.preprocessing.set_roundings(torch.arange(200.0).reshape(100, 2))
    weights = flow.state_dict()
    del weights["preprocessing.roundings"]

    earlier.load_state_dict(weights)

    rows = torch.tensor([[0.5, 31.25], [7.0, 8.0]])
    assert torch.equal(earlier.log_prob(rows), flow.log_prob(rows))
    assert torch.equal(earlier.preprocessing.to_grid(rows), rows)
    assert not torch.equal(flow.preprocessing.to_grid(rows), rows)
    del weights["preprocessing.knots"]
    with pytest.raises(RuntimeError, match="knots"):
        earlier.load_state_dict(weights)


def test_weights_of_a_single_category_that_see_nothing_are_left_out() -> None:
    columns = [MixedColumn(), MixedColumn(levels=3)]
    spec = MixedSpec(columns=columns, flow=MafSpec(layers=1, hidden=[4]), hidden=[4])
    flow, earlier = build(spec, 2, seed=0), build(spec, 2, seed=1)
    weights = flow.state_dict()
    (name,) = (name for name in weights if name.endswith("made.layers.0.weight"))
    weights[name] = torch.ones(len(weights[name]), 3)

    earlier.load_state_dict(weights)

    rows = torch.tensor([[0.5, 2.0], [7.0, 0.0]])
    assert torch.equal(earlier.log_prob(rows), flow.log_prob(rows))
