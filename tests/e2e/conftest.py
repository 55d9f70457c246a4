"""A whole service that the tests share; its models and datasets bear the names of their tests."""

from collections.abc import Iterator

import pytest

from tests.e2e.test_up import Up
from tests.ports import free_port


@pytest.fixture(scope="session")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    up = Up(tmp_path_factory.mktemp("up") / "data", free_port())
    up.wait_ready()
    yield up
    up.end()
