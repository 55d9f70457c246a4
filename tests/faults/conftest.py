"""A live service to attack, and what must hold during each attack and after each module."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.invariants import (
    Pulse,
    assert_jobs_end,
    assert_memory_returns,
    assert_no_undocumented_status,
    assert_versions_are_whole,
)
from tests.faults.service import Service, idle_bytes, running_service
from tests.waiting import wait_until


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """These tests wait for time-outs, and the first one for the service to start."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.timeout(900))
            item.add_marker(pytest.mark.skipif(sys.platform != "linux", reason="reads /proc"))


@pytest.fixture(scope="session")
def service(tmp_path_factory: pytest.TempPathFactory, sqlite_template: Path) -> Iterator[Service]:
    with running_service(tmp_path_factory.mktemp("attacked"), sqlite_template) as service:
        yield service


@pytest.fixture(scope="session")
def idle(service: Service) -> int:
    """Bytes that the service takes before the first attack."""
    return idle_bytes(service)


@pytest.fixture(scope="session")
def answer(service: Service, idle: int) -> bytes:  # noqa: ARG001 - the models are loaded then
    """What a model that nobody attacks answers before the first attack."""
    return service.log_prob("others")


@pytest.fixture(scope="module", autouse=True)
def _invariants(service: Service, idle: int, answer: bytes) -> Iterator[None]:
    yield
    assert_no_undocumented_status(service.url)
    assert service.log_prob("others") == answer
    wait_until(lambda: not service.left(), within_s=120, what="an upload was left")
    assert_memory_returns(service.pid, idle)
    assert_jobs_end(service.database)
    assert_versions_are_whole(service.database, service.blobs)


@pytest.fixture(autouse=True)
def pulse(service: Service) -> Iterator[Pulse]:
    """The service is alive during each attack."""
    with Pulse(service.url) as pulse:
        yield pulse
    assert pulse.asked
    assert pulse.failures == []
