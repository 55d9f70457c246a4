"""Wide noise on a value that many rows share, in a density of mixed rows."""

import torch

from flows import MixedColumn, MixedSpec, build
from flows.mixed.building import fit_encoding
from flows.mixed.encoding import TableEncoding

COLUMNS = [
    MixedColumn(levels=3),
    MixedColumn(noise=0.5, step=0.01),
    MixedColumn(noise=0.1, step=1.0),
]


def rows(count: int = 4000) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    table = torch.rand(count, 3, dtype=torch.float64, generator=generator)
    levels, amounts = (table[:, 0] * 3).floor(), (table[:, 1] * 2 - 0.7).clamp(min=0)
    return torch.stack([levels, (amounts * 100).round() / 100, (table[:, 2] * 9).round()], dim=1)


def fitted() -> TableEncoding:
    flow = build(MixedSpec(columns=COLUMNS, rows=4000), 3, seed=0)
    fit_encoding(flow, rows())
    assert isinstance(flow.preprocessing, TableEncoding)
    return flow.preprocessing


def test_training_rows_get_the_noise_where_it_is_wider_than_the_step() -> None:
    encoding, table = fitted(), rows()
    moved = (encoding.spread(table, generator=torch.Generator().manual_seed(0)) - table).abs()
    assert moved[:, 0].max() == 0
    assert 0.24 < moved[:, 1].max() <= 0.25
    assert 0.49 < moved[:, 2].max() <= 0.5


def test_samples_come_without_the_noise() -> None:
    encoding, table = fitted(), rows()
    noisy = encoding.spread(table, generator=torch.Generator().manual_seed(1))
    found = encoding.to_grid(noisy)
    shares = [(values[:, 1] == 0).double().mean().item() for values in (table, noisy, found)]
    assert shares[0] > 0.3
    assert shares[1] == 0
    assert abs(shares[2] - shares[0]) < 0.01
    assert found[:, 1].min() == 0
    assert torch.equal(found[:, 2], table[:, 2])


def test_the_maps_are_saved_with_the_weights() -> None:
    one = fitted()
    other = build(MixedSpec(columns=COLUMNS, rows=4000), 3, seed=1).preprocessing
    other.load_state_dict(one.state_dict())
    noisy = one.spread(rows(), generator=torch.Generator().manual_seed(1))
    assert torch.equal(other.to_grid(noisy), one.to_grid(noisy))
