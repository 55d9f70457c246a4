"""Several API processes on one port, as real processes."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import httpx
import pytest

from app.auth import audit
from app.server import processes
from tests.app.conftest import CSV, wait_for_port
from tests.disks import Disks
from tests.ports import free_port
from tests.servers import tied

START_S = 300  # on a busy machine


@pytest.fixture
def served(data_dir):
    """The port and the parent of two processes."""
    port = free_port()
    environment = {
        **os.environ,
        "DENSITYD_DATA_DIR": str(data_dir),
        "DENSITYD_PORT": str(port),
        "DENSITYD_API_PROCESSES": "2",
        "DENSITYD_HEADER_TIMEOUT_S": "600",  # connections that say nothing stay
        "TMPDIR": str(data_dir),  # a parent that is killed leaves its folder until the next start
    }
    with subprocess.Popen(  # noqa: S603  our own module
        tied(sys.executable, "-P", "-m", "app"), env=environment, stderr=subprocess.DEVNULL
    ) as parent:
        wait_for_port(port, parent)
        yield port, parent
        parent.kill()


def children(parent: subprocess.Popen[bytes]) -> list[int]:
    """The processes that serve."""
    text = Path(f"/proc/{parent.pid}/task/{parent.pid}/children").read_text(encoding="ascii")
    return [int(pid) for pid in text.split()]


class Opened:
    """Connections that were opened at once and say nothing, and who has them."""

    def __init__(self, port: int, number: int) -> None:
        self._port = port
        self._sockets = [socket.create_connection(("127.0.0.1", port)) for _ in range(number)]

    def held_by(self, pid: int) -> int:
        """Count the connections of a process: of these, and of others that are open."""
        address = f"0100007F:{self._port:04X}"
        lines = Path("/proc/net/tcp").read_text(encoding="ascii").splitlines()
        columns = [line.split() for line in lines]
        accepted = {f"socket:[{row[9]}]" for row in columns if row[1] == address and row[3] == "01"}
        found = 0
        for file in Path(f"/proc/{pid}/fd").iterdir():
            try:
                found += str(file.readlink()) in accepted
            except FileNotFoundError:
                continue  # closed meanwhile
        return found

    def wait_for(self, number: int, *pids: int) -> list[int]:
        """Wait until processes have so many in all; return how many each has."""
        deadline = time.monotonic() + 100
        while sum(held := [self.held_by(pid) for pid in pids]) != number:
            assert time.monotonic() < deadline, held
            time.sleep(0.01)
        return held

    def close(self, *pids: int) -> None:
        """Close them, and wait until processes have noticed, which then have none."""
        for sock in self._sockets:
            sock.close()
        if pids:
            self.wait_for(0, *pids)


def both_serving(port: int, parent: subprocess.Popen[bytes]) -> list[int]:
    """The two processes, once both accept connections."""
    deadline = time.monotonic() + START_S
    assert httpx.get(f"http://127.0.0.1:{port}/livez", timeout=START_S).status_code == 200
    while True:
        assert time.monotonic() < deadline
        pids = children(parent)
        if len(pids) == 2:
            opened = Opened(port, 4)
            held = opened.wait_for(4, *pids)
            opened.close(*pids)
            if all(held):
                return pids


@pytest.mark.long  # four processes, each of which imports the service
@pytest.mark.timeout(2 * START_S)
def test_they_share_connections_evenly_are_replaced_and_all_end_with_a_signal(served):
    port, parent = served
    pids = both_serving(port, parent)
    for number in (8, 16, 40):
        opened = Opened(port, number)
        assert min(opened.wait_for(number, *pids)) >= 0.4 * number
        opened.close(*pids)
    # While nobody replaces the one that is killed, what it leaves, and its count, go to the other.
    kept = Opened(port, 20)
    _, left = kept.wait_for(20, *pids)
    os.kill(parent.pid, signal.SIGSTOP)
    os.kill(pids[0], signal.SIGKILL)
    more = Opened(port, 40)
    try:
        more.wait_for(40 + left, pids[1])
    finally:
        os.kill(parent.pid, signal.SIGCONT)
        kept.close()
        more.close()

    url = f"http://127.0.0.1:{port}"
    deadline = time.monotonic() + START_S
    while len(last := set(children(parent)) - {pids[0]}) < 2:
        assert time.monotonic() < deadline
        assert httpx.get(f"{url}/livez", timeout=START_S).status_code == 200
        time.sleep(0.2)
    assert "densityd_http_requests_total" in httpx.get(f"{url}/metrics", timeout=START_S).text
    parent.terminate()
    assert parent.wait(120) == 0
    for pid in last:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


@pytest.mark.long  # `tests/densityd/service` has a parent that is killed
def test_none_outlives_a_parent_that_is_killed(served):
    _, parent = served
    served_by = children(parent)
    parent.kill()
    parent.wait(120)
    deadline = time.monotonic() + 300  # those that still start look for their parent then
    while any(_is_alive(pid) for pid in served_by):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.long  # as above
@pytest.mark.timeout(4 * START_S)
def test_801_803_they_live_with_a_full_and_a_cleaned_disk_of_temporary_files(
    data_dir: Path, tmp_path: Path
) -> None:
    temporary = tmp_path / "temporary"
    port = free_port()
    environment = {
        **os.environ,
        "DENSITYD_DATA_DIR": str(data_dir),
        "DENSITYD_PORT": str(port),
        "DENSITYD_API_PROCESSES": "2",
        "DENSITYD_HEADER_TIMEOUT_S": "600",
        "DENSITYD_DRAIN_S": "0",
        "TMPDIR": str(temporary),
    }
    with (
        closing(Disks({temporary: "32m"})) as disks,
        subprocess.Popen(  # noqa: S603  our own module
            disks.on(*tied(sys.executable, "-P", "-m", "app")),
            env=environment,
            stderr=subprocess.DEVNULL,
        ) as parent,
    ):
        wait_for_port(port, parent)
        first = both_serving(port, parent)
        disks.fill(temporary)
        for _ in range(10):  # each on a new connection
            sent = httpx.post(
                f"http://127.0.0.1:{port}/v1/datasets",
                content="x,y\n" + "1,2\n3,5\n4,1\n" * 9,
                headers=CSV,
                timeout=START_S,
            )
            assert sent.status_code == 201
        assert children(parent) == first
        os.kill(first[0], signal.SIGKILL)
        wait_for_end(first[0])
        second = both_serving(port, parent)
        assert first[1] in second

        for folder in disks.inside(temporary).glob("densityd-api-*"):
            shutil.rmtree(folder)
        os.kill(first[1], signal.SIGKILL)
        wait_for_end(first[1])
        third = both_serving(port, parent)
        told = httpx.get(f"http://127.0.0.1:{port}/metrics", timeout=START_S)
        assert "densityd_http_requests_total" in told.text

        os.kill(third[0], signal.SIGSTOP)
        parent.terminate()
        assert parent.wait(START_S) == 0


def test_processes_are_not_killed_while_records_of_the_audit_trail_wait():
    supervisors_wait_s = 15  # as the manual of operation tells
    assert audit._PATIENCE_S < processes._END_S < supervisors_wait_s


def wait_for_end(pid: int) -> None:
    """Wait until a child is no more."""
    deadline = time.monotonic() + START_S
    while _is_alive(pid):
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.parametrize("number", [1, 2])
def test_a_closed_terminal_ends_an_api_as_sigterm_does(data_dir: Path, number: int) -> None:
    port = free_port()
    environment = {
        **os.environ,
        "DENSITYD_DATA_DIR": str(data_dir),
        "DENSITYD_PORT": str(port),
        "DENSITYD_API_PROCESSES": str(number),
    }
    with subprocess.Popen(  # noqa: S603  our own module
        tied(sys.executable, "-P", "-m", "app"), env=environment, stderr=subprocess.DEVNULL
    ) as api:
        wait_for_port(port, api)
        api.send_signal(signal.SIGHUP)
        assert api.wait(START_S) == 0
