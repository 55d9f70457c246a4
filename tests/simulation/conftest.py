"""What all schedules of a test process share."""

from collections.abc import Iterator

import pytest

from tests.simulation.world import Grounds


@pytest.fixture(scope="session")
def grounds() -> Iterator[Grounds]:
    grounds = Grounds()
    yield grounds
    grounds.close()
