"""``densityd up`` as a person runs it: its processes, what it prints, what it answers."""

import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from densityd.client import Client
from tests.support.servers import tied
from tests.support.waiting import wait_until

EXAMPLES = Path(__file__).parents[2] / "examples"
TIMEOUT_S = 300.0


def children_of(pid: int) -> list[int]:
    """All processes below one."""
    children: list[int] = []
    for listed in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(OSError):
            children += map(int, listed.read_text().split())
    return children + [below for child in children for below in children_of(child)]


def command_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
    except OSError:
        return ""


class Up:
    """One ``densityd up`` and what it printed."""

    def __init__(self, data_dir: Path, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.data_dir = data_dir
        self.printed = data_dir.with_suffix(".out")
        with self.printed.open("wb") as output:
            self.process = subprocess.Popen(  # noqa: S603 - our own command
                command(data_dir, port), stdout=output, stderr=output
            )

    def wait_ready(self) -> None:
        wait_until(lambda: "is ready" in self.text() or self.process.poll() is not None)
        assert self.process.poll() is None, self.text()

    def text(self) -> str:
        return self.printed.read_text()

    def children(self, part: str) -> list[int]:
        """The processes below it whose command has `part` in it."""
        return [pid for pid in children_of(self.process.pid) if part in command_of(pid)]

    def job(self, job_id: str) -> dict[str, Any]:
        answer: dict[str, Any] = httpx.get(f"{self.url}/v1/jobs/{job_id}", timeout=TIMEOUT_S).json()
        return answer

    def epoch(self, job_id: str) -> int:
        return int((self.job(job_id)["metrics"] or {}).get("epoch", 0))

    def submit_endless(self) -> str:
        table = np.random.default_rng(0).normal(size=(600, 3))
        with Client(self.url) as client:
            job = client.jobs.train(
                "endless",
                client.datasets.upload(table).id,
                flow={"family": "realnvp", "layers": 2, "hidden": [8]},
                optimisation={"max_epochs": 100_000, "patience": 100_000, "batch_size": 20},
            )
        return job.id

    def end(self) -> float:
        """End it as Ctrl-C does; the seconds that it took."""
        began = time.monotonic()
        self.process.send_signal(signal.SIGINT)
        assert self.process.wait(TIMEOUT_S) == 0, self.text()
        return time.monotonic() - began


def command(data_dir: Path, port: int) -> list[str]:
    program = "from densityd.cli import main; main()"
    options = ["--port", str(port), "--data-dir", str(data_dir)]
    return tied(sys.executable, "-c", program, "up", *options)


def succeeds(url: str) -> bool:
    try:
        return httpx.get(url, timeout=60).is_success
    except httpx.TransportError:
        return False
