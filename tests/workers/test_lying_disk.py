"""Jobs on a disk of which each call fails once, and that loses its power at each call."""

import errno
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from models_store.consistency import compare
from models_store.files.blobs import STAGING, Blobs
from models_store.job_states import JobState
from tests.lying_disk import Failure, LyingDisk
from tests.workers.crash_child import InlineTrainer, settings_of
from tests.workers.place import Place
from workers.supervisor.supervisor import Supervisor

SHORT: dict[str, Any] = {"max_epochs": 3, "patience": 3, "batch_size": 120}
TRIES = 6
EVERY = 9  # of the calls, in the quick tests
Submit = Callable[[Place], str]


@pytest.fixture(autouse=True)
def inline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trainers are threads of this process, which stands between them and the disk."""
    monkeypatch.setattr("workers.supervisor.supervisor.TrainerProcess", InlineTrainer)


def training(place: Place) -> str:
    return place.submit(place.add_dataset(), **SHORT)


def sampling(place: Place) -> str:
    return place.submit_sampling(place.add_model(), 300)


def work(place: Place, job_id: str) -> None:
    """Try until the job has ended, without the waits between attempts."""
    settings = settings_of(place.settings.data_dir)
    for number in range(TRIES):
        Supervisor(place.database, settings, worker=f"worker-{number}").run_next()
        if place.job(job_id).final:
            return
        with place.database.write() as session:
            session.execute(text("UPDATE job SET not_before = NULL"))
            session.execute(
                text("UPDATE job SET lease_expires_at = '2000-01-01' WHERE state = 'running'")
            )


def unusable(place: Place, root: Path) -> list[Any]:
    return compare(place.database, Blobs.in_folder(root), deep=True, grace_s=0).unusable


def life(
    folder: Path, submit: Submit, failure: Failure | None = None
) -> tuple[Place, LyingDisk, str]:
    """A place where a job was worked on, on a disk that fails once."""
    place = Place(folder)
    job_id = submit(place)
    disk = LyingDisk(place.blobs.root, failure)
    with disk.mounted():
        work(place, job_id)
    return place, disk, job_id


@pytest.mark.long
@pytest.mark.parametrize("submit", [training, sampling])
def test_a_power_cut_at_any_call_takes_nothing_that_a_row_names(
    tmp_path: Path, submit: Submit
) -> None:
    place, numbers = Place(tmp_path / "place"), count()
    job_id = submit(place)

    def cut() -> None:
        for names_first in (False, True):
            image = disk.after_power_cut(tmp_path / f"{next(numbers)}", names_first=names_first)
            assert unusable(place, image) == []

    # The dataset and the model were made durable before.
    disk = LyingDisk(place.blobs.root, at_call=cut)
    disk.trust_what_is_there()
    with disk.mounted():
        work(place, job_id)
        cut()
    assert place.state(job_id) is JobState.SUCCEEDED
    assert next(numbers) > 10
    place.database.dispose()


@pytest.mark.long
@pytest.mark.parametrize("every", [EVERY, pytest.param(1, marks=pytest.mark.slow)])
@pytest.mark.parametrize("code", [errno.EIO, pytest.param(errno.ENOSPC, marks=pytest.mark.long)])
@pytest.mark.parametrize("submit", [training, sampling])
@pytest.mark.timeout(600)
def test_a_job_outlives_any_call_that_fails(
    tmp_path: Path, submit: Submit, code: int, every: int
) -> None:
    undisturbed, disk, job_id = life(tmp_path / "undisturbed", submit)
    outcome = result_of(undisturbed, job_id)
    undisturbed.database.dispose()
    for number in range(1, len(disk.calls) + 1, every):
        place, _, job_id = life(tmp_path / str(number), submit, Failure(at=number, code=code))

        assert place.state(job_id) is JobState.SUCCEEDED, (
            disk.calls[number - 1],
            place.job(job_id),
        )
        assert result_of(place, job_id) == outcome
        assert unusable(place, place.blobs.root) == []
        comparison = compare(place.database, place.blobs, deep=False, grace_s=0)
        assert (
            comparison.orphans == []
            or "unlink" in disk.calls[number - 1]
            or ("rmdir" in disk.calls[number - 1])
        )
        place.blobs.sweep_staging(older_than_s=-1)
        assert not list((place.blobs.root / STAGING).iterdir())
        place.database.dispose()


@pytest.mark.long
@pytest.mark.parametrize("every", [EVERY, pytest.param(1, marks=pytest.mark.slow)])
def test_a_disk_that_loses_half_of_what_it_synced_never_gives_a_wrong_model(
    tmp_path: Path, every: int
) -> None:
    undisturbed, disk, job_id = life(tmp_path / "undisturbed", training)
    outcome = result_of(undisturbed, job_id)
    undisturbed.database.dispose()
    syncs = [n for n, call in enumerate(disk.calls, 1) if call.startswith(f"fsync {STAGING}/")]
    assert len(syncs) > 1
    for number in sorted({*syncs[::every], syncs[-1]}):
        place, _, job_id = life(tmp_path / str(number), training, Failure(at=number, code=None))

        assert place.state(job_id) is JobState.SUCCEEDED
        # What the row says is right; whoever reads the file finds out.
        assert result_of(place, job_id) == outcome
        assert len(unusable(place, place.blobs.root)) == int(number == syncs[-1])
        place.database.dispose()


def result_of(place: Place, job_id: str) -> str:
    """The hash of what the job made."""
    job = place.job(job_id)
    if job.result is not None:
        return job.result["sha256"]
    assert job.model_version is not None, job
    return place.version(job_id).checkpoint_sha256
