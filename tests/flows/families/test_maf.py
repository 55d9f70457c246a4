import pytest
import torch

from flows import BatchNormSpec, MafSpec, build
from flows.bijections.batch_norm import BatchNorm
from flows.bijections.compose import Permutation, Reverse
from flows.families.made import Made


def test_each_layer_has_a_batch_norm_on_its_noise_side_and_the_order_is_reversed_between():
    parts = build(MafSpec(layers=3, hidden=[8]), 4, seed=0).transform.parts()
    kinds = [type(part) for part in parts]
    assert kinds == [Made, BatchNorm, Reverse, Made, BatchNorm, Reverse, Made, BatchNorm]


def test_the_layer_next_to_the_data_has_the_natural_order():
    flow = build(MafSpec(layers=1, hidden=[32], batch_norm=None), 4, seed=0).double()
    x = torch.randn(4, dtype=torch.float64)
    jacobian = torch.autograd.functional.jacobian(lambda r: flow.inverse(r[None])[0][0], x)
    assert isinstance(jacobian, torch.Tensor)
    assert torch.equal(jacobian, jacobian.tril())


def test_a_random_order_is_drawn_before_each_following_layer():
    parts = build(MafSpec(layers=4, hidden=[8], order="random"), 9, seed=0).transform.parts()
    orders = [tuple(part.order.tolist()) for part in parts if isinstance(part, Permutation)]
    assert len(set(orders)) == 3


def test_batch_norm_can_be_left_out():
    parts = build(MafSpec(layers=2, hidden=[8], batch_norm=None), 4, seed=0).transform.parts()
    assert not any(isinstance(part, BatchNorm) for part in parts)


def test_batch_norm_specs_out_of_range_are_refused(unchecked):
    with pytest.raises(ValueError, match="momentum"):
        BatchNormSpec(momentum=1.0)
    with pytest.raises(ValueError, match="statistics"):
        unchecked(BatchNormSpec, statistics="batch")
