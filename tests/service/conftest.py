"""A whole service that the tests share; its models and datasets bear the names of their tests."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page

from app.settings import ApiSettings
from densityd.client import Client, Optimisation
from models_store.files.blobs import Blobs
from tests.service.up import EXAMPLES, Up
from tests.support.browsers import chromium, watched_page
from tests.support.servers import free_port

CRASHED = "crashed.upload"
"""File in the staging folder whose writer ended before the service started."""


@pytest.fixture(scope="session")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    data_dir = tmp_path_factory.mktemp("up") / "data"
    staging = Blobs.in_folder(ApiSettings(data_dir=data_dir).blob_root).staging
    staging.mkdir(parents=True)
    (staging / CRASHED).touch()
    up = Up(data_dir, free_port())
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
