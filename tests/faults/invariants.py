"""What must hold after every attack and every crash, whatever it was."""

import threading
import time
from collections import Counter
from http.client import HTTPConnection, HTTPException
from pathlib import Path

import httpx2
from sqlalchemy import select

from models_store.database.database import Database
from models_store.database.schema import JobRow, ModelVersionRow
from models_store.files.checkpoints import load_model
from models_store.files.local_blobs import LocalBlobs
from models_store.job_states import FINAL_STATES
from tests.waiting import wait_until

MIB = 1 << 20
DOCUMENTED = {503, 507}


def assert_jobs_end(database: Database, *, within_s: float = 120.0) -> None:
    """Every job that was accepted reaches a final state."""

    def ended() -> bool:
        with database.read() as session:
            states = session.scalars(select(JobRow.state)).all()
        return set(states) <= set(FINAL_STATES)

    wait_until(ended, within_s=within_s, what="a job has not ended")


def assert_versions_are_whole(database: Database, blobs: LocalBlobs) -> None:
    """No job has two versions, and every version's checkpoint has the right hash and loads."""
    with database.read() as session:
        versions = session.scalars(select(ModelVersionRow)).all()
    assert all(count == 1 for count in Counter(row.job_id for row in versions).values())
    for row in versions:
        load_model(blobs, row.checkpoint_key, row.checkpoint_sha256)


def assert_no_undocumented_status(base_url: str) -> None:
    """The service counts no answer of 500 or more but those it documents."""
    text = httpx2.get(f"{base_url}/metrics", timeout=60).text
    for line in text.splitlines():
        if not line.startswith("densityd_http_requests_total{"):
            continue
        status = int(line.partition('status="')[2].partition('"')[0])
        assert status < 500 or status in DOCUMENTED or float(line.split()[-1]) == 0, line


def assert_memory_returns(pid: int, idle_bytes: int, *, within_s: float = 120.0) -> None:
    """The process comes back to at most 50 MiB above what it takes when idle."""
    allowed = idle_bytes + 50 * MIB
    wait_until(
        lambda: resident_bytes(pid) <= allowed,
        within_s=within_s,
        what=f"the process keeps more than {allowed // MIB} MiB",
    )


def resident_bytes(pid: int) -> int:
    """What a process has in memory."""
    status = Path(f"/proc/{pid}/status").read_text()
    return 1024 * int(status.partition("VmRSS:")[2].split()[0])


class Pulse:
    """Asks again and again, on a connection of its own each time, whether a service is alive.

    Args:
        base_url: the service.
        within_s: the longest that an answer may take, on a machine that others use too.
    """

    def __init__(self, base_url: str, *, within_s: float = 60.0) -> None:
        self._host = base_url.removeprefix("http://")
        self._within_s = within_s
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._ask)
        self.failures: list[str] = []
        self.asked = 0
        self.slowest_s = 0.0

    def __enter__(self) -> "Pulse":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _ask(self) -> None:
        while not self._ended.wait(0.05) or not self.asked:
            began = time.monotonic()
            connection = HTTPConnection(self._host, timeout=self._within_s)
            try:
                connection.request("GET", "/livez")
                if (status := connection.getresponse().status) != 200:
                    self.failures.append(str(status))
            except (OSError, HTTPException) as error:
                self.failures.append(repr(error))
            finally:
                connection.close()
            self.asked += 1
            self.slowest_s = max(self.slowest_s, time.monotonic() - began)
