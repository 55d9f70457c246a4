"""Which columns count as discrete, and the noise that they get."""

import pytest
import torch
from torch import Tensor

from workers.trainer.discrete import column_noise


def normal(rows: int = 2000) -> Tensor:
    return torch.randn(rows, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def integers(low: int, high: int, rows: int = 2000) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(low, high, (rows,), generator=generator).double()


def found(column: Tensor) -> tuple[float, float, float]:
    noise = column_noise(column[:, None])
    return noise.steps.item(), noise.widths.item(), noise.spikes.item()


def test_a_continuous_column_gets_no_noise() -> None:
    assert found(normal()) == (0.0, 0.0, 0.0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("step", [1.0, 0.1, 0.25, 1e-3, 40.0])
def test_multiples_of_a_step_get_noise_of_its_width(step: float, dtype: torch.dtype) -> None:
    column = (integers(-40, 60) * step).to(dtype)
    assert found(column) == pytest.approx((step, step, 0.0), rel=1e-3)


def test_whole_numbers_are_discrete_however_many_there_are() -> None:
    assert found(integers(0, 10**6)) == (1.0, 1.0, 0.0)


def test_gaps_that_are_multiples_of_the_smallest_one_do_not_matter() -> None:
    assert found(integers(0, 50) * 3 + 6) == (3.0, 3.0, 0.0)


def test_a_grid_away_from_0_gets_noise_but_samples_are_not_rounded_to_it() -> None:
    step, width, _ = found(integers(0, 100) * 0.1 + 0.03)
    assert step == 0
    assert width == pytest.approx(0.1, rel=1e-6)


def test_few_values_without_a_grid_get_noise_of_their_median_gap() -> None:
    values = torch.tensor([0.0, 0.1, 0.25, 0.37, 1.01, 1.38, 2.02, 2.7, 3.1, 3.313, 5.0])
    values = torch.cat([values, values + 7.77]).double()
    step, width, _ = found(values[integers(0, 22).long()])
    assert step == 0
    assert width > 0.1


def test_two_values_get_noise_that_fills_the_gap() -> None:
    assert found(integers(0, 2)) == (1.0, 1.0, 0.0)


def test_a_spike_in_a_continuous_column_gets_a_wide_noise() -> None:
    column = normal()
    column[::3] = 0.0
    step, width, share = found(column)
    assert step == 0
    assert width == pytest.approx(0.5 * float(column.std(correction=0)))
    assert share == pytest.approx(1 / 3, abs=0.01)


def test_a_rare_repeated_value_is_no_spike() -> None:
    column = normal()
    column[::30] = 0.0
    assert found(column) == (0.0, 0.0, 0.0)


def test_a_spike_in_a_wide_discrete_column_keeps_its_step() -> None:
    column = integers(-300, 300)
    column[::3] = 0.0
    step, width, share = found(column)
    assert step == 1.0
    assert width > 50
    assert share > 0.3


def test_a_discrete_column_whose_values_are_merely_common_keeps_its_step() -> None:
    assert found((normal() * 2).round()) == (1.0, 1.0, 0.0)


def test_large_tables_are_looked_at_in_part(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workers.trainer.discrete.SAMPLE_ROWS", 300)
    rows = torch.stack([integers(0, 5), normal()], dim=1)
    assert column_noise(rows).steps.tolist() == [1.0, 0.0]


def test_it_is_told_which_columns_have_noise() -> None:
    column = normal()
    column[::3] = 0.0
    noise = column_noise(torch.stack([integers(0, 5), normal(), column], dim=1))
    first, second = noise.notes(["kind", "size", "rain"])
    assert "kind" in first
    assert "'rain' (33%)" in second
    assert not list(column_noise(normal()[:, None]).notes(["size"]))
