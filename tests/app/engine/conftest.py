"""An engine that runs."""

from collections.abc import Iterator

import pytest

from app.engine.engine import Engine


@pytest.fixture
def engine() -> Iterator[Engine]:
    engine = Engine(max_waiting=6, max_waiting_bytes=1000, max_wait_s=30.0)
    engine.start()
    yield engine
    engine.stop()
