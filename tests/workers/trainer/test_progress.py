"""Progress of jobs, and the time that is left."""

import pytest

from workers.trainer.progress import Progress, RowProgress


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
