"""Bijections: composed, with tails, masked, and norms of a batch."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from flows import BatchNormSpec, Flow, MafSpec, RealNvpSpec, build
from flows.bijections.autoregressive.masked import made_masks, tensors_of
from flows.bijections.batch_norm import BatchNorm, set_dataset_statistics
from flows.bijections.compose import Chain, Permutation, Reverse
from flows.bijections.tails import Tails
from flows.preprocess import Standardise
from flows.specs.costs import Conditioner, hidden_degrees
from flows.specs.spec import BATCH_NORM_EPS
from tests.flows.cases import draw, example_rows, trained


def test_hidden_degrees_rise_evenly_from_1_to_dim_minus_1():
    for width, dim in [(1, 2), (5, 2), (7, 4), (512, 21), (10, 40)]:
        degrees = hidden_degrees(width, dim)
        assert bool((np.diff(degrees) >= 0).all())
        assert int(degrees[0]) == 1
        assert width == 1 or int(degrees[-1]) == dim - 1
    counts = np.bincount(hidden_degrees(512, 21))[1:]
    assert int(counts[1:-1].max() - counts[1:-1].min()) <= 1


def test_wide_networks_let_each_output_see_all_features_before_it_and_none_after_it():
    paths = torch.eye(6)
    for mask in masks_of(6, [50, 50]):
        paths = mask @ paths
    for half in paths.chunk(2):
        assert torch.equal(half > 0, torch.ones(6, 6).tril(-1) > 0)


ROWS = torch.arange(12.0).view(3, 4)


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


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_both_directions_hold_far_out(dtype):
    layer = Tails(2).to(dtype)
    with torch.no_grad():
        layer.raw.copy_(torch.tensor([[-9.0, 0.0], [0.0, 2.0]]))
    x = torch.tensor([[0.0, -1e-3], [-30.0, -1e6], [1e4, 1e9], [-0.1, 2.0]], dtype=dtype)
    u, log_det = layer.inverse(x)
    back, log_det_back = layer.forward(u)
    tolerance = 1e-3 if dtype == torch.float32 else 1e-9
    torch.testing.assert_close(back, x, rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(log_det_back, -log_det, rtol=tolerance, atol=tolerance)


def test_each_side_learns_its_own_tail():
    uniform = torch.rand(4000, 1, generator=torch.Generator().manual_seed(0)).double()
    normal, pareto = draw(4000, 1, seed=1), (uniform**-0.5 - 1) / 0.5  # weight 0.5
    rows, reached = torch.where(normal > 0, pareto, normal), []
    for tails in (True, False):
        flow = build(MafSpec(layers=1, hidden=[4], batch_norm=None, tails=tails), 1, seed=0)
        trained(flow, rows[:3000], rows[3000:], learning_rate=0.02, batch_size=200, max_epochs=15)
        reached.append(float(flow.log_prob(rows[3000:]).detach().mean()))
        if tails:
            left, right = 2 * torch.sigmoid(flow.transform.get_parameter("layers.0.raw"))[:, 0]
            assert right > 0.3
            assert left < 0.1
    assert reached[0] > reached[1] + 0.5


def test_a_permutation_reads_features_in_the_given_order_and_a_reversal_backwards():
    order = torch.tensor([2, 0, 3, 1])
    for layer, expected in ((Permutation(order), ROWS[:, order]), (Reverse(4), ROWS.flip(1))):
        u, log_det = layer.inverse(ROWS)
        assert torch.equal(u, expected)
        assert torch.equal(log_det, torch.zeros(3))
        assert torch.equal(layer.forward(u)[0], ROWS)


def _layer(**fields: Any) -> BatchNorm:
    layer = BatchNorm(3, BatchNormSpec(**fields)).double()
    with torch.no_grad():
        layer.log_gain.normal_(generator=torch.Generator().manual_seed(0))
        layer.offset.normal_(generator=torch.Generator().manual_seed(1))
    return layer


def set_statistics(flow: Flow, x: Tensor, chunk_rows: int) -> None:
    pieces = [(rows, None, None) for rows in x.split(chunk_rows)]
    set_dataset_statistics(flow.transform, lambda: iter(pieces))


def test_training_normalises_by_mean_and_population_variance_of_the_batch():
    layer, x = _layer(), example_rows(50, 3)
    u, log_det = layer.inverse(x)
    std = (x.var(dim=0, correction=0) + BATCH_NORM_EPS).sqrt()
    expected = (x - x.mean(dim=0)) / std * layer.log_gain.exp() + layer.offset
    torch.testing.assert_close(u, expected)
    torch.testing.assert_close(log_det, (layer.log_gain - std.log()).sum().expand(50))


def test_statistics_follow_the_batches_with_the_given_momentum():
    layer, x = _layer(statistics="running", momentum=0.75), example_rows(50, 3)
    layer.inverse(x)
    torch.testing.assert_close(layer.mean, 0.25 * x.mean(dim=0))
    torch.testing.assert_close(layer.var, 0.75 + 0.25 * x.var(dim=0, correction=0))


@pytest.mark.parametrize("sizes", [[1, 2, 300, 697], [1, 4]], ids=["many", "few"])
def test_dataset_statistics_of_pieces_equal_those_of_all_rows_far_from_0(sizes):
    x = example_rows(sum(sizes), 3) + 1e6
    norm = _layer(statistics="dataset").eval()
    pieces = [(rows, None, None) for rows in x.split(sizes)]
    set_dataset_statistics(Chain([norm]), lambda: iter(pieces))
    torch.testing.assert_close(norm.mean, x.mean(dim=0), rtol=1e-14, atol=0)
    torch.testing.assert_close(norm.var, x.var(dim=0, correction=0), rtol=1e-8, atol=0)


@pytest.mark.parametrize("spec", [MafSpec(layers=4, hidden=[16]), RealNvpSpec(layers=4)])
@pytest.mark.parametrize("chunk_rows", [7, 300])
def test_dataset_statistics_are_those_of_the_entire_training_set_at_every_layer(spec, chunk_rows):
    x = example_rows(300, 4)
    x = (x - x.mean(dim=0)) / x.std(dim=0)
    flow = build(spec, 4, seed=0).double()
    kept = x.clone()
    with torch.no_grad():
        as_one_batch = flow.train().log_prob(x)
        flow.eval()
        set_statistics(flow, x, chunk_rows)
        torch.testing.assert_close(flow.log_prob(x), as_one_batch, rtol=1e-10, atol=1e-10)
    assert torch.equal(x, kept)


def test_running_layers_keep_their_averages_when_exact_statistics_are_set():
    spec = MafSpec(layers=2, hidden=[8], batch_norm=BatchNormSpec(statistics="running"))
    flow = build(spec, 3, seed=0).double().eval()
    set_statistics(flow, example_rows(50, 3), 10)
    for part in flow.transform.parts():
        if isinstance(part, BatchNorm):
            assert torch.equal(part.mean, torch.zeros_like(part.mean))


def test_the_forward_direction_uses_stored_statistics_also_in_training():
    layer, u = _layer().train(), example_rows(5, 3)
    x = torch.cat([layer.forward(row[None])[0] for row in u])
    torch.testing.assert_close(layer.forward(u)[0], x)


def masks_of(dim, hidden, **fields):
    return made_masks(tensors_of(Conditioner(hidden, "tanh", **fields).degrees(dim, 2)), 2)


def test_direct_connections_are_strict_columns_behind_those_of_the_hidden_units():
    degrees = [torch.tensor([3, 1, 4, 2]), torch.tensor([1, 3, 2, 2, 1])]
    *_, plain = made_masks(degrees, 2)
    *_, mask = made_masks(degrees, 2, direct=True)
    assert torch.equal(mask[:, :5], plain)
    order = torch.argsort(degrees[0])
    for half in mask[:, 5:].chunk(2):
        assert torch.equal(half[order][:, order], torch.ones(4, 4).tril(-1))


def test_one_feature_has_no_hidden_layer():
    (mask,) = masks_of(1, [8, 8])
    assert torch.equal(mask, torch.zeros(2, 1))
