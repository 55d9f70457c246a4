from typing import Any

import pytest
import torch
from torch import Tensor

from flows import BatchNormSpec, Flow, MafSpec, RealNvpSpec, build
from flows.bijections.batch_norm import EPS, BatchNorm, Moments, set_dataset_statistics
from tests.flows.cases import example_rows


def _layer(**fields: Any) -> BatchNorm:
    layer = BatchNorm(3, BatchNormSpec(**fields)).double()
    with torch.no_grad():
        layer.log_gain.normal_(generator=torch.Generator().manual_seed(0))
        layer.offset.normal_(generator=torch.Generator().manual_seed(1))
    return layer


def set_statistics(flow: Flow, x: Tensor, chunk_rows: int) -> None:
    pieces = [(rows, None, None) for rows in x.split(chunk_rows)]
    set_dataset_statistics(flow.transform, lambda: iter(pieces), device=x.device)


def test_training_normalises_by_mean_and_population_variance_of_the_batch():
    layer, x = _layer(), example_rows(50, 3)
    u, log_det = layer.inverse(x)
    std = (x.var(dim=0, correction=0) + EPS).sqrt()
    expected = (x - x.mean(dim=0)) / std * layer.log_gain.exp() + layer.offset
    torch.testing.assert_close(u, expected)
    torch.testing.assert_close(log_det, (layer.log_gain - std.log()).sum().expand(50))


def test_statistics_follow_the_batches_with_the_given_momentum():
    layer, x = _layer(statistics="running", momentum=0.75), example_rows(50, 3)
    layer.inverse(x)
    torch.testing.assert_close(layer.mean, 0.25 * x.mean(dim=0))
    torch.testing.assert_close(layer.var, 0.75 + 0.25 * x.var(dim=0, correction=0))


def test_moments_of_pieces_equal_those_of_all_rows():
    x = example_rows(1000, 4) + 1e6
    moments = Moments(4, x.device)
    for rows in x.split([1, 2, 300, 697]):
        moments.add(rows)
    mean, var = moments.result()
    torch.testing.assert_close(mean, x.mean(dim=0), rtol=1e-14, atol=0)
    torch.testing.assert_close(var, x.var(dim=0, correction=0), rtol=1e-8, atol=0)


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
