"""Places to work in, and the processes that work there."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from models_store.database.database import Database
from tests.jobs.workers.place import Place, PlaceRedis, Running
from tests.support.servers import end_fork_servers, tied


@pytest.fixture(scope="module", autouse=True)
def _own_fork_server() -> Iterator[None]:
    """Python has one fork server a process: that of trainers is another than that of readers of files."""
    end_fork_servers()
    yield
    end_fork_servers()


@pytest.fixture(autouse=True)
def _same_threads() -> Iterator[None]:
    """Give every test the threads of before: the work of a task sets their number."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    place = Place(tmp_path / "data")
    yield place
    place.database.dispose()


@pytest.fixture
def supervise(place: Place) -> Iterator[Callable[..., Running]]:
    """Start a supervisor on whatever waits; changed settings as keywords."""
    started: list[Running] = []

    def start(database: Database = place.database, **changes: Any) -> Running:
        started.append(Running(database, place.with_settings(**changes)))
        return started[-1]

    yield start
    for running in started:
        running.end()


@pytest.fixture
def place_redis(place: Place) -> Iterator[PlaceRedis]:
    server = PlaceRedis(place.settings)
    server.start()
    yield server
    server.kill()


@pytest.fixture
def start_worker(place: Place) -> Iterator[Callable[..., "subprocess.Popen[bytes]"]]:
    """Start a real worker process on the place; its log is `worker.log`."""
    started: list[subprocess.Popen[bytes]] = []
    log = (place.settings.data_dir / "worker.log").open("ab")

    def start(**variables: str) -> "subprocess.Popen[bytes]":
        shared = place.settings
        environment = {
            "DENSITYD_DATA_DIR": str(shared.data_dir),
            "DENSITYD_TEST_LEASE_S": str(shared.lease_s),
            "DENSITYD_TEST_CHECKPOINT_INTERVAL_S": "0",
        }
        started.append(
            subprocess.Popen(  # noqa: S603 - our own command
                tied(sys.executable, "-P", "-m", "workers"),
                env=os.environ | environment | variables,
                stdout=log,
                stderr=log,
            )
        )
        return started[-1]

    yield start
    for worker in started:
        worker.kill()
        worker.wait()
    log.close()
