import pytest

from flows import FitOptions
from workers.trainer.progress import Progress, RowProgress


def test_the_end_in_sight_is_patience_after_the_best_epoch() -> None:
    progress = Progress(FitOptions(max_epochs=1000, patience=30, max_seconds=None))

    at = progress.epoch_done(12, best_epoch=11, seconds=24.0)

    assert at["epoch"] == 12
    assert at["max_epochs"] == 1000
    assert at["fraction"] == pytest.approx(12 / 41, abs=1e-4)
    assert at["eta_seconds"] == pytest.approx(29 * 2.0)


def test_the_last_epoch_is_the_end_when_it_comes_before_patience_runs_out() -> None:
    progress = Progress(FitOptions(max_epochs=20, patience=30, max_seconds=None))

    assert progress.epoch_done(20, best_epoch=20, seconds=10.0) == {
        "epoch": 20,
        "max_epochs": 20,
        "fraction": 1.0,
        "eta_seconds": 0.0,
    }


def test_a_batch_counts_as_a_part_of_the_epoch() -> None:
    progress = Progress(FitOptions(max_epochs=10, patience=10, max_seconds=None))
    progress.epoch_done(4, best_epoch=4, seconds=8.0)

    at = progress.batch_done(50, 100, since_epoch_s=1.0)

    assert at["epoch"] == 4
    assert at["fraction"] == pytest.approx(0.45)
    assert at["eta_seconds"] == pytest.approx(11.0)


def test_a_time_limit_ends_training_sooner_than_its_epochs_would() -> None:
    progress = Progress(FitOptions(max_epochs=1000, patience=1000, max_seconds=20.0))

    at = progress.epoch_done(10, best_epoch=10, seconds=15.0)

    assert at["fraction"] == pytest.approx(0.75)
    assert at["eta_seconds"] == pytest.approx(5.0)


def test_nothing_is_promised_before_the_first_batch() -> None:
    progress = Progress(FitOptions(max_epochs=10, patience=5, max_seconds=None))

    at = progress.batch_done(0, 100, since_epoch_s=0.0)

    assert at["fraction"] == 0.0
    assert at["eta_seconds"] is None


def test_rows_are_computed_and_then_written() -> None:
    progress = RowProgress(rows=1000, write_s=10.0)

    assert progress.resumed(0) == {
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
    progress = RowProgress(rows=1000, write_s=10.0)

    first = progress.resumed(600)["fraction"]
    later = progress.at(800, attempt_s=1.0)

    assert later["eta_seconds"] == 11.0
    assert later["fraction"] >= first > 0


def test_an_attempt_that_only_writes_knows_how_long_that_takes() -> None:
    progress = RowProgress(rows=1000, write_s=10.0)

    assert progress.resumed(1000)["eta_seconds"] == 10.0
    assert progress.written(250, writing_s=2.0)["eta_seconds"] == 6.0
