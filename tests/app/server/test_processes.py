"""Several API processes on one port, as real processes."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

from tests.app.conftest import wait_for_port
from tests.ports import free_port
from tests.servers import tied


@pytest.fixture
def served(data_dir):
    """The port and the parent of two processes."""
    port = free_port()
    environment = {
        **os.environ,
        "DENSITYD_DATA_DIR": str(data_dir),
        "DENSITYD_PORT": str(port),
        "DENSITYD_API_PROCESSES": "2",
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


def test_one_that_is_killed_is_replaced_and_all_end_with_a_signal(served):
    port, parent = served
    url = f"http://127.0.0.1:{port}"
    # The first answer comes once one has started; a kill too soon is answered after a pause.
    assert httpx.get(f"{url}/livez", timeout=100).status_code == 200
    first = children(parent)
    assert len(first) == 2
    os.kill(first[0], signal.SIGKILL)
    deadline = time.monotonic() + 300
    while len(set(children(parent)) - set(first)) == 0:
        assert time.monotonic() < deadline
        assert httpx.get(f"{url}/livez", timeout=100).status_code == 200
        time.sleep(0.2)
    assert "densityd_http_requests_total" in httpx.get(f"{url}/metrics", timeout=100).text
    last = children(parent)
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
