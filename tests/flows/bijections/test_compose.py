import pytest
import torch
from torch import Tensor

from flows.bijections.compose import Chain, Permutation, Reverse
from flows.preprocess import Standardise

ROWS = torch.arange(12.0).view(3, 4)


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
