"""Servers under measurement: the whole service on a free port, and its peers, all with the same flow."""

import asyncio
import io
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
from typing import Any

import httpx
import numpy as np

from bench.load import ask, post
from bench.peer_servers.model import BLOBS, COMPILED, KEY, SHA256
from densityd.service.ports import free_port
from flows import Flow
from models_store.database.database import Database
from models_store.files.blobs import Blobs
from models_store.files.checkpoints import load_model
from models_store.records import Version
from models_store.registry import Registry

DIM = 21
FLOW: dict[str, Any] = {"family": "maf", "layers": 5, "hidden": [512], "activation": "relu"}
NPY = "application/x-npy"
_MODEL = "bench"
_READY_S = 300  # kernels may have to be compiled
DENSITYD = Path(sys.executable).with_name("densityd")
ROOT = Path(__file__).parent.parent
# MLServer's worker cannot start with a newer uvloop.
MLSERVER = ("mlserver==1.7.1", "uvloop==0.21.0")
_START_S = 90
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Service:
    """Running service.

    Attributes:
        pid: Process that started all others.
        api_pid: Process of its API.
    """

    client: httpx.Client
    pid: int
    api_pid: int
    data_dir: Path
    densityd: Path

    def new_key(self) -> str:
        """Return a key with scope `read`; the service then refuses requests without a key."""
        made = subprocess.run(  # noqa: S603  our own command line
            [self.densityd, "keys", "create", "--scope", "read", "--json"],
            env={**os.environ, "DENSITYD_DATA_DIR": str(self.data_dir)},
            check=True,
            capture_output=True,
        )
        return str(json.loads(made.stdout)["token"])


@contextmanager
def running_service(densityd: Path = DENSITYD) -> Iterator[Service]:
    """Start the service, yield it, stop it.

    Args:
        densityd: Command of the environment that has the service.
    """
    port = free_port("127.0.0.1", 0)
    with tempfile.TemporaryDirectory(prefix="densityd-bench-") as folder:
        process = subprocess.Popen(  # noqa: S603  our own command line
            [densityd, "up", "--port", str(port), "--data-dir", folder], stdout=subprocess.DEVNULL
        )
        try:
            with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=600) as client:
                _wait_until_ready(client, process)
                yield Service(client, process.pid, _api_pid(process.pid), Path(folder), densityd)
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


def npy_bytes(table: np.ndarray) -> bytes:
    """Return the table as an npy file."""
    buffer = io.BytesIO()
    np.save(buffer, table)
    return buffer.getvalue()


def register_model(service: Service) -> None:
    """Train a MAF 5 x 512 of 21 columns for two epochs, as the model `bench`."""
    table = np.random.default_rng(0).normal(size=(5_000, DIM))
    dataset = service.client.post(
        "/v1/datasets", content=npy_bytes(table), headers={"Content-Type": NPY}
    ).raise_for_status()
    wishes = {"model_name": _MODEL, "dataset_id": dataset.json()["id"], "flow": FLOW}
    finished_job(service.client, {**wishes, "optimisation": {"max_epochs": 2}})


def stored_version(service: Service) -> Version:
    """Return the version of that model."""
    database = Database(f"sqlite:///{service.data_dir / 'densityd.sqlite3'}")
    try:
        return Registry(database).resolve("default", _MODEL)
    finally:
        database.dispose()


def stored_flow(service: Service) -> Flow:
    """Return the flow of that model."""
    version = stored_version(service)
    blobs = Blobs.in_folder(service.data_dir / "blobs")
    return load_model(blobs, version.checkpoint_key, version.checkpoint_sha256)


def _wait_until_ready(client: httpx.Client, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + _READY_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError(f"the service ended with code {process.returncode}")
        try:
            if client.get("/readyz").status_code == httpx.codes.OK:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.1)
    raise RuntimeError(f"the service was not ready within {_READY_S} s")


def _api_pid(parent: int) -> int:
    for child in Path(f"/proc/{parent}/task/{parent}/children").read_text().split():
        command = Path(f"/proc/{child}/cmdline").read_bytes().split(b"\0")
        if b"app" in command:
            return int(child)
    raise RuntimeError("the service has no API process")


@dataclass(frozen=True)
class Server:
    """Running server under measurement.

    Args:
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
            command = {**_STARTS, FLOOR: _floor}[kind](port, Path(folder))
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


def _floor(port: int, _folder: Path) -> list[str]:
    return [sys.executable, "-m", "bench.peer_servers.floor_app", str(port)]


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
    "MLServer": _mlserver,
}
"""Command line of each peer, from a port and an empty folder."""

FLOOR = "bare uvicorn"
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
    return _ticks(pid, 11) / _TICKS


def ended_children_s(pid: int) -> float:
    """Return the processor time of the children of a process that have ended, in seconds."""
    return _ticks(pid, 13) / _TICKS


def _ticks(pid: int, first: int) -> int:
    """Return the sum of two fields of the state of a process; 0 once it has ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except FileNotFoundError:
        return 0
    return int(fields[first]) + int(fields[first + 1])
