"""Splits of rows, their moments, and the progress that is told."""

import numpy as np
import pytest
import torch

from models_store.splits import split_rows
from tests.store.makers import split_of
from workers.errors import TrainingError
from workers.trainer.data import SplitRows, moments
from workers.trainer.progress import Progress, RowProgress


@pytest.mark.parametrize("rows", [12, 1234])
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
    parts = split_rows(100, split_of(train=0.5, validation=0.2, test=0.1, shuffle=False))

    ranges = [range(50), range(50, 70), range(70, 80)]
    assert [part.tolist() for part in parts] == [[*rows] for rows in ranges]


def test_moments_keep_their_digits_far_from_zero() -> None:
    rows = torch.tensor([[1e9 + 1.0], [1e9 + 3.0]], dtype=torch.float64)

    mean, std = moments(rows, ["t"])

    assert mean.item() == 1e9 + 2.0
    assert std.item() == 1.0


@pytest.mark.parametrize(
    ("values", "code"), [([3.0, 3.0], "constant_column"), ([1e308, -1e308], "data_range")]
)
def test_a_column_without_a_usable_deviation_is_refused(values: list[float], code: str) -> None:
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


def test_the_end_in_sight_is_patience_after_the_best_epoch() -> None:
    progress = Progress("epoch", 1000, patience=30, max_seconds=None)

    at = progress.reached(12, best=11, seconds=24.0)

    assert (at["epoch"], at["max_epochs"]) == (12, 1000)
    assert at["fraction"] == pytest.approx(12 / 41, abs=1e-4)
    assert at["eta_seconds"] == pytest.approx(29 * 2.0, abs=5)
    part = progress.at(12.5)
    assert (part["epoch"], part["fraction"]) == (12, pytest.approx(12.5 / 41, abs=1e-4))
    assert part["eta_seconds"] < at["eta_seconds"]


def test_the_last_epoch_is_the_end_when_it_comes_before_patience_runs_out() -> None:
    progress = Progress("epoch", 20, patience=30, max_seconds=None)
    assert progress.at(0)["eta_seconds"] is None
    assert progress.reached(20, best=20, seconds=10.0) == {
        "epoch": 20,
        "max_epochs": 20,
        "fraction": 1.0,
        "eta_seconds": 0.0,
    }


def test_a_time_limit_ends_training_sooner_than_its_iterations_would() -> None:
    progress = Progress("iteration", 1000, max_seconds=2000.0)

    at = progress.reached(10, best=10, seconds=1500.0)

    assert at["fraction"] == pytest.approx(0.75, abs=0.01)
    assert at["eta_seconds"] == pytest.approx(500.0, abs=5)


def test_rows_are_computed_and_then_written() -> None:
    progress = RowProgress(rows=1000, write_s=10.0)

    assert progress.at(0, attempt_s=0.0) == {
        "rows": 0,
        "total_rows": 1000,
        "fraction": 0.0,
        "eta_seconds": None,
    }
    half = progress.at(500, attempt_s=15.0)
    assert (half["fraction"], half["eta_seconds"]) == (0.375, 25.0)
    computed = progress.at(1000, attempt_s=30.0)
    assert (computed["fraction"], computed["eta_seconds"]) == (0.75, 10.0)
    writing = progress.written(500, writing_s=20.0)
    assert writing["rows"] == 1000
    assert (writing["fraction"], writing["eta_seconds"]) == (0.875, 20.0)
    assert progress.written(1000, writing_s=40.0)["fraction"] == 1.0


def test_a_resumed_attempt_goes_by_its_own_pace_and_never_back() -> None:
    progress = RowProgress(rows=1000, first=600, write_s=10.0)

    first = progress.at(600, attempt_s=0.0)["fraction"]
    later = progress.at(800, attempt_s=1.0)

    assert later["eta_seconds"] == 11.0
    assert later["fraction"] >= first > 0
