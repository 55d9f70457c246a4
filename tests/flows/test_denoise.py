"""Maps that take wide noise off samples."""

import pytest
import torch

from flows import Denoise


def spiky(rows: int = 20_000, *, low: float | None = None) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(rows, dtype=torch.float64, generator=generator)
    values[torch.rand(rows, generator=generator) < 0.6] = 0.25 if low is None else low
    return (values if low is None else values.clamp(min=low))[:, None]


def noisy(values: torch.Tensor, width: float) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    noise = torch.rand(values.shape, generator=generator, dtype=torch.float64) - 0.5
    return values + width * noise


def test_values_with_noise_get_their_distribution_back() -> None:
    values = spiky()
    found = Denoise.fit(values, torch.tensor([0.5]), [0]).clean(noisy(values, 0.5))
    assert (found == 0.25).double().mean() == pytest.approx(0.6, abs=0.01)
    shares = torch.linspace(0.01, 0.99, 50, dtype=torch.float64)
    assert torch.allclose(found.quantile(shares), values.quantile(shares), atol=0.05)
    assert (found - noisy(values, 0.5)).abs().max() < 0.5


@pytest.mark.parametrize("sign", [1.0, -1.0], ids=["lowest", "highest"])
def test_a_shared_value_at_an_end_is_an_end(sign: float) -> None:
    values = sign * spiky(low=0.0)
    denoise = Denoise.fit(values, torch.tensor([0.5]), [0])
    far = sign * torch.tensor([[-7.0], [9.0]], dtype=torch.float64)
    beyond, other = (sign * denoise.clean(far)[:, 0]).tolist()
    assert beyond == 0.0
    assert other == pytest.approx(9.0, abs=0.5)  # beyond the others samples are only shifted


def test_other_columns_stay_and_what_is_no_number_is_none() -> None:
    values = torch.cat([spiky(), spiky(), spiky()], dim=1)
    rows = noisy(values, 0.5)
    rows[3] = torch.nan
    found = Denoise.fit(values, torch.tensor([0.0, 0.5, 0.0]), [1]).clean(rows)
    assert torch.equal(found[4:, [0, 2]], rows[4:, [0, 2]])
    assert found[3].isnan().all()


@pytest.mark.parametrize("fault", ["places", "noisy"])
def test_maps_of_a_file_that_are_none_are_refused(fault: str) -> None:
    denoise = Denoise.fit(spiky(), torch.tensor([0.5]), [0])
    denoise.check(1)
    getattr(denoise, fault)[0] = 7 if fault == "places" else -torch.arange(130.0)
    with pytest.raises(ValueError, match="samples"):
        denoise.check(1)
