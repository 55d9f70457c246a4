"""The migrations make the tables that the code describes, on both databases."""

import subprocess
import sys
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.command import check, downgrade
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from sqlalchemy import ColumnDefault, inspect, text

from models_store.database.clock import db_now
from models_store.database.database import Database, migrate
from models_store.database.engines import migration_engine, parse_url
from models_store.database.revisions import head_revision
from models_store.database.schema import Base
from models_store.errors import DatabaseUnavailableError, SchemaMismatchError
from tests.servers import PostgresServer


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
        assert compare_metadata(context, Base.metadata) == []
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


@pytest.mark.fault(115)
def test_fault_115_processes_that_migrate_at_once_make_one_schema(
    empty_url: str, tmp_path: Path
) -> None:
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


@pytest.mark.fault(154)
def test_fault_154_a_newer_database_is_not_migrated(database: Database, database_url: str) -> None:
    with database.write() as session:
        session.execute(text("UPDATE alembic_version SET version_num = 'from_the_future'"))
    with pytest.raises(SchemaMismatchError) as caught:
        migrate(database_url)
    assert (caught.value.found, caught.value.expected) == ("from_the_future", head_revision())
    with database.write() as session:
        session.execute(
            text("UPDATE alembic_version SET version_num = :head"), {"head": head_revision()}
        )


@pytest.mark.fault(134)
def test_fault_134_a_folder_that_does_not_exist_is_told(tmp_path: Path) -> None:
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
        for table in Base.metadata.tables.values()
        for column in table.columns
        if column.name in ("created_at", "queued_at", "updated_at")
    }
    assert defaults
    for name, default in defaults.items():
        assert isinstance(default, ColumnDefault), name
        assert isinstance(default.arg, db_now), name
