"""Densities that are conditioned on a context, for every family."""

import copy

import numpy as np
import pytest
import torch
from torch import Tensor

from flows import (
    EncoderSpec,
    FitOptions,
    Flow,
    FlowError,
    FlowSpec,
    MadeSpec,
    MafSpec,
    SpecError,
    build,
    check_dim,
    compile_flow,
    count_parameters,
    evaluate,
    fit,
)
from tests.flows.cases import CASES, Case, example_rows

CONTEXT_DIM = 3
ENCODED = [
    Case("made-encoder", MadeSpec(hidden=[8], encoder=EncoderSpec(hidden=[5], features=4))),
    Case("maf-encoder", MafSpec(layers=1, hidden=[8, 7], encoder=EncoderSpec(activation="relu"))),
]
every_case = pytest.mark.parametrize("case", CASES + ENCODED, ids=lambda case: case.name)


def conditional_flow(spec: FlowSpec, dim: int) -> Flow:
    rows, context = example_rows(100, dim), contexts(100)
    flow = build(
        spec,
        dim,
        standardise=(rows.mean(dim=0), rows.std(dim=0)),
        context_dim=CONTEXT_DIM,
        standardise_context=(context.mean(dim=0), context.std(dim=0)),
        seed=3,
    )
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.1)
    return flow.double().eval()


def contexts(rows: int) -> Tensor:
    generator = torch.Generator().manual_seed(7)
    return 5 + 2 * torch.randn(rows, CONTEXT_DIM, generator=generator, dtype=torch.float64)


@every_case
def test_directions_cancel_and_log_dets_are_those_of_autograd(case):
    dim = 3
    flow, x, context = conditional_flow(case.spec, dim), example_rows(5, dim), contexts(5)
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
    dim = max(case.min_dim, 1)
    flow, context = conditional_flow(case.spec, dim), contexts(2)
    standardise = flow.preprocessing.standardise
    assert standardise is not None
    reach = 300 if getattr(case.spec, "tails", False) else 12
    axis = torch.linspace(
        -reach, reach, 2001 * reach // 12 if dim == 1 else 241, dtype=torch.float64
    )
    cells = torch.cartesian_prod(*[axis] * dim).reshape(-1, dim)
    volume = float(axis[1] - axis[0]) ** dim
    scores = []
    for row in context:
        with torch.no_grad():
            score = flow.log_prob(cells, row[None], space="model")
        assert float(score.exp().sum()) * volume == pytest.approx(1, abs=5e-3)
        scores.append(score)
    assert not torch.allclose(scores[0], scores[1], atol=1e-3)


@every_case
def test_a_compiled_flow_equals_the_reference(case):
    dim = 4
    flow, x, context = conditional_flow(case.spec, dim), example_rows(300, dim), contexts(300)
    table = torch.cat([x, context], dim=1).numpy()
    compiled = compile_flow(flow)
    with torch.no_grad():
        u, log_det = flow.inverse(x, context)
        score = flow.log_prob(x, context)
    _assert_close(compiled.log_prob(table), score)
    _assert_close(compiled.inverse(table)[0], u)
    _assert_close(compiled.inverse(table)[1], log_det)
    noise = torch.cat([u, context], dim=1).numpy()
    _assert_close(compiled.forward(noise)[0], x)
    generator = torch.Generator().manual_seed(4)
    samples = flow.sample(300, generator=generator, context=context)
    _assert_close(compiled.sample(300, seed=4, context=context.numpy()), samples)
    one = compiled.sample(300, seed=4, context=context[:1].numpy())
    _assert_close(one[:1], samples[:1])


def _assert_close(found: np.ndarray, expected: Tensor) -> None:
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
    generator = torch.Generator().manual_seed(0)
    context = torch.rand(2000, 1, generator=generator, dtype=torch.float64) * 4 - 2
    noise = torch.randn(2000, 1, generator=generator, dtype=torch.float64)
    x = torch.sin(2 * context) + noise * torch.exp(context / 2)
    table = torch.cat([x, context], dim=1)
    moments = table.mean(dim=0), table.std(dim=0)
    flow = build(
        MadeSpec(hidden=[32]),
        1,
        standardise=(moments[0][:1], moments[1][:1]),
        context_dim=1,
        standardise_context=(moments[0][1:], moments[1][1:]),
        seed=0,
    )
    options = FitOptions(learning_rate=0.02, batch_size=100, max_epochs=25, patience=None)
    for _ in fit(flow, table[:1500], table[1500:], options=options):
        pass
    reached = evaluate(flow, table[1500:]).mean
    truth = torch.distributions.Normal(torch.sin(2 * context), torch.exp(context / 2))
    assert reached == pytest.approx(float(truth.log_prob(x)[1500:].mean()), abs=0.1)


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


def test_a_saved_conditional_flow_scores_the_same_to_the_bit():
    flow = conditional_flow(ENCODED[0].spec, 3)
    other = conditional_flow(ENCODED[0].spec, 3)
    other.load_state_dict(copy.deepcopy(flow.state_dict()))
    x, context = example_rows(5, 3), contexts(5)
    assert torch.equal(flow.log_prob(x, context), other.log_prob(x, context))
