from collections.abc import Iterator

import pytest
from starlette.testclient import TestClient

from app.settings import ApiSettings
from models_store.database.database import Database
from tests.jobs.workers.crash_child import InlineTrainers
from workers.settings import WorkerSettings
from workers.supervisor.supervisor import Supervisor


@pytest.fixture
def database(client: TestClient) -> Database:
    """The database of the service."""
    database: Database = client.app.state.database  # type: ignore[attr-defined]  # a FastAPI
    return database


@pytest.fixture
def supervisor(settings: ApiSettings) -> Iterator[Supervisor]:
    """A worker of the service, with a connection of its own, whose trainers are threads."""
    database = Database(settings.resolved_database_url)
    own = WorkerSettings(data_dir=settings.data_dir, device="cpu", trainer_nice=0)
    yield Supervisor(database, own, worker="tester", trainers=InlineTrainers())
    database.dispose()
