"""Jobs on a bucket of which each request goes wrong: none ends with another result than it should."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from models_store.database.database import Database
from models_store.files.blobs import Blobs
from models_store.job_states import Job, JobState
from tests.bucket_servers import S3Server
from tests.faulty_bucket import Fault, Way, Wrong
from tests.workers.crash_child import InlineTrainer
from tests.workers.place import Place
from workers.supervisor.supervisor import Supervisor

pytestmark = pytest.mark.cluster

SHORT: dict[str, Any] = {"max_epochs": 3, "patience": 3, "batch_size": 120}
TRIES = 6
EVERY = 17  # of the requests, in the quick tests
Submit = Callable[[Place], str]


@pytest.fixture(scope="module")
def server() -> Iterator[S3Server]:
    server = S3Server()
    yield server
    server.close()


@pytest.fixture(autouse=True)
def inline(server: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Trainers are threads of this process, which saves the import of torch for each."""
    monkeypatch.setattr("workers.supervisor.supervisor.TrainerProcess", InlineTrainer)
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)


def training(place: Place) -> str:
    return place.submit(place.add_dataset(), **SHORT)


def sampling(place: Place) -> str:
    return place.submit_sampling(place.add_model(), 300)


def scoring(place: Place) -> str:
    return place.submit_scoring(place.add_model(columns=["x1", "x2", "x3"]), place.add_dataset())


def life(
    server: S3Server, folder: Path, submit: Submit, fault: Fault | None = None
) -> tuple[Way, Job, str | None]:
    """The way after a job was worked on, the job, and the hash of what lies there as its result.

    The store is another program's to ask: no copy on this machine is used.
    """
    way = Way(server.endpoint)
    place = Place(folder)
    prefix = f"{folder.parent.name}/{folder.name}"
    own = server.address(folder / "own", prefix=prefix)
    blobs = Blobs(own)
    server.wait_ready(blobs)
    place.blobs = blobs  # the way of the callers, which is in order
    job_id = submit(place)
    with way.open():
        settings = place.with_settings(
            store_url=own.url,
            store_endpoint=way.url,
            store_cache_dir=folder / "worker",
            lease_s=60,
        )
        way.fault = fault
        for number in range(TRIES):
            Supervisor(place.database, settings, worker=f"worker-{number}").run_next()
            if place.job(job_id).final:
                break
            way.mend()  # one that lasts is seen by one attempt
            again(place.database)
    job = place.job(job_id)
    found = result_of(place, job)
    witness = Blobs(own.model_copy(update={"cache_dir": str(folder / "witness")}))
    digest = None if found is None else witness.digest(found[0])
    if found is not None:
        assert digest == found[1], "what the row names is something else"
    place.database.dispose()
    return way, job, digest


def again(database: Database) -> None:
    """Let the waits between attempts pass."""
    with database.write() as session:
        session.execute(text("UPDATE job SET not_before = NULL"))
        session.execute(
            text("UPDATE job SET lease_expires_at = '2000-01-01' WHERE state = 'running'")
        )


def result_of(place: Place, job: Job) -> tuple[str, str] | None:
    """The key and the hash of what the job made."""
    if job.result is not None:
        return job.result["key"], job.result["sha256"]
    if job.model_version is None or job.kind != "training":
        return None
    version = place.version(job.id)
    return version.checkpoint_key, version.checkpoint_sha256


@pytest.fixture(scope="module")
def known() -> dict[Submit, tuple[list[str], str]]:
    """The requests and the result of each kind of job when nothing goes wrong."""
    return {}


@pytest.mark.parametrize(
    ("every", "lasting"),
    [
        (EVERY, False),
        pytest.param(1, False, marks=pytest.mark.slow),
        pytest.param(1, True, marks=pytest.mark.slow),
    ],
    ids=["some once", "each once", "each until told"],
)
@pytest.mark.parametrize("wrong", list(Wrong))
@pytest.mark.parametrize("submit", [training, sampling, scoring])
@pytest.mark.timeout(600)
def test_a_job_ends_right_or_fails_clearly(
    server: S3Server,
    tmp_path: Path,
    known: dict[Submit, tuple[list[str], str]],
    submit: Submit,
    wrong: Wrong,
    lasting: bool,
    every: int,
) -> None:
    if submit not in known:
        way, job, made = life(server, tmp_path / "undisturbed", submit)
        assert (job.state, job.attempt) == (JobState.SUCCEEDED, 1)
        assert made is not None
        known[submit] = way.requests, made
    requests, outcome = known[submit]
    assert any(request.startswith("GET") for request in requests[:2])
    for number in range(min(2, every), len(requests) + 1, every):
        fault = Fault(number, wrong, lasting)
        _, job, made = life(server, tmp_path / str(number), submit, fault)
        told = (fault, requests[number - 1], job.state, job.error)

        if job.state is JobState.SUCCEEDED:
            assert made == outcome, told
        else:
            # Only bytes that stay changed speak against what a job reads.
            assert (wrong, lasting) == (Wrong.ALTERED, True), told
            assert job.error is not None, told
            assert job.error["code"] in ("dataset_corrupt", "model_unusable"), told
