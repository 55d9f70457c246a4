"""The migrations make the tables that the code describes, and keep what earlier releases stored."""

import gzip
import sqlite3
import subprocess
import sys
import tarfile
from collections.abc import Iterator, Sequence
from contextlib import closing
from importlib.resources import files
from pathlib import Path

import psycopg
import pytest
from alembic.autogenerate import compare_metadata
from alembic.command import check
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from sqlalchemy import inspect, select, text

from models_store.aliases import Aliases
from models_store.database.database import Database, migrate
from models_store.database.engines import migration_engine, parse_url
from models_store.database.schema import METADATA, DatasetRow, JobDatasetRow, JobRow, ProjectRow
from models_store.errors import DatabaseUnavailableError, SchemaMismatchError
from models_store.files.blobs import Blobs, StoredBlob, checkpoint_key
from models_store.files.store_identity import known_identity
from models_store.job_states import EventKind, JobKind, JobRole, JobState, JobSummary, NewJob
from models_store.jobs.jobs import Jobs
from models_store.jobs.leases import JobWork
from models_store.keys import Keys
from models_store.listing import Filters
from models_store.registry import Registry
from models_store.webhooks.webhooks import Webhooks
from tests.store.makers import PROJECT
from tests.support.servers import PostgresServer
from workers.settings import WorkerSettings
from workers.supervisor.supervisor import Supervisor

RELEASES = Path(__file__).parent / "releases"
NEWER = "9999_01_01_from_the_future"
# Epochs of the checkpoints of releases, and epochs after which the jobs shall end.
EPOCHS = {"aa3b20d": (114, 4), "86fd3a7": (303, 365)}
OF_ANOTHER_VERSION = "is of another version of the service"


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
    check_agreement(database_url)


def check_agreement(url: str) -> None:
    engine = migration_engine(parse_url(url))
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
                " created_at, tags) VALUES ('p', 'n', 0, 0, 0, '2026-01-01T00:00:00.000Z', '{}')"
            )
        )
    migrate(empty_url)
    with database.read() as session:
        assert session.scalar(text("SELECT count(*) FROM model")) == 1
    database.dispose()


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


def _set_revision(database: Database, revision: str) -> None:
    with database.write() as session:
        session.execute(text("UPDATE alembic_version SET version_num = :it"), {"it": revision})


def test_code_runs_on_a_newer_database(empty_url: str) -> None:
    migrate(empty_url)
    database = Database(empty_url)
    with database.write() as session:
        session.execute(text("ALTER TABLE job ADD COLUMN of_the_future TEXT"))
    _set_revision(database, NEWER)
    database.check_revision()
    migrate(empty_url)  # that of an older version, started late
    assert database.revision() == NEWER
    jobs, work = Jobs(database), JobWork(database)
    job = jobs.submit(new_job()).job
    claimed = work.claim("worker", lease_s=30)
    assert claimed is not None
    work.fail(job.id, 1, code="diverged", detail="It ends.")
    assert jobs.get(job.project, job.id).state is JobState.FAILED
    database.dispose()


def test_a_database_of_a_development_version_is_left_alone(empty_url: str) -> None:
    migrate(empty_url)
    database = Database(empty_url)
    _set_revision(database, "2026_11_26_cells")
    with pytest.raises(SchemaMismatchError, match="with the version that made it"):
        migrate(empty_url)
    with pytest.raises(SchemaMismatchError, match="2026_11_26_cells"):
        database.check_revision()
    database.dispose()


def test_a_folder_that_does_not_exist_is_told(tmp_path: Path) -> None:
    with pytest.raises(DatabaseUnavailableError, match="cannot be written"):
        migrate(f"sqlite:///{tmp_path / 'none' / 'densityd.sqlite3'}")


def test_alembics_own_command_checks_the_configured_database(sqlite_url, monkeypatch):
    monkeypatch.setenv("DENSITYD_DATABASE_URL", sqlite_url)
    config = Config()
    config.set_main_option("script_location", str(files("migrations")))
    check(config)


@pytest.mark.parametrize("release", ["aa3b20d", "86fd3a7"])
def test_what_an_earlier_release_stored_is_kept(empty_url: str, release: str) -> None:
    restore(empty_url, release)
    database = Database(empty_url)
    with database.read() as session:
        before = {row.id: row.state for row in session.execute(text("SELECT id, state FROM job"))}
    migrate(empty_url)
    database.check_revision()
    check_agreement(empty_url)
    jobs, registry = Jobs(database), Registry(database)
    page = jobs.list(PROJECT, limit=100)
    for job in page.items:
        assert jobs.get(PROJECT, job.id).request
        assert before[job.id] == job.state
        assert [one.seq for one in jobs.events(PROJECT, job.id)][-1] == job.last_event
    for model in registry.models(PROJECT, limit=100).items:
        version = registry.version(PROJECT, model.name, model.latest_version)
        assert len(version.columns) == version.dim
    if release == "86fd3a7":
        check_what_was_kept(database, registry, page.items)
    database.dispose()


def check_what_was_kept(database: Database, registry: Registry, jobs: Sequence[JobSummary]) -> None:
    tagged = Filters(tags=(("team", "space"),))
    listed = registry.datasets(PROJECT, limit=9, filters=tagged).items
    assert [one.name for one in listed] == ["shuttle"]
    assert [one.name for one in registry.models(PROJECT, limit=9, filters=tagged).items] == ["maf"]
    assert registry.model(PROJECT, "penguins").aliases == {"production": 1}
    history = Aliases(database).changes(PROJECT, "penguins", limit=9).items
    assert [(one.version, one.reason) for one in history] == [(1, "back"), (2, None), (1, "first")]
    assert {key.state for key in Keys(database).list()} == {"usable", "revoked"}
    with database.read() as session:
        for row in session.scalars(select(DatasetRow)):
            assert row.stored_bytes == row.bytes + (0 if row.cells is None else row.cells["bytes"])
        turn = select(ProjectRow.turn_at).where(ProjectRow.name == PROJECT)
        assert session.scalar(turn) is not None
    [webhook] = Webhooks(database).list(PROJECT)
    assert webhook.description == "nobody listens"
    assert {job.state for job in jobs} == {*JobState}
    parents = [job for job in jobs if job.role is JobRole.PARENT]
    assert {job.state for job in parents} == {JobState.SUCCEEDED, JobState.QUEUED}
    [done] = [job for job in parents if job.state is JobState.SUCCEEDED]
    assert len(Jobs(database).list(PROJECT, limit=9, parent_id=done.id).items) > 2


def test_a_job_whose_dataset_had_got_other_types_is_still_not_resumed(empty_url: str) -> None:
    restore(empty_url, "86fd3a7")
    database = Database(empty_url)
    with database.write() as session:
        session.execute(
            text(
                "UPDATE job_dataset SET dataset_id = 'datasets/' || dataset_id || '/table.npy'"
                " WHERE job_id IN (SELECT id FROM job WHERE state = 'cancelled')"
            )
        )
    migrate(empty_url)
    with database.read() as session:
        states = select(JobRow.state).join(JobDatasetRow, JobDatasetRow.job_id == JobRow.id)
        assert session.scalars(states.where(JobDatasetRow.retyped)).all() == ["cancelled"]
        known = session.scalars(select(DatasetRow.id)).all()
        assert set(session.scalars(select(JobDatasetRow.dataset_id))) <= set(known)
    database.dispose()


@pytest.fixture
def half_done(
    request: pytest.FixtureRequest, empty_url: str, tmp_path: Path
) -> Iterator[tuple[str, Database, Supervisor]]:
    """A job that a release was killed in the middle of: its id; today's worker beside it."""
    release = request.param
    epoch, last = EPOCHS[release]
    restore(empty_url, release)
    migrate(empty_url)
    database = Database(empty_url)
    settings = WorkerSettings(data_dir=tmp_path, database_url=empty_url, checkpoint_interval_s=0)
    with database.write() as session:
        unfinished = session.scalars(select(JobRow).where(JobRow.state.in_(("queued", "running"))))
        half = next(row for row in unfinished if row.checkpoints)
        stored = files_of(release, tmp_path, database, Blobs(settings.store_address), half)
        at = {"key": stored.key, "sha256": stored.sha256, "epoch": epoch, "step": 1}
        half.checkpoints = [at]
        optimisation = {**half.request["optimisation"], "max_epochs": last}
        half.request = {**half.request, "optimisation": optimisation}
        for other in session.scalars(select(JobRow).where(JobRow.state == "queued")):
            other.state = other.state if other is half else "cancelled"
    yield half.id, database, Supervisor(database, settings, worker="today's")
    database.dispose()


@pytest.mark.parametrize("half_done", ["86fd3a7"], indirect=True)
def test_a_job_that_was_half_done_goes_on_from_its_checkpoint(half_done):
    job_id, database, worker = half_done
    texts, epochs = end(worker, database, job_id)
    assert "from its last checkpoint" in texts[0]
    assert not any(OF_ANOTHER_VERSION in one for one in texts)
    assert epochs == sorted(set(epochs)), "none is told twice"
    assert epochs[-1] == EPOCHS["86fd3a7"][1]


@pytest.mark.parametrize("half_done", ["aa3b20d"], indirect=True)
def test_a_job_whose_checkpoint_cannot_be_resumed_begins_anew_and_says_so(half_done):
    job_id, database, worker = half_done
    with database.write() as session:  # a release that drew other numbers from the same request
        job = session.scalars(select(JobRow).where(JobRow.id == job_id)).one()
        options = job.request["optimisation"]
        job.request = {**job.request, "optimisation": {**options, "seed": options["seed"] + 1}}
    texts, _ = end(worker, database, job_id)
    assert any(f"epoch {EPOCHS['aa3b20d'][0]} {OF_ANOTHER_VERSION}" in one for one in texts)


def end(worker: Supervisor, database: Database, job_id: str) -> tuple[list[str], list[int]]:
    """Let a worker end a job; return the messages of its events, and the epochs that these tell."""
    while worker.run_next():
        pass
    jobs = Jobs(database)
    job = jobs.get(PROJECT, job_id)
    assert (job.state, job.model_version) == (JobState.SUCCEEDED, 1)
    events = jobs.events(PROJECT, job_id)
    epochs = [one.data["epoch"] for one in events if one.event is EventKind.EPOCH]
    return [one.data["text"] for one in events if one.event is EventKind.MESSAGE], epochs


def files_of(
    release: str, folder: Path, database: Database, blobs: Blobs, half: JobRow
) -> StoredBlob:
    """Store the checkpoint and the table of a job of a release; return the checkpoint."""
    if (identity := known_identity(database)) is not None:
        blobs.mark(identity)
    with tarfile.open(RELEASES / f"{release}.files.tar.gz") as archive:
        archive.extractall(folder, filter="data")
    key = checkpoint_key(half.id, half.attempt, number=99)
    stored = {}
    for name, at in (
        ("table.npy", f"datasets/{half.dataset_id}/table.npy"),
        ("checkpoint.safetensors", key),
    ):
        with blobs.staged() as path:
            path.write_bytes((folder / name).read_bytes())
            stored[at] = blobs.commit(path, at)
    return stored[key]


def restore(url: str, release: str) -> None:
    """Run the dump of the database of a release, as `pg_dump` and SQLite's `.dump` write it."""
    parsed = parse_url(url)
    kind = parsed.get_backend_name()
    dump = gzip.decompress((RELEASES / f"{release}.{kind}.sql.gz").read_bytes()).decode()
    if kind == "sqlite":
        with closing(sqlite3.connect(str(parsed.database))) as connection:
            connection.executescript(dump)
            connection.execute("PRAGMA journal_mode=WAL")
        return
    host = str(parsed.query["host"])
    with psycopg.connect(host=host, user="postgres", dbname=parsed.database) as server:
        server.execute(dump.encode())
