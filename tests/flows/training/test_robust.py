import math

import pytest
import torch

from flows.training.robust import bound_losses, robust_mean, robust_standard_error

LOSSES = torch.tensor([3.0, 1.0, 2.0, 5.0, 4.0, 7.0, 6.0, 8.0])


def test_losses_within_the_fence_are_left_as_they_are():
    assert torch.equal(bound_losses(LOSSES, 10.0), LOSSES)


def test_beyond_the_fence_a_loss_grows_like_its_logarithm_and_its_gradient_fades():
    losses = torch.cat([LOSSES, torch.tensor([1e6])]).requires_grad_()
    bounded = bound_losses(losses, 2.0)
    fence, spread = 5.0 + 2.0 * 4.0, 4.0  # of the sorted nine: quartiles 3 and 7, median 5
    assert float(bounded[-1].detach()) == pytest.approx(
        fence + spread * math.log1p((1e6 - fence) / spread), rel=1e-5
    )
    bounded.sum().backward()
    assert losses.grad is not None
    assert torch.equal(losses.grad[:-1], torch.ones(8))
    assert float(losses.grad[-1]) == pytest.approx(1 / (1 + (1e6 - fence) / spread), rel=1e-4)


def test_the_bound_is_continuous_with_the_slope_1_at_the_fence():
    fence = 5.0 + 2.0 * 4.0
    for beyond in (-1e-3, 1e-3):
        losses = torch.cat([LOSSES, torch.tensor([fence + beyond])]).requires_grad_()
        bounded = bound_losses(losses, 2.0)
        assert float(bounded[-1].detach()) == pytest.approx(fence + beyond, abs=1e-5)
        bounded[-1].backward()
        assert losses.grad is not None
        assert float(losses.grad[-1]) == pytest.approx(1.0, abs=1e-3)


def test_a_quarter_of_wild_rows_does_not_move_the_fence_far():
    calm = torch.randn(300, generator=torch.Generator().manual_seed(0))
    wild = torch.cat([calm, torch.full((70,), 1e30)])
    assert float(bound_losses(wild, 10.0).mean()) < 200
    assert torch.equal(bound_losses(wild, 10.0)[:300], calm)


def test_a_density_of_0_is_finite_for_one_row_and_not_for_most():
    one = torch.cat([LOSSES, torch.tensor([math.inf])])
    assert torch.isfinite(bound_losses(one, 10.0)).all()
    most = torch.cat([LOSSES, torch.full((9,), math.inf)])
    assert not torch.isfinite(bound_losses(most, 10.0)).all()


def test_nan_stays_nan():
    assert bound_losses(torch.cat([LOSSES, torch.tensor([math.nan])]), 10.0).isnan().any()


@pytest.mark.parametrize("rows", [1, 2, 3])
def test_few_rows_are_bounded_too(rows):
    assert torch.isfinite(bound_losses(LOSSES[:rows], 10.0)).all()


def test_a_robust_mean_leaves_out_the_worst_row_of_twenty_and_none_of_fewer():
    calm = torch.zeros(19)
    assert robust_mean(torch.cat([calm, torch.tensor([-1e12])]), 10.0) == 0
    assert robust_mean(torch.cat([calm[1:], torch.tensor([-1e12])]), 10.0) < 0


def test_the_standard_error_of_a_difference_is_that_of_the_rows_that_both_means_keep():
    noise = torch.randn(2, 1000, generator=torch.Generator().manual_seed(0))
    one, other = noise[0], noise[0] + 0.1 * noise[1]
    error = robust_standard_error(one, other, 10.0)
    assert error == pytest.approx(0.1 / math.sqrt(1000), rel=0.1)
    one[0], other[1], one[2] = -1e12, -1e12, math.nan
    assert robust_standard_error(one, other, 10.0) == pytest.approx(error, rel=0.1)
    assert robust_standard_error(one[:1], other[:1], 10.0) == 0


def test_more_wild_rows_than_are_left_out_do_not_ruin_a_robust_mean():
    calm = torch.randn(1000, generator=torch.Generator().manual_seed(0))
    wild = torch.cat([calm, torch.full((50,), -1e12)])
    assert robust_mean(wild, 10.0) > float(calm.mean()) - 10
