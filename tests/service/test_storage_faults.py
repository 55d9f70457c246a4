"""A real API on real disks that run full and become read-only."""

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.api.conftest import wait_for_port
from tests.support.disks import Disks
from tests.support.servers import free_port, tied
from tests.support.waiting import wait_until

CSV = {"Content-Type": "text/csv"}
TABLE = b"a,b\n" + b"".join(b"%d.5,%d\n" % (row, row * row) for row in range(100))
DENSITYD = (sys.executable, "-P", "-c", "from densityd.cli import main; main()")


class Place:
    """A data directory on one disk, the blob store on another, and an API that uses them."""

    def __init__(self, folder: Path, template: Path) -> None:
        self.data, self.store = folder / "data", folder / "store"
        self.disks = Disks({self.data: "8m", self.store: "4m"})
        shutil.copy(template, self.disks.inside(self.data))
        port = free_port()
        self.environment = os.environ | {
            "DENSITYD_DATA_DIR": str(self.data),
            "DENSITYD_STORE_URL": str(self.store),
            "DENSITYD_BROKER_URL": f"unix://{folder}/no.sock",
            "DENSITYD_PORT": str(port),
            "DENSITYD_TEST_READY_LOOK_S": "0.2",
            "DENSITYD_TEST_RESERVE_BYTES": "0",  # nobody leaves anything to others
        }
        with (folder / "log").open("wb") as log:
            self.process = subprocess.Popen(  # noqa: S603 - our own command
                self.disks.on(*tied(sys.executable, "-P", "-m", "app")),
                env=self.environment,
                stderr=log,
            )
        wait_for_port(port, self.process)
        self.client = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60)

    def upload(self, table: bytes = TABLE) -> httpx.Response:
        return self.client.post("/v1/datasets", content=table, headers=CSV)

    def submit(self, dataset_id: str) -> httpx.Response:
        training = {"model_name": "m", "dataset_id": dataset_id}
        return self.client.post("/v1/jobs/training", json=training)

    def status(self, path: str) -> int:
        return self.client.get(path).status_code

    def wait_for_readiness(self, status: int, **checks: bool) -> httpx.Response:
        """Wait until a look in the background has found that."""
        deadline = time.monotonic() + 120
        while True:
            ready = self.client.get("/readyz")
            found = ready.json()["checks"]
            if ready.status_code == status and all(found[n]["ok"] is checks[n] for n in checks):
                return ready
            assert time.monotonic() < deadline, ready.text
            time.sleep(0.05)

    def staged(self) -> list[Path]:
        return list(self.disks.inside(self.store / "staging").iterdir())

    def close(self) -> None:
        self.client.close()
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(120) == 0
        self.disks.close()


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, sqlite_template: Path) -> Iterator[Place]:
    place = Place(tmp_path_factory.mktemp("disks"), sqlite_template)
    yield place
    place.close()


@pytest.fixture(scope="module")
def dataset(place: Place) -> str:
    answer = place.upload()
    assert answer.status_code == 201
    return str(answer.json()["id"])


def assert_problem(answer: httpx.Response, status: int, slug: str) -> None:
    assert (answer.status_code, answer.json()["type"]) == (status, f"/problems/{slug}")
    assert "/store" not in answer.text, "it tells a path"


@pytest.mark.slow
@pytest.mark.parametrize("when", ["while sent", "while parsed"])
def test_an_upload_that_fills_the_disk_is_507_and_leaves_nothing(place, dataset, when):
    # Five megabytes of text; or one and a half, which make four of a table.
    line, many = (b"%d.25,%d\n", 10**6) if when == "while sent" else (b"%d.5,%d\n", 9)
    table = b"a,b\n" + b"".join(line % (row % many, row**2 % many**2) for row in range(250_000))
    assert_problem(place.upload(table), 507, "storage-full")

    wait_until(lambda: place.staged() == [])  # a look keeps a file there for a moment
    assert place.status(f"/v1/datasets/{dataset}/rows") == 200
    place.wait_for_readiness(200, store=True)
    assert place.upload().status_code == 201


@pytest.mark.slow
def test_a_database_on_a_full_disk_is_507_for_writes_alone(place, dataset, tmp_path):
    filler = place.disks.fill(place.data)
    answers = [place.submit(dataset) for _ in range(30)]

    full = [answer for answer in answers if answer.status_code != 202]
    assert full, "it is not full"
    for answer in full:
        assert_problem(answer, 507, "storage-full")
    assert place.status(f"/v1/datasets/{dataset}/rows") == 200
    assert place.status("/v1/jobs") == 200
    assert place.wait_for_readiness(200, database=False).json()["status"] == "degraded"
    filler.unlink()
    answers.append(place.submit(dataset))

    assert answers[-1].status_code == 202
    for file in place.disks.inside(place.data).glob("densityd.sqlite3*"):
        shutil.copy(file, tmp_path)
    with sqlite3.connect(tmp_path / "densityd.sqlite3") as copy:
        assert copy.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        stored = {job_id for (job_id,) in copy.execute("SELECT id FROM job")}
    copy.close()
    assert {answer.json()["id"] for answer in answers if answer.status_code == 202} == stored


@pytest.mark.slow
def test_a_store_that_became_read_only_still_serves_what_it_holds(place, dataset):
    place.disks.remount(place.store, "ro")
    try:
        answer = place.upload()
        assert_problem(answer, 503, "storage-unavailable")
        assert int(answer.headers["Retry-After"]) > 0
        assert place.status(f"/v1/datasets/{dataset}/rows") == 200
        assert place.status("/livez") == 200
        place.wait_for_readiness(503, store=False)
    finally:
        place.disks.remount(place.store, "rw")
    assert place.upload().status_code == 201
    place.wait_for_readiness(200, store=True)


@pytest.mark.slow
@pytest.mark.parametrize(
    "names",
    # A worker and the API take seconds to import what they need.
    [("up", "migrate"), ("worker",), pytest.param(("api",), marks=pytest.mark.slow)],
    ids=" ".join,
)
def test_on_a_read_only_data_directory_nothing_starts_and_all_say_why(
    tmp_path, sqlite_template, names
):
    data = tmp_path / "data"
    disks = Disks({data: "4m"})
    shutil.copy(sqlite_template, disks.inside(data))
    disks.remount(data, "ro")
    environment = os.environ | {"DENSITYD_DATA_DIR": str(data), "DENSITYD_PORT": "0"}
    started = {
        name: subprocess.Popen(  # noqa: S603 - our own command
            disks.on(*tied(*DENSITYD, name)), env=environment, stderr=subprocess.PIPE, text=True
        )
        for name in names
    }
    for name, process in started.items():
        told = process.communicate(timeout=300)[1]
        assert process.returncode == 1, (name, told)
        assert len(told.strip().splitlines()) == 1, (name, told)
        assert str(data) in told, (name, told)
    disks.close()
