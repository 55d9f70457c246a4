"""What jobs store is counted, and goes in time."""

from collections.abc import Callable
from typing import Any

import pytest

from models_store.errors import DiskKeptError
from models_store.files.blobs import Blobs
from models_store.files.job_files import load_list
from models_store.job_states import JobState
from tests.waiting import wait_until
from tests.workers.place import ENDLESS, Place, Running
from workers.leftovers import sweep
from workers.protocol import Message
from workers.supervisor.assignment import task_of
from workers.trainer import bulk

Supervise = Callable[..., Running]

ROWS = 3 * 4_096 + 5


def files(place: Place, job_id: str) -> int:
    """Bytes of a job's files."""
    found = [file for file in place.blobs.files() if job_id in file.key]
    return sum(file.bytes for file in found)


@pytest.mark.slow  # its trainer starts, and makes some parts
def test_parts_of_a_cancelled_sampling_count_and_go_in_time(
    place: Place, supervise: Supervise
) -> None:
    version = place.add_model(columns=["x1", "x2", "x3"])
    before = place.stored_bytes()
    job_id = place.submit_sampling(version, 400 * ROWS)
    running = supervise()
    wait_until(lambda: place.part(job_id) >= 4)
    place.jobs.cancel("default", job_id)
    running.join()

    [newest, _] = place.job(job_id).checkpoints
    parts = load_list(place.blobs, newest["key"], newest["sha256"])
    assert len(parts) >= 4
    assert newest["bytes"] >= sum(part.rows for part in parts) * 3 * 8
    assert 0 <= files(place, job_id) - newest["bytes"] < 10_000  # the older list
    assert newest["bytes"] <= place.stored_bytes() - before <= 2 * newest["bytes"]

    sweep(place.database, place.blobs, keep_s=3600)
    assert files(place, job_id) > 0
    sweep(place.database, place.blobs, keep_s=0)
    assert files(place, job_id) == 0
    assert place.stored_bytes() == before


@pytest.mark.slow  # as above
def test_what_an_ended_job_has_no_use_for_goes_at_once(place: Place, supervise: Supervise) -> None:
    job_id = place.submit(place.add_dataset(), **ENDLESS)
    running = supervise()
    wait_until(lambda: len(place.job(job_id).checkpoints) == 2)
    # A killed trainer leaves what nobody heard of.
    for key in (f"jobs/{job_id}/1-999999.safetensors", f"models/{job_id}/1.safetensors"):
        with place.blobs.staged() as staged:
            staged.write_bytes(b"x" * 1000)
            place.blobs.commit(staged, key)
    place.jobs.cancel("default", job_id)
    running.join()
    named = sorted(checkpoint["key"] for checkpoint in place.job(job_id).checkpoints)
    assert place.blobs.keys("jobs") == named
    assert place.blobs.keys("models") == []


@pytest.mark.long
def test_a_worker_fails_a_job_beyond_a_quota_that_was_lowered(
    place: Place, supervise: Supervise
) -> None:
    job_id = place.submit(place.add_dataset(), max_epochs=3)
    supervise(max_project_bytes=1000).join()
    error = place.job(job_id).error
    assert error is not None
    assert error["code"] == "quota_storage"
    assert place.messages(job_id) == []
    assert place.blobs.keys("jobs") == []


def test_a_disk_of_which_too_little_is_free_puts_no_worker_out(
    place: Place, supervise: Supervise
) -> None:
    job_id = place.submit(place.add_dataset(), max_epochs=3)
    running = supervise(reserve_bytes=10**18)
    running.join()
    assert "of the disk of the service are free" in place.messages(job_id)[-1]
    assert place.state(job_id) is JobState.QUEUED
    assert place.job(job_id).attempt == 1
    assert running.supervisor.unfit is None


def test_rows_that_are_computed_leave_some_of_the_disk_before_their_part_is_whole(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.submit_sampling(place.add_model(), 10 * ROWS)
    job = place.work.claim("w", lease_s=60)
    assert job is not None
    settings = place.with_settings(checkpoint_interval_s=3600.0, long_epoch_s=3600.0)
    task: Any = task_of(job, registry=place.registry, settings=settings)
    store = settings.store_address.model_copy(update={"leave_bytes": 10**18})
    messages: list[Message] = []
    committed: list[str] = []
    monkeypatch.setattr(Blobs, "commit", lambda _self, _path, key: committed.append(key))
    with pytest.raises(DiskKeptError):
        bulk.produce(task.model_copy(update={"store": store}), messages.append, interrupted=bool)
    assert committed == []
    assert list(place.blobs.staging.iterdir()) == []
