"""Whole service for one measurement: `densityd up` on a free port and a folder of its own."""

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

_START_S = 300  # kernels may have to be compiled
DENSITYD = Path(sys.executable).with_name("densityd")


@dataclass(frozen=True)
class Service:
    """Running service: a client for it, its API's process, and its data directory."""

    client: httpx.Client
    api_pid: int
    data_dir: Path

    def new_key(self) -> str:
        """Return a key with scope `read`; the service then refuses requests without a key."""
        made = subprocess.run(  # noqa: S603  our own command line
            [DENSITYD, "keys", "create", "--scope", "read", "--json"],
            env={**os.environ, "DENSITYD_DATA_DIR": str(self.data_dir)},
            check=True,
            capture_output=True,
        )
        return str(json.loads(made.stdout)["token"])


@contextmanager
def running_service() -> Iterator[Service]:
    """Start the service, yield it, stop it."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with tempfile.TemporaryDirectory(prefix="densityd-bench-") as folder:
        process = subprocess.Popen(  # noqa: S603  our own command line
            [DENSITYD, "up", "--port", str(port), "--data-dir", folder], stdout=subprocess.DEVNULL
        )
        try:
            with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=600) as client:
                _wait_until_ready(client, process)
                yield Service(client, _api_pid(process.pid), Path(folder))
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(timeout=30)


def finished_job(client: httpx.Client, body: dict[str, Any]) -> dict[str, Any]:
    """Submit a training job, wait for its end, return it."""
    job: dict[str, Any] = client.post("/v1/jobs/training", json=body).raise_for_status().json()
    while job["state"] in ("queued", "running"):
        time.sleep(0.5)
        job = client.get(f"/v1/jobs/{job['id']}").raise_for_status().json()
    if job["state"] != "succeeded":
        raise RuntimeError(f"job {job['state']}: {job['error']}")
    return job


def resident_bytes(pid: int, *, peak: bool) -> int:
    """Return resident memory of a process now, or its peak since `reset_peak`, in bytes."""
    field = "VmHWM:" if peak else "VmRSS:"
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"process {pid} has no {field}")


def reset_peak(pid: int) -> None:
    """Reset the process's peak memory."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")


def _wait_until_ready(client: httpx.Client, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + _START_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError(f"the service ended with code {process.returncode}")
        try:
            if client.get("/readyz").status_code == httpx.codes.OK:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.1)
    raise RuntimeError(f"the service was not ready within {_START_S} s")


def _api_pid(parent: int) -> int:
    for child in Path(f"/proc/{parent}/task/{parent}/children").read_text().split():
        command = Path(f"/proc/{child}/cmdline").read_bytes().split(b"\0")
        if b"app" in command:
            return int(child)
    raise RuntimeError("the service has no API process")
