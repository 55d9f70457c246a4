"""The oldest code that may run on the newest schema runs on it: taken from the history."""

import os
import subprocess
import sys
import tarfile
import time
from io import BytesIO
from pathlib import Path

import httpx
import pytest

from models_store.database.database import migrate
from models_store.database.revisions import _scripts, head_revision, oldest_code
from tests.ports import free_port
from tests.servers import tied

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(400)]
ROOT = Path(__file__).parents[2]
TABLE = b"a,b\n1,2\n3,4\n5,7\n8,8\n"


def git(*arguments: str) -> bytes:
    command = ["git", "-C", str(ROOT), *arguments]
    return subprocess.run(command, capture_output=True, check=True).stdout  # noqa: S603


def oldest_commit() -> str:
    """Return the last commit whose newest migration is that of the oldest code that fits."""
    oldest = oldest_code(head_revision())
    followers = [one for one in _scripts().walk_revisions() if one.down_revision == oldest]
    if not followers:
        pytest.skip("no older code may run on this schema")
    (follower,) = followers
    file = f"migrations/versions/{Path(follower.path).name}"
    try:
        added = git("log", "--diff-filter=A", "--format=%H", "-1", "--", file).decode().strip()
        return git("rev-parse", f"{added}^").decode().strip()
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("the history of the code is not here")


def test_the_oldest_code_that_fits_runs_on_the_newest_schema(tmp_path: Path) -> None:
    commit, code = oldest_commit(), tmp_path / "code"
    with tarfile.open(fileobj=BytesIO(git("archive", commit))) as archive:
        archive.extractall(code, filter="data")
    data = tmp_path / "data"
    data.mkdir()
    migrate(f"sqlite:///{data / 'densityd.sqlite3'}")
    port = free_port()
    environment = {
        **os.environ,
        "PYTHONPATH": str(code),
        "DENSITYD_DATA_DIR": str(data),
        "DENSITYD_PORT": str(port),
    }
    with (
        (tmp_path / "log").open("wb") as log,
        subprocess.Popen(  # noqa: S603 - our own module
            tied(sys.executable, "-P", "-m", "app"), env=environment, stderr=log, cwd=code
        ) as process,
        httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client,
    ):
        try:
            _use(client, process, tmp_path / "log")
        finally:
            process.kill()


def _use(client: httpx.Client, process: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline = time.monotonic() + 300
    while True:
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        try:
            if client.get("/readyz").status_code == 200:
                break
        except httpx.HTTPError:
            pass
        time.sleep(0.2)
    assert client.get("/readyz").json()["checks"]["schema"]["ok"] is True
    uploaded = client.post("/v1/datasets", content=TABLE, headers={"Content-Type": "text/csv"})
    assert uploaded.status_code == 201, uploaded.text
    body = {"model_name": "m", "target": {"potential": "U1"}}
    job = client.post("/v1/jobs/variational", json=body)
    assert job.status_code == 202, job.text
    assert client.get("/v1/jobs").json()["items"][0]["state"] == "queued"
    assert client.post(f"/v1/jobs/{job.json()['id']}/cancel").status_code in (200, 202)
    assert client.delete(f"/v1/jobs/{job.json()['id']}").status_code == 204
    assert client.delete(f"/v1/datasets/{uploaded.json()['id']}").status_code == 204
