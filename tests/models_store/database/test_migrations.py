"""The migrations make the tables that the code describes, on both databases."""

import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.command import check, downgrade
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from sqlalchemy import ColumnDefault, inspect, text

from models_store.database import revisions
from models_store.database.clock import db_now
from models_store.database.database import Database, migrate
from models_store.database.engines import migration_engine, parse_url, sqlite_file
from models_store.database.revisions import _scripts, head_revision, known_revisions, oldest_code
from models_store.database.schema import METADATA
from models_store.database.usage import EVENT_BYTES, json_bytes
from models_store.errors import (
    DatabaseBusyError,
    DatabaseUnavailableError,
    RevisionUnknownError,
    SchemaMismatchError,
)
from models_store.job_states import JobKind, JobRole, JobState, NewJob
from models_store.jobs.jobs import Jobs
from models_store.jobs.leases import JobWork
from tests.models_store.makers import a_job, a_version
from tests.models_store.searches import a_search
from tests.servers import PostgresServer

FIRST = "2026_11_26_accounts"
"""The last revision without `compatible_with`."""


@contextmanager
def at_revision(database: Database, revision: str, *, oldest: str) -> Iterator[None]:
    """Let the database say that it is at a revision, which code from `oldest` on may run on."""
    versions = "SELECT version_num, compatible_with FROM alembic_version"
    change = text("UPDATE alembic_version SET version_num = :revision, compatible_with = :oldest")
    with database.write() as session:
        before = session.execute(text(versions)).one()
        session.execute(change, {"revision": revision, "oldest": oldest})
    try:
        yield
    finally:
        with database.write() as session:
            session.execute(change, {"revision": before[0], "oldest": before[1]})


def new_job() -> NewJob:
    return NewJob(
        project="p", kind=JobKind.VARIATIONAL, model_name="m", dataset_id=None, request={}
    )


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The URL of a database without any tables."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'a 100% new.sqlite3'}"
        return
    server: PostgresServer = request.getfixturevalue("postgres_server")
    yield server.create("densityd_empty")
    server.drop("densityd_empty")


def test_tables_and_migrations_agree(database_url: str) -> None:
    engine = migration_engine(parse_url(database_url))
    with engine.connect() as connection:
        context = MigrationContext.configure(
            connection, opts={"compare_type": True, "compare_server_default": True}
        )
        assert compare_metadata(context, METADATA) == []
    engine.dispose()


def test_migrating_makes_the_schema_and_doing_it_again_nothing(empty_url: str) -> None:
    database = Database(empty_url)
    assert database.revision() is None
    migrate(empty_url)
    database.check_revision()
    with database.write() as session:
        session.execute(
            text(
                "INSERT INTO model (project, name, versions_made, latest_version, alias_revision,"
                " created_at) VALUES ('p', 'n', 0, 0, 0, '2026-01-01T00:00:00.000Z')"
            )
        )
    migrate(empty_url)
    with database.read() as session:
        assert session.scalar(text("SELECT count(*) FROM model")) == 1
    database.dispose()


@pytest.mark.long
def test_the_first_migration_goes_down_again(empty_url: str) -> None:
    migrate(empty_url)
    engine = migration_engine(parse_url(empty_url))
    config = Config()
    config.set_main_option("script_location", str(files("migrations")))
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        downgrade(config, "base")
        assert inspect(connection).get_table_names() == ["alembic_version"]
    engine.dispose()
    migrate(empty_url)


@pytest.mark.long
def test_processes_that_migrate_at_once_make_one_schema(empty_url: str, tmp_path: Path) -> None:
    program = "import sys; from models_store.database.database import migrate; migrate(sys.argv[1])"
    processes = [
        # Elsewhere, so that the scripts are found by their package and not by the folder.
        subprocess.Popen(  # noqa: S603 (our own program)
            [sys.executable, "-c", program, empty_url], stderr=subprocess.PIPE, cwd=tmp_path
        )
        for _ in range(2)
    ]
    errors = [process.communicate()[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], errors
    database = Database(empty_url)
    database.check_revision()
    database.dispose()


def test_a_migration_that_breaks_changes_nothing(empty_url: str) -> None:
    database = Database(empty_url)
    engine = migration_engine(parse_url(empty_url))
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE model_alias (id int)"))
    engine.dispose()
    with pytest.raises(Exception, match="model_alias"):
        migrate(empty_url)
    with database.read() as session:
        assert inspect(session.connection()).get_table_names() == ["model_alias"]
    database.dispose()


def test_a_newer_database_is_not_migrated(database: Database, database_url: str) -> None:
    with at_revision(database, "from_the_future", oldest="from_the_future"):
        with pytest.raises(SchemaMismatchError) as caught:
            migrate(database_url)
        assert (caught.value.found, caught.value.expected) == ("from_the_future", head_revision())


def test_code_runs_on_a_newer_database_that_it_fits(database: Database, database_url: str) -> None:
    with at_revision(database, "from_the_future", oldest=head_revision()):
        database.check_revision()
        database.check_schema()
        migrate(database_url)  # that of an older version, started late
        assert database.revision() == "from_the_future"
        with pytest.raises(SchemaMismatchError):
            migrate(database_url, to=head_revision())
    with database.write() as session:
        session.execute(text("UPDATE alembic_version SET version_num = :old"), {"old": FIRST})
    with pytest.raises(SchemaMismatchError, match=FIRST):
        database.check_revision()
    with database.write() as session:
        session.execute(
            text("UPDATE alembic_version SET version_num = :head"), {"head": head_revision()}
        )


def test_a_column_that_is_added_leaves_the_service_running(database: Database) -> None:
    with database.write() as session:
        session.execute(text("ALTER TABLE job ADD COLUMN of_the_future TEXT"))
    try:
        with at_revision(database, "from_the_future", oldest=head_revision()):
            database.check_revision()
            jobs, work = Jobs(database), JobWork(database)
            job = jobs.submit(new_job()).job
            claimed = work.claim("worker", lease_s=30)
            assert claimed is not None
            assert (claimed.id, claimed.state) == (job.id, JobState.RUNNING)
            work.fail(job.id, 1, code="diverged", detail="It ends.")
            assert jobs.get(job.project, job.id).state is JobState.FAILED
    finally:
        with database.write() as session:
            session.execute(text("ALTER TABLE job DROP COLUMN of_the_future"))


def test_a_database_goes_back_and_forth(empty_url: str) -> None:
    migrate(empty_url, to=FIRST)
    database = Database(empty_url)
    assert database.revision() == FIRST
    with pytest.raises(SchemaMismatchError, match=FIRST):
        database.check_schema()
    migrate(empty_url)
    with database.read() as session:
        oldest = session.scalar(text("SELECT compatible_with FROM alembic_version"))
    assert oldest == oldest_code(head_revision())
    migrate(empty_url, to=FIRST)
    assert database.revision() == FIRST
    with pytest.raises(RevisionUnknownError, match="from_the_future"):
        migrate(empty_url, to="from_the_future")
    database.dispose()


def test_what_aliases_changed_before_it_counted_is_counted_and_forgotten_again(
    empty_url: str,
) -> None:
    before = "2026_11_26_memory"
    migrate(empty_url, to=before)
    database = Database(empty_url)
    statements = """
        INSERT INTO model
            (id, project, name, versions_made, latest_version, alias_revision, created_at)
            VALUES (1, 'p', 'n', 0, 0, 0, '2026-01-01T00:00:00.000Z'),
                (2, 'q', 'n', 0, 0, 0, '2026-01-01T00:00:00.000Z');
        INSERT INTO alias_change (project, model_id, alias, version, reason, created_at)
            VALUES ('p', 1, 'a', 1, NULL, '2026-01-01T00:00:00.000Z'),
                ('p', 1, 'a', 2, 'because', '2026-01-01T00:00:00.000Z');
        INSERT INTO usage (project, bytes) VALUES ('p', 1000), ('q', 1)
    """
    with database.write() as session:
        for statement in statements.split(";"):
            session.execute(text(statement))
    migrate(empty_url)
    with database.write() as session:
        counted = session.execute(text("SELECT history_bytes FROM model ORDER BY id")).scalars()
        reasons = (None, "because")
        assert counted.all() == [sum(EVENT_BYTES + json_bytes(reason) for reason in reasons), 0]
        session.execute(text("UPDATE model SET charged_bytes = 600 WHERE id = 1"))
    migrate(empty_url, to=before)
    with database.read() as session:
        left = session.execute(text("SELECT project, bytes FROM usage ORDER BY project"))
        assert [tuple(row) for row in left] == [("p", 400), ("q", 1)]
    database.dispose()


def test_products_of_more_than_2_gib_and_of_any_characters_are_counted(
    empty_url: str,
) -> None:
    migrate(empty_url)
    database = Database(empty_url)
    jobs, work = Jobs(database), JobWork(database)
    jobs.submit(a_job(role=JobRole.PARENT, request=a_search(trials=3), reserved_bytes=10**10))
    child = work.claim("w", lease_s=30)
    assert child is not None
    types = [{"name": "cut", "levels": ["a\0b", 'the "checkpoint_bytes": 5 of it']}]
    target = {"constants": {"checkpoint_bytes": 5}}
    product = vars(a_version(child, checkpoint_bytes=3 * 2**30, types=types, target=target))
    work.finish_child(child.id, child.attempt, metrics={"epoch": 5}, product=product)
    counts = text("SELECT product_bytes FROM job ORDER BY position")
    with database.read() as session:
        counted = session.execute(counts).scalars().all()
    assert sum(one or 0 for one in counted) > 3 * 2**30
    migrate(empty_url, to="2026_11_28_labels")
    migrate(empty_url)
    with database.read() as session:
        assert session.execute(counts).scalars().all() == counted
    database.dispose()


def test_each_migration_says_which_code_may_run_on_it() -> None:
    scripts = known_revisions()
    later = list(_scripts().walk_revisions(base=FIRST, head="heads"))[:-1]
    assert later
    for script in later:
        assert getattr(script.module, "compatible_with", None) in scripts, script.revision


def test_a_migration_lets_others_pass_while_it_waits_for_a_table(
    empty_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if empty_url.startswith("sqlite"):
        pytest.skip("it has one lock, which a migration takes first")
    migrate(empty_url, to="2026_11_26_children")
    monkeypatch.setattr(revisions, "_LOCK_TIMEOUT_S", 0.05)
    monkeypatch.setattr(revisions, "_LOCK_PAUSE_S", 0.05)
    engine = migration_engine(parse_url(empty_url))
    with engine.begin() as holder:
        holder.execute(text("SELECT count(*) FROM api_key"))  # a read of long duration
        monkeypatch.setattr(revisions, "_LOCK_TRIES", 2)
        with pytest.raises(DatabaseBusyError):
            migrate(empty_url)
        with engine.begin() as other:
            other.execute(text("SET LOCAL lock_timeout = '1s'"))
            other.execute(text("SELECT count(*) FROM api_key"))
        monkeypatch.setattr(revisions, "_LOCK_TRIES", 100)
        waiting = threading.Thread(target=migrate, args=(empty_url,))
        waiting.start()
    waiting.join()
    engine.dispose()
    database = Database(empty_url)
    database.check_schema()
    database.dispose()


def test_another_migration_is_not_waited_for_without_an_end(
    empty_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    migrate(empty_url)
    monkeypatch.setattr(revisions, "_OTHER_MIGRATION_S", 0.2)
    with _other_migration(empty_url), ThreadPoolExecutor(1) as pool:
        second = pool.submit(migrate, empty_url)
        with pytest.raises(DatabaseUnavailableError, match="Another migration"):
            second.result(60)
    migrate(empty_url)


@contextmanager
def _other_migration(url: str) -> Iterator[None]:
    parsed = parse_url(url)
    file = sqlite_file(parsed)
    if file is not None:
        with revisions._only_process(file):
            yield
        return
    engine = migration_engine(parsed)
    with engine.begin() as connection:
        assert revisions._lock_server(connection)
        yield
    engine.dispose()


def test_a_folder_that_does_not_exist_is_told(tmp_path: Path) -> None:
    with pytest.raises(DatabaseUnavailableError, match="cannot be written"):
        migrate(f"sqlite:///{tmp_path / 'none' / 'densityd.sqlite3'}")


def test_alembics_own_command_checks_the_configured_database(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DENSITYD_DATABASE_URL", sqlite_url)
    config = Config()
    config.set_main_option("script_location", str(files("migrations")))
    check(config)


def test_a_missing_server_is_told_without_the_password(tmp_path: Path) -> None:
    with pytest.raises(DatabaseUnavailableError) as caught:
        migrate(f"postgresql://user:secret@/name?host={tmp_path}")
    assert "secret" not in str(caught.value)


def test_times_default_to_the_databases_clock() -> None:
    defaults = {
        f"{table.name}.{column.name}": column.default
        for table in METADATA.tables.values()
        for column in table.columns
        if column.name in ("created_at", "queued_at", "updated_at")
    }
    assert defaults
    for name, default in defaults.items():
        assert isinstance(default, ColumnDefault), name
        assert isinstance(default.arg, db_now), name
