"""PostgreSQL behind PgBouncer with transaction pooling, where that is installed."""

import os
import pwd
import shutil
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import make_url, text

from models_store.database.database import Database, migrate
from models_store.errors import DatabaseBusyError, DatabaseUnavailableError, LimitsIgnoredError
from models_store.jobs.jobs import Jobs
from models_store.jobs.leases import JobWork
from tests.store.makers import LEASE_S, submitted
from tests.support.servers import Guarded, PostgresServer, free_port

PGBOUNCER = shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin")
pytestmark = pytest.mark.skipif(PGBOUNCER is None, reason="pgbouncer is not installed")
_CONFIG = """
[databases]
* = host={socket} user=postgres
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = any
pool_mode = {mode}
ignore_startup_parameters = {ignored}
default_pool_size = 2
max_client_conn = 100
max_prepared_statements = 0
"""


@contextmanager
def _pooler(
    server: PostgresServer, url: str, folder: Path, *, ignored: str = "", mode: str = "transaction"
) -> Iterator[str]:
    """A pooler before a server, as the URL of a database without the option that says so."""
    port = free_port()
    uid = pwd.getpwnam("nobody").pw_uid if os.geteuid() == 0 else None
    config = server.folder / "pgbouncer.ini"
    config.write_text(_CONFIG.format(socket=server.folder, port=port, ignored=ignored, mode=mode))
    config.chmod(0o644)
    process = Guarded([str(PGBOUNCER), config], end=signal.SIGINT, log=folder / "log", uid=uid)
    pooled = f"postgresql://postgres@127.0.0.1:{port}/{make_url(url).database}"
    process.wait_until(
        lambda: psycopg.connect(pooled, autocommit=True).close(), errors=psycopg.OperationalError
    )
    yield pooled
    process.stop()


@pytest.fixture
def pooled(
    postgres_server: PostgresServer, postgres_url: str, tmp_path: Path
) -> Iterator[Database]:
    """The database of `postgres_url`, with two connections to share."""
    with _pooler(postgres_server, postgres_url, tmp_path) as plain:
        url = f"{plain}?pgbouncer=true"
        database = Database(url, busy_timeout_s=5)
        migrate(url)
        yield database
        database.dispose()


@pytest.mark.parametrize(
    ("ignored", "error"), [("", DatabaseUnavailableError), ("options", LimitsIgnoredError)]
)
def test_a_pooler_of_which_the_url_says_nothing_is_told(
    postgres_server, postgres_url, tmp_path, ignored, error
):
    with _pooler(postgres_server, postgres_url, tmp_path, ignored=ignored) as url:
        database = Database(url)
        with pytest.raises(error, match="pgbouncer=true"):
            database.check_revision()
        database.dispose()
        said = Database(f"{url}?pgbouncer=true")
        said.check_revision()
        said.dispose()


def test_transactions_share_the_connections_of_a_pooler(pooled: Database) -> None:
    jobs, work = Jobs(pooled), JobWork(pooled)

    def run(number: int) -> str:
        job = submitted(jobs, model_name=f"m{number}")
        claimed = work.claim(f"w{number}", lease_s=LEASE_S)
        assert claimed is not None
        work.fail(claimed.id, claimed.attempt, code="internal", detail="It ended.")
        return job.id

    with ThreadPoolExecutor(8) as pool:
        ids = set(pool.map(run, range(40)))
    assert {job.id for job in jobs.list("default", limit=100).items} == ids
    assert {job.state for job in jobs.list("default", limit=100).items} == {"failed"}


def test_limits_hold_in_each_transaction_and_in_no_other(pooled: Database) -> None:
    with pooled.write() as session:
        assert session.scalar(text("SHOW lock_timeout")) == "5s"
        assert session.scalar(text("SHOW statement_timeout")) == "30s"
        session.execute(text("LOCK TABLE job"))
        with pytest.raises(DatabaseBusyError), pooled.write() as other:
            other.execute(text("LOCK TABLE job"))
