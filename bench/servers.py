"""Servers of the serving measurement: the service and its peers, all with the same flow."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import sysconfig
import tempfile
import time
import venv
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx
import numpy as np

from bench.load import ask, post
from bench.peer_servers.model import BLOBS, COMPILED, KEY, SHA256
from bench.service import (
    DENSITYD,
    DIM,
    NPY,
    Service,
    npy_bytes,
    register_model,
    running_service,
    stored_version,
)
from densityd.service.ports import free_port

ROOT = Path(__file__).parent.parent
# MLServer's worker cannot start with a newer uvloop.
MLSERVER = ("mlserver==1.7.1", "uvloop==0.21.0")
_START_S = 90
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Server:
    """Running server under measurement.

    Args:
        name: Name in the tables.
        port: Port on loopback.
        pid: Process id; its children belong to the server too.
        request: Function from the JSON text of rows, and their number, to an HTTP request.
    """

    name: str
    port: int
    pid: int
    request: Callable[[str, int], bytes]

    def cpu_s(self) -> float:
        """Return the processor time of all its processes so far, in seconds."""
        return sum(map(cpu_s, family(self.pid)))

    @contextmanager
    def asleep(self) -> Iterator[None]:
        """Stop all its processes for a while: some poll even without requests."""
        pids = list(family(self.pid))
        _send(pids, signal.SIGSTOP)
        try:
            yield
        finally:
            _send(pids, signal.SIGCONT)


@dataclass(frozen=True)
class Missing:
    """Peer that could not be measured, with the reason."""

    name: str
    reason: str


@contextmanager
def service_with_model(
    name: str = "densityd", densityd: Path = DENSITYD
) -> Iterator[tuple[Service, Server, Server]]:
    """Run the service with a trained flow; yield it, and its JSON and npy servers to measure."""
    with running_service(densityd) as service:
        register_model(service)
        port = httpx.URL(str(service.client.base_url)).port
        assert port is not None
        path = "/v1/models/bench/log_prob"
        headers = {"Authorization": f"Bearer {service.new_key()}", "X-Request-Timeout": "60"}

        def in_json(text: str, _rows: int) -> bytes:
            return post(path, f'{{"rows":{text}}}'.encode(), headers=headers)

        def in_npy(text: str, _rows: int) -> bytes:
            body = npy_bytes(np.array(json.loads(text), np.float32))
            return post(path, body, media_type=NPY, headers=headers)

        yield (
            service,
            Server(name, port, service.api_pid, in_json),
            Server(f"{name}, npy", port, service.api_pid, in_npy),
        )


@contextmanager
def peer(name: str, service: Service) -> Iterator[Server | Missing]:
    """Run one of `PEERS` with the flow of the service, and yield it."""
    version = stored_version(service)
    kind, sep, _ = name.partition(COMPILED_TOO)
    environment = {
        **os.environ,
        **({COMPILED: "1"} if sep else {}),
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
        BLOBS: str(service.data_dir / "blobs"),
        KEY: version.checkpoint_key,
        SHA256: version.checkpoint_sha256,
    }
    port = free_port("127.0.0.1", 0)
    with tempfile.TemporaryDirectory(prefix="densityd-bench-peer-") as folder:
        try:
            command = _STARTS[kind](port, Path(folder))
        except (OSError, subprocess.SubprocessError) as error:
            yield Missing(name, f"could not be installed: {error}")
            return
        with (Path(folder) / "log").open("wb") as log:
            process = subprocess.Popen(  # noqa: S603  our own command line
                command, env=environment, cwd=folder, stdout=log, stderr=log, start_new_session=True
            )
        try:
            server = Server(name, port, process.pid, _REQUESTS.get(kind, _simple_request))
            if problem := _wait_until_it_scores(server, process):
                tail = (Path(folder) / "log").read_text(errors="replace")[-300:]
                yield Missing(name, f"{problem}: {tail.strip()}")
            else:
                yield server
        finally:
            _stop(process)


def _simple_request(text: str, _rows: int) -> bytes:
    return post("/log_prob", f'{{"rows":{text}}}'.encode())


def _inference_request(text: str, rows: int) -> bytes:
    """Return a request of the V2 protocol; its data may be nested as the rows are."""
    shape = f"[{rows},{DIM}]"
    tensor = f'{{"name":"rows","shape":{shape},"datatype":"FP64","data":{text}}}'
    return post("/v2/models/bench/infer", f'{{"inputs":[{tensor}]}}'.encode())


_REQUESTS = {"MLServer": _inference_request}


def _fastapi(port: int, _folder: Path) -> list[str]:
    return [sys.executable, "-m", "bench.peer_servers.fastapi_app", str(port)]


def _litserve(port: int, _folder: Path) -> list[str]:
    return [sys.executable, "-m", "bench.peer_servers.litserve_app", str(port)]


def _mlserver(port: int, folder: Path) -> list[str]:
    settings = {
        "host": "127.0.0.1",
        "http_port": port,
        "grpc_port": free_port("127.0.0.1", 0),
        "metrics_port": free_port("127.0.0.1", 0),
        "metrics_dir": str(folder),
        "debug": False,
    }
    model = {
        "name": "bench",
        "implementation": "bench.peer_servers.mlserver_model.LogProb",
        "max_batch_size": 32,
        "max_batch_time": 0.002,
    }
    (folder / "settings.json").write_text(json.dumps(settings))
    (folder / "model-settings.json").write_text(json.dumps(model))
    return [str(_environment(*MLSERVER) / "bin" / "mlserver"), "start", str(folder)]


_STARTS: dict[str, Callable[[int, Path], list[str]]] = {
    "FastAPI, tutorial": _fastapi,
    "LitServe": _litserve,
    "MLServer": _mlserver,
}
"""Command line of each peer, from a port and an empty folder."""

COMPILED_TOO = ", our engine"
PEERS = (*_STARTS, f"FastAPI, tutorial{COMPILED_TOO}", f"MLServer{COMPILED_TOO}")
"""Peers with the flow computed by PyTorch, and the two fastest also with the compiled flow."""


def _environment(requirement: str, *others: str) -> Path:
    """Return an environment for packages that conflict with ours, kept for the next run.

    It also sees our packages: torch is not installed twice.
    """
    folder = Path(tempfile.gettempdir()) / f"densityd-bench-{requirement.replace('==', '-')}"
    python = folder / "bin" / "python"
    packages = Path(sysconfig.get_path("purelib", vars={"base": str(folder)}))
    ours = packages / "densityd-bench.pth"  # written last: without it the folder is incomplete
    if not ours.exists():
        print(f"installing {requirement} into {folder}", file=sys.stderr)
        venv.create(folder, with_pip=True, clear=True)
        subprocess.run(  # noqa: S603  our own command line
            [python, "-m", "pip", "install", "--quiet", requirement, *others],
            check=True,
            timeout=600,
        )
        ours.write_text(sysconfig.get_path("purelib") + "\n")
    return folder


def _wait_until_it_scores(server: Server, process: "subprocess.Popen[bytes]") -> str | None:
    """Return an error, or None once the server responds."""
    request = server.request(json.dumps([[0.0] * DIM]), 1)
    deadline = time.monotonic() + _START_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            return f"ended with status {process.returncode}"
        try:
            if asyncio.run(ask(server.port, request)).status == httpx.codes.OK:
                return None
        except OSError:
            pass
        time.sleep(0.2)
    return f"did not answer within {_START_S} s"


def _stop(process: "subprocess.Popen[bytes]") -> None:
    """End a server and its children, which form a session."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with suppress(subprocess.TimeoutExpired):
            process.wait(10)


def _send(pids: list[int], number: signal.Signals) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)


def family(pid: int) -> Iterator[int]:
    """Yield a process and all that descend from it."""
    yield pid
    with suppress(FileNotFoundError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in (task / "children").read_text().split():
                yield from family(int(child))


def cpu_s(pid: int) -> float:
    """Return user and system time of a process, in seconds."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except FileNotFoundError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / _TICKS
