"""`/log_prob` with 10,000 rows in each format against the same flow called in this process.

The models are a wide MAF, those that jobs choose for tables of numbers, and one of mixed columns.
The rate over HTTP is that of one client; the share compares processor time too, which other work
on the machine hardly moves: that of the flow in process, over that of the server for the same rows.
"""

import io
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa  # type: ignore[import-untyped] # it ships no type information
import torch

from bench.service import Service, finished_job, running_service
from flows import Flow, compile_flow
from flows.defaults import SMALL_TABLE, default_flow
from models_store.database.database import Database
from models_store.files.checkpoints import load_model
from models_store.files.local_blobs import LocalBlobs
from models_store.records import Version
from models_store.registry import Registry

DIM = 21
FLOW: dict[str, Any] = {"family": "maf", "layers": 5, "hidden": [512], "activation": "relu"}
NPY = "application/x-npy"
_JSON, _NDJSON = "application/json", "application/x-ndjson"
_CSV, _ARROW = "text/csv", "application/vnd.apache.arrow.stream"
_DECIMALS = 4
_WARM = 3

Encode = Callable[[np.ndarray], bytes]


def measure(rows: int = 10_000, rounds: int = 20) -> str:
    """Alternate HTTP and in-process calls and return a table of the shares."""
    torch.set_num_threads(1)
    lines = [
        "| log_prob of 10,000 rows | in process, rows/s | format | rows/s | share | share of CPU |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    with running_service() as service:
        for number, flow in enumerate((FLOW, *map(_default_flow, (SMALL_TABLE, SMALL_TABLE - 1)))):
            register_model(service, f"numbers-{number}", flow)
            table = np.random.default_rng(1).normal(size=(rows, DIM)).round(_DECIMALS)
            case = _Case(service, f"numbers-{number}", table, _NUMBERS)
            lines += case.lines(f"{flow['family']} 5 x {flow['hidden']}, D = {DIM}", rounds)
        _register_mixed(service)
        case = _Case(service, "mixed", _mixed_rows(rows, seed=1), _CELLS)
        lines += case.lines("mixed: 5 numbers, 3 texts", rounds)
    return "\n".join(lines) + "\n"


def _default_flow(rows: int) -> dict[str, Any]:
    """Return the flow that a job chooses for this many rows."""
    fields = asdict(default_flow(rows, DIM))
    return {name: value for name, value in fields.items() if value is not None}


def npy_bytes(table: np.ndarray) -> bytes:
    """Return the table as an npy file."""
    buffer = io.BytesIO()
    np.save(buffer, table)
    return buffer.getvalue()


def register_model(
    service: Service, name: str = "bench", flow: dict[str, Any] | None = None
) -> None:
    """Train a MAF for two epochs, as the model `name`."""
    table = np.random.default_rng(0).normal(size=(5_000, DIM))
    _train(service, name, npy_bytes(table), NPY, {"flow": FLOW if flow is None else flow})


def stored_version(service: Service, name: str = "bench") -> Version:
    """Return the version of a model that the service holds."""
    database = Database(f"sqlite:///{service.data_dir / 'densityd.sqlite3'}")
    try:
        return Registry(database).resolve("default", name)
    finally:
        database.dispose()


def stored_flow(service: Service, name: str = "bench") -> Flow:
    """Return the flow of a model."""
    version = stored_version(service, name)
    blobs = LocalBlobs(service.data_dir / "blobs")
    return load_model(blobs, version.checkpoint_key, version.checkpoint_sha256)


@dataclass
class _Case:
    """A model, and rows of it in several formats."""

    service: Service
    name: str
    table: np.ndarray
    encoders: dict[str, Encode]
    wall_s: dict[str, list[float]] = field(default_factory=dict)
    cpu_s: dict[str, list[float]] = field(default_factory=dict)

    def lines(self, title: str, rounds: int) -> list[str]:
        """Measure, and return the lines of the table."""
        flow = compile_flow(stored_flow(self.service, self.name))
        bodies = {media_type: encode(self.table) for media_type, encode in self.encoders.items()}
        known = self._known()
        process_wall, process_cpu = [], []
        for _ in range(rounds + _WARM):
            for media_type, body in bodies.items():
                self._ask(media_type, body)
            wall, cpu = time.perf_counter(), time.thread_time()
            flow.log_prob(known)
            process_wall.append(time.perf_counter() - wall)
            process_cpu.append(time.thread_time() - cpu)
        wall_s, cpu_s = (statistics.median(s[_WARM:]) for s in (process_wall, process_cpu))
        lines = []
        for media_type in bodies:
            over, own = (
                statistics.median(times[media_type][_WARM:]) for times in (self.wall_s, self.cpu_s)
            )
            lines.append(
                f"| {title} | {len(known) / wall_s:,.0f} | {media_type} | {len(known) / over:,.0f}"
                f" | {wall_s / over:.2f} | {cpu_s / own:.2f} |"
            )
        return lines

    def _ask(self, media_type: str, body: bytes) -> None:
        headers = {"Content-Type": media_type, "Accept": media_type}
        path = f"/v1/models/{self.name}/log_prob"
        began, cpu = time.perf_counter(), _cpu_s(self.service.api_pid)
        self.service.client.post(path, content=body, headers=headers).raise_for_status()
        self.wall_s.setdefault(media_type, []).append(time.perf_counter() - began)
        self.cpu_s.setdefault(media_type, []).append(_cpu_s(self.service.api_pid) - cpu)

    def _known(self) -> np.ndarray:
        """Return the rows as the flow takes them: levels as their codes, which are sorted here."""
        if self.table.dtype != object:
            return self.table
        columns = [
            np.unique(column, return_inverse=True)[1] if isinstance(column[0], str) else column
            for column in self.table.T
        ]
        return np.column_stack(columns).astype(np.float64)


def _train(
    service: Service, name: str, content: bytes, media_type: str, body: dict[str, Any]
) -> None:
    dataset = service.client.post(
        "/v1/datasets", content=content, headers={"Content-Type": media_type}
    ).raise_for_status()
    wishes = {"model_name": name, "dataset_id": dataset.json()["id"], **body}
    finished_job(service.client, {**wishes, "optimisation": {"max_epochs": 2}})


def _register_mixed(service: Service) -> None:
    _train(service, "mixed", _csv(_mixed_rows(5_000, seed=0)), _CSV, {})


def _mixed_rows(rows: int, *, seed: int) -> np.ndarray:
    """Return five columns of numbers and three of words."""
    random = np.random.default_rng(seed)
    table = np.empty((rows, 8), object)
    table[:, :5] = random.normal(size=(rows, 5)).round(_DECIMALS)
    for column, words in enumerate(("ab", "abcd", "abcdefghijkl"), start=5):
        table[:, column] = random.choice([f"level {word}" for word in words], rows)
    return table


def _names(table: np.ndarray) -> list[str]:
    return [f"x{column + 1}" for column in range(table.shape[1])]


def _json(table: np.ndarray) -> bytes:
    return json.dumps({"rows": table.tolist()}).encode()


def _ndjson(table: np.ndarray) -> bytes:
    names = _names(table)
    return b"\n".join(
        json.dumps(dict(zip(names, row, strict=True))).encode() for row in table.tolist()
    )


def _csv(table: np.ndarray) -> bytes:
    lines = [",".join(map(str, row)) for row in [_names(table), *table.tolist()]]
    return "\n".join(lines).encode()


def _arrow(table: np.ndarray) -> bytes:
    columns = pa.table({n: list(c) for n, c in zip(_names(table), table.T, strict=True)})
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, columns.schema) as writer:
        writer.write_table(columns)
    return sink.getvalue()


_CELLS: dict[str, Encode] = {_JSON: _json, _NDJSON: _ndjson, _CSV: _csv, _ARROW: _arrow}
_NUMBERS: dict[str, Encode] = {NPY: npy_bytes, **_CELLS}


def _cpu_s(pid: int) -> float:
    """Return the processor time of all threads of a process, in seconds."""
    threads = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((thread / "schedstat").read_text().split()[0]) for thread in threads) / 1e9
