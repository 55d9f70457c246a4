"""Splits of rows, their moments, and where a training keeps them."""

import numpy as np
import pytest
import torch

from tests.workers.trainer.tasks import split_of
from workers.errors import TrainingError
from workers.trainer.data import SplitRows, moments, split_rows


@pytest.mark.parametrize("rows", [12, 100, 101, 109, 1234])
def test_a_split_uses_every_row_once_and_depends_on_the_seed_alone(rows: int) -> None:
    parts = split_rows(rows, split_of())

    assert sorted(np.concatenate(parts).tolist()) == list(range(rows))
    again = split_rows(rows, split_of())
    assert all((one == two).all() for one, two in zip(parts, again, strict=True))
    other = split_rows(rows, split_of(seed=1))
    assert (parts[0] != other[0]).any()


def test_a_split_in_file_order_trains_on_the_beginning() -> None:
    train_rows, validation, test = split_rows(100, split_of(shuffle=False))

    assert train_rows.tolist() == list(range(80))
    assert validation.tolist() == list(range(80, 90))
    assert test.tolist() == list(range(90, 100))


def test_fractions_that_leave_rows_out_leave_them_out() -> None:
    parts = split_rows(100, split_of(train=0.5, validation=0.2, test=0.0))

    assert [len(part) for part in parts] == [50, 20, 0]


def test_moments_keep_their_digits_far_from_zero() -> None:
    rows = torch.tensor([[1e9 + 1.0], [1e9 + 3.0]], dtype=torch.float64)

    mean, std = moments(rows, ["t"])

    assert mean.item() == 1e9 + 2.0
    assert std.item() == 1.0


@pytest.mark.parametrize(
    ("values", "code"), [([3.0, 3.0], "constant_column"), ([1e308, -1e308], "data_range")]
)
def test_faults_017_019_a_column_without_a_usable_deviation_is_refused(
    values: list[float], code: str
) -> None:
    rows = torch.tensor([[value] for value in values], dtype=torch.float64)

    with pytest.raises(TrainingError, match="'t'") as failure:
        moments(rows, ["t"])
    assert failure.value.code == code


def test_tables_that_leave_a_device_no_room_stay_beside_it() -> None:
    large, small = torch.zeros(1000, 4), torch.zeros(10, 4)
    parts = SplitRows(train=large, validation=small, test=None, sample=np.zeros((1, 4)))
    room = 4 * 12 * 4 * 1000  # four times the bytes of the rows in training
    for memory_bytes, device in ((room, "meta"), (room - 4, "cpu"), (None, "meta")):
        placed = parts.to(torch.device("meta"), memory_bytes=memory_bytes)
        assert isinstance(placed.train, torch.Tensor)
        assert isinstance(placed.validation, torch.Tensor)
        assert (placed.train.device.type, placed.validation.device.type) == (device, "meta")
