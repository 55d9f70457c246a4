import copy

import pytest
import torch
from torch import Tensor

from flows import BatchNormSpec, MafSpec, RealNvpSpec, build
from flows.bijections.compose import Chain, Permutation, Reverse, plain_inverse
from flows.bijections.observed import only_observed
from flows.preprocess import Standardise
from tests.flows.cases import CASES, Case

ROWS = torch.arange(12.0).view(3, 4)
CHAINS = [case for case in CASES if isinstance(build(case.spec, 2, seed=0).transform, Chain)]


def test_a_permutation_reads_features_in_the_given_order():
    order = torch.tensor([2, 0, 3, 1])
    u, log_det = Permutation(order).inverse(ROWS)
    assert torch.equal(u, ROWS[:, order])
    assert torch.equal(log_det, torch.zeros(3))
    assert torch.equal(Permutation(order).forward(u)[0], ROWS)


def test_a_reversal_is_its_own_inverse():
    u, log_det = Reverse(4).inverse(ROWS)
    assert torch.equal(u, ROWS[:, [3, 2, 1, 0]])
    assert torch.equal(log_det, torch.zeros(3))
    assert torch.equal(Reverse(4).forward(u)[0], ROWS)


def test_standardisation_subtracts_the_mean_and_divides_by_the_deviation():
    layer = Standardise(torch.tensor([1.0, 2.0]), torch.tensor([2.0, 0.5]))
    u, log_det = layer.inverse(torch.tensor([[3.0, 3.0]]))
    assert u.tolist() == [[1.0, 2.0]]
    assert float(log_det) == pytest.approx(0.0)
    assert layer.forward(u)[0].tolist() == [[3.0, 3.0]]


@pytest.mark.parametrize(
    ("mean", "std"),
    [([0.0], [0.0]), ([0.0], [-1.0]), ([float("nan")], [1.0]), ([0.0], [float("inf")])],
)
def test_standardisation_refuses_what_cannot_be_undone(mean, std):
    with pytest.raises(ValueError, match="standardisation"):
        Standardise(torch.tensor(mean), torch.tensor(std))


def test_a_chain_goes_from_data_to_noise_in_the_order_of_its_layers():
    scale = Standardise(torch.zeros(4), torch.tensor([1.0, 2.0, 4.0, 8.0]))
    chain = Chain([Reverse(4), scale])
    u, log_det = chain.inverse(ROWS.double())
    expected: Tensor = ROWS.double().flip(1) / scale.std
    torch.testing.assert_close(u, expected)
    torch.testing.assert_close(log_det, torch.full((3,), 64.0, dtype=torch.float64).log().neg())
    torch.testing.assert_close(chain.forward(u)[0], ROWS.double())


def test_nested_chains_have_the_layers_of_a_flat_one():
    inner = [Reverse(4), Reverse(4)]
    assert Chain([Chain(inner), Reverse(4)]).parts()[:2] == inner


def test_weights_that_changed_between_loss_and_gradient_are_refused():
    flow = build(MafSpec(layers=2, hidden=[4]), 3, seed=0)
    loss = flow.log_prob(torch.randn(8, 3)).sum()
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_frozen_parameters_get_no_gradient():
    flow = build(RealNvpSpec(layers=2, hidden=[4]), 3, seed=0)
    frozen, *others = flow.parameters()
    frozen.requires_grad_(False)
    flow.log_prob(torch.randn(8, 3)).sum().backward()
    assert frozen.grad is None
    assert all(parameter.grad is not None for parameter in others)


def test_second_derivatives_leave_running_averages_alone():
    norm = BatchNormSpec(statistics="running")
    flow = build(MafSpec(layers=2, hidden=[4], batch_norm=norm), 3, seed=0).train()
    x = torch.randn(8, 3, requires_grad=True)
    score = flow.log_prob(x).sum()
    before = [buffer.clone() for buffer in flow.buffers()]
    (first,) = torch.autograd.grad(score, x, create_graph=True)
    (second,) = torch.autograd.grad(first.square().sum(), x)
    assert bool((second != 0).any())
    after = list(flow.buffers())
    assert all(torch.equal(old, new) for old, new in zip(before, after, strict=True))


@pytest.mark.parametrize(
    ("case", "with_mask"),
    [
        (case, with_mask)
        for case in CHAINS
        for with_mask in (False, True)
        if case.spec.masks_columns or not with_mask
    ],
    ids=lambda value: value.name if isinstance(value, Case) else str(value),
)
@pytest.mark.parametrize("context_dim", [0, 3])
@pytest.mark.parametrize("training", [False, True])
def test_the_graph_of_a_chain_equals_that_of_its_operations(case, context_dim, with_mask, training):
    generator = torch.Generator().manual_seed(0)
    chain = build(case.spec, 4, context_dim=context_dim, seed=0).transform.double()
    assert isinstance(chain, Chain)
    chain.train(training)
    x = torch.randn(70, 4, dtype=torch.float64, generator=generator, requires_grad=True)
    context = observed = None
    wanted = [x, *chain.parameters()]
    if context_dim:
        context = torch.randn(70, context_dim, dtype=torch.float64, generator=generator)
        wanted.append(context.requires_grad_())
    if with_mask:
        # The last feature is observed in too few rows for statistics of its own.
        observed = (torch.rand(70, 4, generator=generator).lt(0.7)).double()
        observed[5:, -1] = 0
    weight = torch.rand(70, 4, dtype=torch.float64, generator=generator)
    gradients = []
    for inverse in (Chain.inverse, _plain):
        u, log_det = inverse(copy.copy(chain), x, context, observed)
        terms = (weight * u.sin()).sum(), (weight[:, 0] * log_det).sum()
        gradients.append(torch.autograd.grad(terms, wanted))
    for fast, plain in zip(*gradients, strict=True):
        torch.testing.assert_close(fast, plain, rtol=1e-8, atol=1e-10)


def _plain(
    chain: Chain, x: Tensor, context: Tensor | None, observed: Tensor | None
) -> tuple[Tensor, Tensor]:
    return plain_inverse(chain.parts(), only_observed(x, observed), context, observed)
