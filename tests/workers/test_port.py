"""The port of a worker."""

import urllib.error
import urllib.request
from collections.abc import Iterator

import pytest

from workers.metrics import WorkerMetrics
from workers.port import Port


class Fitness:
    reason: str | None = None


@pytest.fixture
def fitness() -> Fitness:
    return Fitness()


@pytest.fixture
def url(fitness: Fitness) -> Iterator[str]:
    metrics = WorkerMetrics()
    metrics.attempts.labels("training", "done").inc()
    port = Port("127.0.0.1", 0, metrics=metrics, unfit=lambda: fitness.reason)
    port.start()
    yield f"http://127.0.0.1:{port.number}"
    port.stop()


def read(url: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(url, timeout=60) as response:  # noqa: S310 - our own
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def test_a_worker_says_how_it_is(url: str, fitness: Fitness) -> None:
    assert read(f"{url}/livez") == (200, '{"status": "ok"}')
    assert read(f"{url}/readyz")[0] == 200
    text = read(f"{url}/metrics")[1]
    assert 'densityd_worker_attempts_total{ending="done",kind="training"} 1.0' in text
    assert "densityd_worker_takes_jobs 1.0" in text
    assert "process_resident_memory_bytes" in text
    fitness.reason = "It has no store."
    status, body = read(f"{url}/readyz")
    assert (status, "It has no store." in body) == (503, True)
    assert "densityd_worker_takes_jobs 0.0" in read(f"{url}/metrics")[1]
    assert read(f"{url}/livez")[0] == 200
    assert read(f"{url}/jobs")[0] == 404


def test_a_port_in_use_is_told(url: str) -> None:
    with pytest.raises(OSError, match="in use"):
        Port("127.0.0.1", int(url.rpartition(":")[2]), metrics=WorkerMetrics(), unfit=lambda: None)
