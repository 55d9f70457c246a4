"""Upload of a large CSV: the API's memory, and its response time to other requests meanwhile."""

import threading
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import httpx
import numpy as np

from bench.service import Service, reset_peak, resident_bytes, running_service

MEBIBYTE = 2**20


def measure(size_mb: int = 200) -> str:
    """Upload `size_mb` megabytes of CSV and return a table."""
    with TemporaryDirectory() as folder, running_service() as service:
        table = Path(folder) / "table.csv"
        write_csv(table, size_mb * 1_000_000)
        idle = resident_bytes(service.api_pid, peak=False)
        reset_peak(service.api_pid)
        delays: list[float] = []
        done = threading.Event()
        prober = threading.Thread(target=_probe, args=(service, delays, done))
        prober.start()
        started = time.perf_counter()
        with table.open("rb") as body:
            response = service.client.post(
                "/v1/datasets", content=body, headers={"Content-Type": "text/csv"}
            ).raise_for_status()
        seconds = time.perf_counter() - started
        done.set()
        prober.join()
        growth = (resident_bytes(service.api_pid, peak=True) - idle) / MEBIBYTE
        dataset = response.json()
        return (
            "| upload | value |\n| --- | --- |\n"
            f"| CSV | {table.stat().st_size / 1e6:.0f} MB,"
            f" {dataset['rows']:,} rows x {len(dataset['columns'])} |\n"
            f"| seconds | {seconds:.1f} ({dataset['rows'] / seconds:,.0f} rows/s) |\n"
            f"| API resident memory: idle, peak above idle |"
            f" {idle / MEBIBYTE:.0f} MiB, {growth:.0f} MiB |\n"
            f"| /livez meanwhile ({len(delays)} probes): median, worst |"
            f" {np.median(delays) * 1e3:.1f} ms, {max(delays) * 1e3:.1f} ms |\n"
        )


def write_csv(path: Path, size_bytes: int, *, columns: int = 21) -> None:
    """Write correlated Gaussian rows until the file has `size_bytes`."""
    generator = np.random.default_rng(0)
    mixing = generator.normal(size=(columns, columns)) / columns**0.5
    with path.open("w") as file:
        file.write(",".join(f"x{i + 1}" for i in range(columns)) + "\n")
        while file.tell() < size_bytes:
            rows = generator.normal(size=(5_000, columns)) @ mixing
            file.writelines(",".join(f"{v:.15g}" for v in row) + "\n" for row in rows.tolist())


def _probe(service: Service, delays: list[float], done: threading.Event) -> None:
    with httpx.Client(base_url=service.client.base_url, timeout=60) as client:
        while not done.wait(0.02):
            started = time.perf_counter()
            client.get("/livez").raise_for_status()
            delays.append(time.perf_counter() - started)
