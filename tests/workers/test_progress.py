import pytest

from workers.progress import Progress


def test_the_end_in_sight_is_patience_after_the_best_epoch() -> None:
    progress = Progress(max_epochs=1000, patience=30, max_seconds=None)

    at = progress.epoch_done(12, best_epoch=11, seconds=24.0)

    assert at["epoch"] == 12
    assert at["max_epochs"] == 1000
    assert at["fraction"] == pytest.approx(12 / 41, abs=1e-4)
    assert at["eta_seconds"] == pytest.approx(29 * 2.0)


def test_the_last_epoch_is_the_end_when_it_comes_before_patience_runs_out() -> None:
    progress = Progress(max_epochs=20, patience=30, max_seconds=None)

    assert progress.epoch_done(20, best_epoch=20, seconds=10.0) == {
        "epoch": 20,
        "max_epochs": 20,
        "fraction": 1.0,
        "eta_seconds": 0.0,
    }


def test_a_batch_counts_as_a_part_of_the_epoch() -> None:
    progress = Progress(max_epochs=10, patience=10, max_seconds=None)
    progress.epoch_done(4, best_epoch=4, seconds=8.0)

    at = progress.batch_done(50, 100, since_epoch_s=1.0)

    assert at["epoch"] == 4
    assert at["fraction"] == pytest.approx(0.45)
    assert at["eta_seconds"] == pytest.approx(11.0)


def test_a_time_limit_ends_training_sooner_than_its_epochs_would() -> None:
    progress = Progress(max_epochs=1000, patience=1000, max_seconds=20.0)

    at = progress.epoch_done(10, best_epoch=10, seconds=15.0)

    assert at["fraction"] == pytest.approx(0.75)
    assert at["eta_seconds"] == pytest.approx(5.0)


def test_nothing_is_promised_before_the_first_batch() -> None:
    progress = Progress(max_epochs=10, patience=5, max_seconds=None)

    at = progress.batch_done(0, 100, since_epoch_s=0.0)

    assert at["fraction"] == 0.0
    assert at["eta_seconds"] is None
