"""Transactions, their errors and the database's clock."""

import os
import sqlite3
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from sqlalchemy import func, select, text, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from models_store.database.clock import db_now
from models_store.database.database import Database, migrate
from models_store.database.engines import parse_url
from models_store.database.schema import DatasetRow
from models_store.errors import (
    DatabaseBusyError,
    DatabaseUnavailableError,
    SchemaMismatchError,
    StorageFullError,
)
from models_store.registry import Registry
from tests.store.makers import PROJECT, a_dataset, added
from tests.support.servers import PostgresServer


@pytest.fixture
def sqlite(sqlite_url: str) -> Iterator[Database]:
    database = Database(sqlite_url, busy_timeout_s=0.3)
    yield database
    database.dispose()


@pytest.fixture
def postgres(postgres_url: str) -> Iterator[Database]:
    database = Database(postgres_url, busy_timeout_s=0.3, pool_size=1)
    yield database
    database.dispose()


@pytest.fixture(scope="module")
def own_postgres() -> Iterator[PostgresServer]:
    """A server that a test may stop and kill."""
    server = PostgresServer()
    migrate(server.create("densityd"))
    yield server
    server.close()


def test_a_transaction_commits_whole_or_not_at_all(database: Database, registry: Registry) -> None:
    dataset = added(registry)

    def rename(session: Session) -> None:
        session.execute(update(DatasetRow).values(name="other"))
        raise KeyError

    with pytest.raises(KeyError):
        database.transact(rename)
    assert registry.dataset(PROJECT, dataset.id).name == "shuttle"


def test_foreign_keys_hold_on_both_databases(database: Database) -> None:
    with pytest.raises(IntegrityError), database.write() as session:
        session.execute(
            text("INSERT INTO job_dataset (job_id, dataset_id, project) VALUES ('no', 'no', 'p')")
        )


def test_instants_are_utc_and_sort_by_time(database: Database, registry: Registry) -> None:
    dataset = added(registry)
    moment = datetime(2026, 1, 2, 3, 4, 5, 678_000, timezone(timedelta(hours=5)))
    with database.write() as session:
        session.execute(update(DatasetRow).values(created_at=moment))
    stored = registry.dataset(PROJECT, dataset.id).created_at
    assert stored == moment
    assert stored.utcoffset() == timedelta(0)
    with database.read() as session:
        earlier = DatasetRow.created_at < moment + timedelta(milliseconds=1)
        later = DatasetRow.created_at > moment - timedelta(milliseconds=1)
        assert session.scalar(select(func.count()).where(earlier, later)) == 1


def test_the_clock_is_the_databases(database: Database) -> None:
    with database.read() as session:
        now = session.scalar(select(db_now()))
        shifted = session.scalar(select(db_now(3600.25)))
        back = session.scalar(select(db_now(-86400)))
    assert now is not None
    assert shifted is not None
    assert back is not None
    assert abs(now - datetime.now(UTC)) < timedelta(minutes=10)
    slow = timedelta(minutes=10)  # from one statement to the next, on a busy machine
    assert timedelta(0) <= shifted - now - timedelta(seconds=3600.25) < slow
    assert timedelta(0) <= back - now + timedelta(days=1) < slow


def test_a_read_sees_one_moment(database: Database, registry: Registry) -> None:
    count = select(func.count()).select_from(DatasetRow)
    added(registry)
    with database.read() as session:
        before = session.scalar(count)
        added(registry)
        assert session.scalar(count) == before


def test_a_read_cannot_write_to_postgresql(postgres: Database) -> None:
    with pytest.raises(DatabaseUnavailableError), postgres.read() as session:
        session.execute(update(DatasetRow).values(name="other"))


def test_a_standby_is_a_database_that_takes_no_writes(postgres):
    # A standby refuses BEGIN READ WRITE with this code; it allows no such transaction at all.
    standby = text("DO $$ BEGIN RAISE EXCEPTION 'recovery' USING ERRCODE = '0A000'; END $$")
    with pytest.raises(DatabaseUnavailableError, match="standby"), postgres.write() as session:
        session.execute(standby)
    with pytest.raises(DatabaseUnavailableError, match="standby"), postgres.read() as session:
        session.execute(update(DatasetRow).values(name="other"))


def test_a_writer_waits_for_another_only_so_long(sqlite: Database, sqlite_url: str) -> None:
    registry = Registry(sqlite)
    dataset = added(registry)
    with sqlite3.connect(parse_url(sqlite_url).database or "") as other:
        other.execute("BEGIN IMMEDIATE")
        began = time.monotonic()
        with pytest.raises(DatabaseBusyError):
            added(registry)
        assert 0.2 < time.monotonic() - began < 60
        # Readers wait for nobody.
        assert registry.dataset(PROJECT, dataset.id) == dataset
        other.rollback()
    added(registry)
    other.close()


def test_a_lock_on_postgresql_is_waited_for_only_so_long(postgres, postgres_url):
    dataset = added(Registry(postgres))
    other = Database(postgres_url)
    with other.write() as session:
        session.execute(update(DatasetRow).values(name="held"))
        with pytest.raises(DatabaseBusyError):
            Registry(postgres).delete_dataset(PROJECT, dataset.id)
    other.dispose()
    Registry(postgres).delete_dataset(PROJECT, dataset.id)


def test_a_file_that_is_no_database_is_named_and_kept(tmp_path: Path) -> None:
    bytes_ = b"SQLite format 3\0" + b"x" * 5000
    file = tmp_path / "broken.sqlite3"
    file.write_bytes(bytes_)
    database = Database(f"sqlite:///{file}")
    for use in (database.check_revision, lambda: migrate(f"sqlite:///{file}")):
        with pytest.raises(DatabaseUnavailableError, match=r"broken\.sqlite3"):
            use()
    database.dispose()
    assert file.read_bytes() == bytes_


def test_a_truncated_database_is_named(sqlite_url: str) -> None:
    file = Path(parse_url(sqlite_url).database or "")
    database = Database(sqlite_url)
    for _ in range(50):
        added(Registry(database))
    database.dispose()
    os.truncate(file, file.stat().st_size // 2)
    with pytest.raises(DatabaseUnavailableError, match=r"densityd\.sqlite3"):
        database.check_revision()
    database.dispose()


def test_an_emptied_database_is_not_made_anew(tmp_path: Path) -> None:
    file = tmp_path / "emptied.sqlite3"
    file.touch()
    with pytest.raises(DatabaseUnavailableError, match=r"empty.*emptied\.sqlite3"):
        migrate(f"sqlite:///{file}")
    assert file.stat().st_size == 0


def test_a_full_disk_is_told_and_what_was_stored_stays(sqlite: Database) -> None:
    registry = Registry(sqlite)
    dataset = added(registry)
    rows = [vars(a_dataset(name="x" * 9000)) for _ in range(20)]

    def fill(session: Session) -> None:
        session.execute(text("PRAGMA max_page_count=1"))
        session.add_all([DatasetRow(**row, width=2, stored_bytes=152) for row in rows])

    with pytest.raises(StorageFullError):
        sqlite.transact(fill)
    sqlite.dispose()
    assert [found.id for found in registry.datasets(PROJECT, limit=9).items] == [dataset.id]


def test_a_database_that_became_read_only_still_reads(sqlite: Database) -> None:
    registry = Registry(sqlite)
    dataset = added(registry)

    def rename(session: Session) -> None:
        session.execute(text("PRAGMA query_only=ON"))
        session.execute(update(DatasetRow).values(name="other"))

    with pytest.raises(DatabaseUnavailableError):
        sqlite.transact(rename)
    assert registry.dataset(PROJECT, dataset.id) == dataset


def test_postgresql_that_is_down_is_unavailable_and_comes_back(own_postgres):
    database = Database(own_postgres.url("densityd"))
    registry = Registry(database)
    dataset = added(registry)
    own_postgres.stop()
    with pytest.raises(DatabaseUnavailableError):
        registry.dataset(PROJECT, dataset.id)
    with pytest.raises(DatabaseUnavailableError):
        added(registry)
    fresh = Database(own_postgres.url("densityd"))
    with pytest.raises(DatabaseUnavailableError, match="densityd"):
        fresh.check_revision()
    fresh.dispose()
    own_postgres.start()
    began = time.monotonic()
    assert registry.dataset(PROJECT, dataset.id) == dataset
    added(registry)
    assert time.monotonic() - began < 60
    database.dispose()


@pytest.mark.parametrize(
    ("user", "name", "words"),
    [
        ("guarded:wrong-s3cret", "densityd", "password authentication failed"),
        ("postgres", "elsewhere", 'database "elsewhere" does not exist'),
    ],
)
def test_why_a_server_refuses_a_connection_is_told_without_the_password(
    postgres_server, user, name, words
):
    postgres_server.execute("CREATE ROLE guarded LOGIN PASSWORD 'right'")
    database = Database(f"postgresql://{user}@/{name}?host={postgres_server.folder}")
    try:
        with pytest.raises(DatabaseUnavailableError, match=words) as refused:
            database.check_revision()
    finally:
        database.dispose()
        postgres_server.execute("DROP ROLE guarded")
    assert "s3cret" not in str(refused.value)


@pytest.mark.parametrize("use", [lambda url: Database(url).check_revision(), migrate])
def test_a_password_among_the_parameters_of_the_url_is_not_shown(use):
    secrets = "password=s3cret&sslpassword=s3cret-too"
    with pytest.raises(DatabaseUnavailableError, match="densityd@/here") as refused:
        use(f"postgresql://densityd@/here?host=/nowhere&{secrets}")
    assert "s3cret" not in str(refused.value)


def test_a_deadlock_is_run_again(postgres_url: str) -> None:
    database = Database(postgres_url)
    registry = Registry(database)
    ids = [added(registry).id for _ in range(2)]
    barrier = threading.Barrier(2)
    runs: list[str] = []

    def cross(session: Session, first: str, second: str) -> None:
        runs.append(first)
        for dataset_id in (first, second):
            session.execute(
                update(DatasetRow).where(DatasetRow.id == dataset_id).values(name=first)
            )
            if len(runs) <= 2 and dataset_id == first:
                barrier.wait()

    threads = [
        threading.Thread(target=database.transact, args=(cross, *pair)) for pair in (ids, ids[::-1])
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(runs) == 3
    database.dispose()


def test_a_collision_that_does_not_end_is_busy_after_three_more_tries(postgres: Database) -> None:
    runs: list[int] = []

    def collide(session: Session) -> None:
        runs.append(1)
        session.execute(text("DO $$ BEGIN RAISE EXCEPTION 'x' USING ERRCODE = '40001'; END $$"))

    with pytest.raises(DatabaseBusyError):
        postgres.transact(collide)
    assert len(runs) == 4


def test_a_database_of_another_kind_is_refused() -> None:
    for url in ("sqlite://", "sqlite:///:memory:", "mysql://host/name"):
        with pytest.raises(ValueError, match="postgresql://"):
            Database(url)
    with pytest.raises(ValueError, match="has no options"):
        Database("sqlite:////a/b.sqlite3?mode=ro")


def test_a_database_of_an_older_version_is_refused_with_both_revisions(database: Database) -> None:
    expected = database.revision()
    change = text("UPDATE alembic_version SET version_num = :revision")
    with database.write() as session:
        session.execute(change, {"revision": "2026_11_24_keys"})
    try:
        with pytest.raises(SchemaMismatchError, match="2026_11_24_keys") as caught:
            database.check_revision()
        assert str(expected) in str(caught.value)
    finally:
        with database.write() as session:
            session.execute(change, {"revision": expected})
