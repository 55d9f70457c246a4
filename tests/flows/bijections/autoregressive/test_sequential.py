import pytest
import torch
from torch import Tensor

from flows.bijections.autoregressive.masked import Conditioner, made_masks, run_masked
from flows.bijections.autoregressive.sequential import SequentialSampler
from flows.bijections.gradients import ACTIVATIONS
from flows.families.made import Made


def _network(dim: int, hidden: list[int]) -> tuple[list[Tensor], list[Tensor]]:
    generator = torch.Generator().manual_seed(0)
    degrees = Conditioner(hidden, "tanh").degrees(dim, 2)
    masks = [mask.double() for mask in made_masks(degrees, 2)]
    weights = [
        torch.randn(mask.shape, generator=generator, dtype=torch.float64)
        * mask
        / mask.shape[1] ** 0.5
        for mask in masks
    ]
    biases = [torch.randn(len(m), generator=generator, dtype=torch.float64) / 3 for m in masks]
    return weights, biases


@pytest.mark.parametrize("activation", sorted(ACTIVATIONS))
@pytest.mark.parametrize(
    ("dim", "hidden"),
    [(1, [4]), (2, [1]), (3, [1]), (5, [2]), (16, [40]), (17, [40, 9]), (40, [8, 30]), (300, [64])],
)
def test_it_solves_the_layer_for_its_input(dim, hidden, activation):
    weights, biases = _network(dim, hidden)
    chosen = ACTIVATIONS[activation]
    degrees = Conditioner(hidden, "tanh").degrees(dim, 2)
    sampler = SequentialSampler(weights, biases, degrees=degrees, activation_=chosen.apply_)
    for batch in (1, 6, 1):
        u = torch.randn(batch, dim, dtype=torch.float64)
        x, log_scale = sampler.sample(u.t())
        shift, expected = run_masked(x.t(), weights, biases, activation=activation).chunk(2, dim=1)
        torch.testing.assert_close(log_scale.t(), expected)
        torch.testing.assert_close((x.t() - shift) * torch.exp(-expected), u)


def test_results_are_not_overwritten_by_the_next_call():
    weights, biases = _network(4, [8])
    degrees = Conditioner([8], "relu").degrees(4, 2)
    sampler = SequentialSampler(weights, biases, degrees=degrees, activation_=torch.relu_)
    first, log_scale = sampler.sample(torch.zeros(4, 3, dtype=torch.float64))
    kept = first.clone(), log_scale.clone()
    sampler.sample(torch.ones(4, 3, dtype=torch.float64))
    assert torch.equal(first, kept[0])
    assert torch.equal(log_scale, kept[1])


def test_the_fast_path_equals_the_differentiable_one():
    made = Made(6, Conditioner([10, 10], "relu"), torch.Generator()).double()
    u = torch.randn(9, 6, dtype=torch.float64)
    slow, slow_log_det = made.forward(u)
    with torch.no_grad():
        fast, fast_log_det = made.forward(u)
    torch.testing.assert_close(fast, slow)
    torch.testing.assert_close(fast_log_det, slow_log_det)
