"""Death at every write of the protocol: whatever was half done, one version comes out of it."""

import multiprocessing
from typing import Any

import pytest

from models_store.files.blobs import STAGING
from models_store.job_states import JobState
from tests.jobs.workers.crash_child import DIED, POINTS, InlineTrainers, settings_of, work_until
from tests.jobs.workers.place import Place
from workers.supervisor.supervisor import Supervisor

EPOCHS = 6
SHORT: dict[str, Any] = {"max_epochs": EPOCHS, "patience": EPOCHS, "batch_size": 120}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The hash of the model that SHORT gives when nobody disturbs it."""
    place = Place(tmp_path_factory.mktemp("undisturbed"))
    job_id = place.submit(place.add_dataset(), **SHORT)
    work_on(place)
    place.database.dispose()
    return place.version(job_id).checkpoint_sha256


def work_on(place: Place) -> None:
    settings = settings_of(place.settings.data_dir)
    trainers = InlineTrainers()  # in this process, which has torch already
    assert Supervisor(place.database, settings, worker="next", trainers=trainers).run_next()


def die(place: Place, point: str) -> None:
    """Have a worker begin the job and die there."""
    context = multiprocessing.get_context("forkserver")  # which has imported torch, once
    context.set_forkserver_preload(["workers.trainer.preloaded", "tests.jobs.workers.crash_child"])
    process = context.Process(target=work_until, args=(place.settings.data_dir, point))
    process.start()
    process.join()
    assert process.exitcode == DIED


@pytest.mark.parametrize("point", POINTS)
def test_death_at_any_write_gives_one_version_of_the_same_model(place, undisturbed, point):
    job_id = place.submit(place.add_dataset(), **SHORT)
    die(place, point)
    before = place.job(job_id)
    if before.state is JobState.RUNNING:
        assert not place.work.claim("early", lease_s=60), "the lease was not kept"
        place.expire_lease(job_id)
    assert (before.state is JobState.SUCCEEDED) == (point == "after the version")

    if before.state is not JobState.SUCCEEDED:
        assert not place.registry.models("default", limit=1).items, "a version before its job"
        work_on(place)

    job, version = place.job(job_id), place.version(job_id)
    assert (job.state, version.version) == (JobState.SUCCEEDED, 1)
    assert version.checkpoint_sha256 == undisturbed
    place.blobs.verify(version.checkpoint_key, version.checkpoint_sha256)
    assert place.epochs(job_id) == list(range(1, EPOCHS + 1))
    assert not place.work.claim("late", lease_s=60)
    assert place.blobs.keys("models") == [version.checkpoint_key], "an orphan was left"
    # Only one whose job runs no more is left, where `densityd doctor` finds it.
    left = [key for key in place.blobs.keys("jobs") if not key.startswith(f"jobs/{job_id}/")]
    assert left == []
    assert bool(place.blobs.keys("jobs")) == (point == "after the version")
    place.blobs.sweep_staging(older_than_s=-1)
    assert not list((place.blobs.root / STAGING).glob("*"))
