"""Real servers and empty databases for every test that asks for one."""

import os
import shutil
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from models_store.aliases import Aliases
from models_store.database.database import Database, migrate
from models_store.database.schema import METADATA
from models_store.files.blobs import Blobs
from models_store.jobs.jobs import Jobs
from models_store.jobs.leases import JobWork
from models_store.jobs.retention import JobRetention
from models_store.registry import Registry
from tests.support.servers import PostgresServer, RedisServer

_DATABASE = "densityd"

# No test asserts a time: a busy machine is no fault. The same values in each run, so that none fails
# by chance; `--hypothesis-profile=thorough` draws others each time, and more of them.
_patient = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("thorough", _patient, max_examples=200)
settings.register_profile("repeatable", _patient, derandomize=True, max_examples=10)
settings.load_profile("repeatable")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Where everything is installed, a test that a missing program skips has failed."""
    report = yield
    if report.skipped and "CI" in os.environ and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
    return report


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """Tests that are coroutines run on the event loop of asyncio."""
    return "asyncio"


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RedisServer]:
    """One Redis for the whole run; a test that stops it starts it again."""
    server = RedisServer()
    yield server
    server.close()


@pytest.fixture
def redis_url(redis_server: RedisServer) -> str:
    """The URL of an empty Redis, as redis-py spells it."""
    redis_server.flush()
    return redis_server.url


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """One PostgreSQL for the whole run, with a migrated database; no test stops it."""
    server = PostgresServer()
    migrate(server.create(_DATABASE))
    yield server
    server.close()


@pytest.fixture
def postgres_url(postgres_server: PostgresServer) -> str:
    """The URL of a migrated PostgreSQL database without rows."""
    # Making a database takes most of a second; emptying one takes none.
    tables = reversed(METADATA.sorted_tables)
    postgres_server.empty(_DATABASE, [table.name for table in tables])
    return postgres_server.url(_DATABASE)


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated SQLite file without rows, to copy."""
    file = tmp_path_factory.mktemp("template") / "densityd.sqlite3"
    migrate(f"sqlite:///{file}")
    return file


@pytest.fixture
def sqlite_url(tmp_path: Path, sqlite_template: Path) -> str:
    """The URL of a migrated SQLite file without rows."""
    file = tmp_path / "densityd.sqlite3"
    shutil.copy(sqlite_template, file)
    return f"sqlite:///{file}"


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest) -> str:
    """The URL of a migrated database without rows: the test runs once on each kind."""
    kind = "sqlite_url" if request.param == "sqlite" else "postgres_url"
    return str(request.getfixturevalue(kind))


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    """A database without rows, of each kind."""
    database = Database(database_url)
    yield database
    database.dispose()


@pytest.fixture
def jobs(database: Database) -> Jobs:
    return Jobs(database)


@pytest.fixture
def retention(database: Database) -> JobRetention:
    return JobRetention(database)


@pytest.fixture
def work(database: Database) -> JobWork:
    return JobWork(database)


@pytest.fixture
def registry(database: Database) -> Registry:
    return Registry(database)


@pytest.fixture
def aliases(database: Database) -> Aliases:
    return Aliases(database)


@pytest.fixture
def blobs(tmp_path: Path) -> Blobs:
    return Blobs.in_folder(tmp_path / "blobs")
