"""A whole service that the tests share; its models and datasets bear the names of their tests."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page

from densityd.client import Client, Optimisation
from tests.service.up import EXAMPLES, Up
from tests.support.browsers import chromium, watched_page
from tests.support.servers import free_port


@pytest.fixture(scope="session")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    up = Up(tmp_path_factory.mktemp("up") / "data", free_port())
    up.wait_ready()
    yield up
    up.end()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture
def page(browser: Browser, up: Up) -> Iterator[Page]:
    with watched_page(browser, up.url) as page:
        yield page


@pytest.fixture(scope="session")
def model(up: Up) -> str:
    """Two versions of a model of a small table with gaps and categories."""
    options: Optimisation = {"max_epochs": 3, "seed": 0}
    with Client(up.url) as client:
        dataset = client.datasets.upload(
            EXAMPLES / "penguins" / "penguins.csv", name="table of the pair"
        )
        for missing in ("any", "observed"):
            job = client.jobs.train("pair", dataset.id, missing=missing, optimisation=options)
            client.jobs.wait(job.id)
    return "pair"
