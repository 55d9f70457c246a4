"""Jobs on a disk and a bucket that fail at each call, and that lose what they were given."""

import errno
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from models_store.consistency import compare
from models_store.files.blobs import STAGING, Blobs
from models_store.job_states import Job, JobState
from tests.jobs.workers.crash_child import InlineTrainers, settings_of
from tests.jobs.workers.place import Place
from tests.support.faulty_bucket import Fault, FaultyBucket, Wrong
from tests.support.lying_disk import Failure, LyingDisk
from workers.settings import WorkerSettings
from workers.supervisor.supervisor import Supervisor

SHORT: dict[str, Any] = {"max_epochs": 3, "patience": 3, "batch_size": 120}
TRIES = 6
EVERY = 23  # of the calls, in the quick tests; all of them take minutes
Submit = Callable[[Place], str]
each = pytest.mark.parametrize("every", [EVERY, pytest.param(3, marks=pytest.mark.slow)])


def training(place: Place) -> str:
    return place.submit(place.add_dataset(), **SHORT)


def sampling(place: Place) -> str:
    return place.submit_sampling(place.add_model(), 300)


def scoring(place: Place) -> str:
    return place.submit_scoring(place.add_model(columns=["x1", "x2", "x3"]), place.add_dataset())


def work(
    place: Place, job_id: str, settings: WorkerSettings, mend: Callable[[], None] = lambda: None
) -> Job:
    """Try until the job has ended, without the waits between attempts."""
    for number in range(TRIES):
        trainers = InlineTrainers()
        Supervisor(
            place.database, settings, worker=f"worker-{number}", trainers=trainers
        ).run_next()
        if place.job(job_id).final:
            break
        mend()
        with place.database.write() as session:
            session.execute(text("UPDATE job SET not_before = NULL"))
            session.execute(
                text("UPDATE job SET lease_expires_at = '2000-01-01' WHERE state = 'running'")
            )
    return place.job(job_id)


def made_by(place: Place, job: Job) -> tuple[str, str]:
    """The key and the hash of what a job made."""
    if job.result is not None:
        return job.result["key"], job.result["sha256"]
    version = place.version(job.id)
    return version.checkpoint_key, version.checkpoint_sha256


def on_disk(
    folder: Path, submit: Submit, failure: Failure | None = None
) -> tuple[Place, LyingDisk, str]:
    """A place where a job was worked on, on a disk that fails once, and the hash of what it made."""
    place = Place(folder)
    job_id = submit(place)
    disk = LyingDisk(place.blobs.root, failure)
    with disk.mounted():
        job = work(place, job_id, settings_of(place.settings.data_dir))
    assert job.state is JobState.SUCCEEDED, (failure, disk.calls, job.error)
    place.database.dispose()
    return place, disk, made_by(place, job)[1]


def unusable(place: Place, root: Path) -> list[Any]:
    return compare(place.database, Blobs.in_folder(root), deep=True, grace_s=0).unusable


@pytest.mark.slow
@pytest.mark.parametrize("submit", [training, sampling])
def test_a_power_cut_at_any_call_takes_nothing_that_a_row_names(tmp_path, submit):
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
        job = work(place, job_id, settings_of(place.settings.data_dir))
        cut()
    assert job.state is JobState.SUCCEEDED
    assert next(numbers) > 10
    place.database.dispose()


@each
@pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC])
@pytest.mark.parametrize("submit", [training, sampling])
def test_a_job_outlives_any_call_of_a_disk_that_fails(tmp_path, submit, code, every):
    _, disk, outcome = on_disk(tmp_path / "undisturbed", submit)
    # Other calls for another error.
    for number in range(1 + code % 2, len(disk.calls) + 1, every):
        place, _, made = on_disk(tmp_path / str(number), submit, Failure(at=number, code=code))
        assert made == outcome
        assert unusable(place, place.blobs.root) == []
        comparison = compare(place.database, place.blobs, deep=False, grace_s=0)
        deletes = any(name in disk.calls[number - 1] for name in ("unlink", "rmdir"))
        assert comparison.orphans == [] or deletes
        place.blobs.sweep_staging(older_than_s=-1)
        assert not list((place.blobs.root / STAGING).iterdir())
        place.database.dispose()


@each
def test_a_disk_that_loses_half_of_what_it_synced_never_gives_a_wrong_model(tmp_path, every):
    _, disk, outcome = on_disk(tmp_path / "undisturbed", training)
    syncs = [n for n, call in enumerate(disk.calls, 1) if call.startswith(f"fsync {STAGING}/")]
    assert len(syncs) > 1
    for number in sorted({*syncs[::every], syncs[-1]}):
        place, _, made = on_disk(tmp_path / str(number), training, Failure(at=number, code=None))
        # What the row says is right; whoever reads the file finds out.
        assert made == outcome
        assert len(unusable(place, place.blobs.root)) == int(number == syncs[-1])
        place.database.dispose()


def in_bucket(
    folder: Path, submit: Submit, fault: Fault | None = None
) -> tuple[list[str], Job, str | None]:
    """The requests of a job's work on a bucket, the job, and the hash of what lies there as its result."""
    place = Place(folder)
    with FaultyBucket().mounted() as bucket:
        place.blobs = Blobs(bucket.address(folder / "callers"))
        job_id = submit(place)
        bucket.requests.clear()
        bucket.fault = fault
        address = bucket.address(folder / "worker")
        settings = settings_of(folder).model_copy(update={"store_url": address.url})
        # One that lasts is seen by one attempt.
        job = work(place, job_id, settings, bucket.mend)
        requests = [*bucket.requests]
        bucket.mend()
        made = None
        if job.state is JobState.SUCCEEDED:
            key, wanted = made_by(place, job)
            made = Blobs(bucket.address(folder / "witness")).digest(key)
            assert made == wanted, "what the row names is something else"
    place.database.dispose()
    return requests, job, made


@pytest.mark.parametrize(
    ("every", "lasting"),
    [
        (EVERY, False),
        pytest.param(7, False, marks=pytest.mark.slow),
        pytest.param(7, True, marks=pytest.mark.slow),
    ],
    ids=["few once", "some once", "some until told"],
)
@pytest.mark.parametrize("submit", [training, sampling, scoring])
def test_a_job_on_a_bucket_ends_right_or_fails_clearly(tmp_path, submit, lasting, every):
    requests, job, outcome = in_bucket(tmp_path / "undisturbed", submit)
    assert (job.state, job.attempt) == (JobState.SUCCEEDED, 1)
    for first, wrong in enumerate(Wrong, start=1):  # other requests for each
        for number in range(first, len(requests) + 1, every):
            fault = Fault(number, wrong, lasting)
            _, job, made = in_bucket(tmp_path / f"{number}-{wrong}", submit, fault)
            told = (fault, requests[number - 1], job.state, job.error)
            if job.state is JobState.SUCCEEDED:
                assert made == outcome, told
            else:
                # Only bytes that stay changed speak against what a job reads.
                assert (wrong, lasting) == (Wrong.ALTERED, True), told
                assert job.error is not None, told
                assert job.error["code"] in ("dataset_corrupt", "model_unusable"), told
