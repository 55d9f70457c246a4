"""Back-ups, and copies of an installation into another, while things change."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sqlalchemy import select

from models_store.aliases import Aliases
from models_store.computed import Usage
from models_store.consistency import compare
from models_store.copies import CopyError, TargetNotEmptyError, back_up, copy, restore
from models_store.database.changes import Change, auditing
from models_store.database.database import Database
from models_store.database.ids import new_id
from models_store.database.schema import METADATA
from models_store.drift import count_ranks
from models_store.files.blobs import Blobs, part_key, parts_key, table_key
from models_store.files.job_files import ResultPart, save_list
from models_store.files.store_identity import adopt
from models_store.job_states import Checkpoint, Idempotency, JobKind
from models_store.jobs.figures import JobFigures
from models_store.jobs.jobs import Jobs
from models_store.jobs.leases import JobWork
from models_store.keys import Keys, Scope
from models_store.monitoring import Monitoring
from models_store.registry import Registry
from models_store.reviews import Reviews
from models_store.webhooks.webhooks import Webhooks
from tests.api.serving import registered
from tests.store.makers import (
    LEASE_S,
    PROJECT,
    a_job,
    checkpointed,
    claimed,
    put,
    stored_table,
    submitted,
)
from tests.support.bucket_servers import S3Server


def quiet(*_numbers: int) -> None:
    pass


def a_table(database: Database, blobs: Blobs) -> str:
    return stored_table(Registry(database), blobs).key.split("/")[1]


def halfway(database: Database, blobs: Blobs) -> str:
    """A running job with two checkpoints."""
    submitted(Jobs(database))
    job = claimed(JobWork(database))
    for epoch in (1, 2):
        checkpointed(JobWork(database), blobs, job, epoch)
    return job.id


@pytest.fixture(scope="module")
def s3_server() -> Iterator[S3Server]:
    server = S3Server()
    yield server
    server.close()


@pytest.fixture(params=["folder", pytest.param("s3", marks=pytest.mark.cluster)])
def blobs(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Blobs:
    """The store of the installation that is copied."""
    if request.param == "folder":
        return Blobs.in_folder(tmp_path / "blobs")
    server = request.getfixturevalue("s3_server")
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    store = Blobs(server.address(tmp_path / "cache", prefix=new_id("ds")))
    server.wait_ready(store)
    return store


@pytest.fixture
def target(tmp_path: Path, sqlite_template: Path) -> Iterator[Database]:
    """An empty installation's database."""
    shutil.copy(sqlite_template, tmp_path / "target.sqlite3")
    database = Database(f"sqlite:///{tmp_path / 'target.sqlite3'}")
    yield database
    database.dispose()


@pytest.fixture
def store(tmp_path: Path) -> Blobs:
    """Its store."""
    return Blobs.in_folder(tmp_path / "target")


def opened(folder: Path) -> tuple[Database, Blobs]:
    """The rows and the files of a back-up."""
    return Database(f"sqlite:///{folder / 'rows.sqlite3'}"), Blobs.in_folder(folder / "blobs")


def check_whole(database: Database, blobs: Blobs) -> None:
    found = compare(database, blobs, deep=True, grace_s=0)
    assert (found.unusable, found.orphans, found.foreign) == ([], [], [])


def contents(database: Database, blobs: Blobs) -> tuple[dict[str, list[Any]], dict[str, bytes]]:
    """All rows of an installation by table, and the bytes of all its files by key."""
    with database.read() as session:
        rows = {
            table.name: sorted(map(repr, session.execute(select(table)).all()))
            for table in METADATA.sorted_tables
            if table.name not in ("store", "worker")  # they tell of one installation alone
        }
    files = {file.key: b"".join(blobs.stream(file.key, 0, file.bytes)) for file in blobs.files()}
    return rows, files


def test_what_is_restored_is_what_was_backed_up_bit_for_bit(database, blobs, store, tmp_path):
    """From each database into the SQLite file of the back-up, and from there into each."""
    adopt(database, blobs)
    change = Change("default", None, "POST", "/v1/keys", "req-1")
    with auditing(change):
        token = Keys(database).create("other", Scope.ADMIN, rate=0.1, expires_days=2).token
        Usage(database).add_rows({PROJECT: 2**40})
    dataset_id = a_table(database, blobs)
    for number in range(2):
        registered(database, blobs, name=f"model-{number}")
    Aliases(database).set(PROJECT, "model-0", "live", version=1, reason="na\u00efve \U0001f600")
    Reviews(database).set(PROJECT, "model-0", "0" * 64, "confirmed")
    Webhooks(database).create(PROJECT, "https://example.org/", events=["job.cancelled"])
    Monitoring(database).add(PROJECT, "model-0", 1, count_ranks(np.array([0.001, 0.5])))
    key = Idempotency(key="k", fingerprint="f")
    job = (
        Jobs(database)
        .submit(
            a_job(dataset_id=dataset_id, description="Z\u00fcrich", tags={"a": "1"}),
            idempotency=key,
        )
        .job
    )
    Jobs(database).cancel(PROJECT, job.id)
    halfway(database, blobs)
    before = contents(database, blobs)
    assert {name for name, rows in before[0].items() if not rows} == set(), "each has a row"
    assert len(before[0]["audit"]) == 1, "of two transactions of a request"

    assert backed_up_at(database) is None
    back_up(database, blobs, tmp_path / "backup", tell=quiet)
    assert contents(*opened(tmp_path / "backup")) == before
    noted = backed_up_at(database)
    assert noted is not None
    assert abs(noted - database.now().timestamp()) < 600

    with database.write() as session:
        for table in reversed(METADATA.sorted_tables):
            session.execute(table.delete())
    restore(tmp_path / "backup", database, store, tell=quiet)
    assert contents(database, store) == before
    assert Keys(database).bearer(token) is not None


def test_a_checkpoint_that_is_gone_is_not_named_and_what_is_not_empty_is_refused(
    database: Database, blobs: Blobs, target: Database, store: Blobs, tmp_path: Path
) -> None:
    job_id = halfway(database, blobs)
    blobs.delete(f"jobs/{job_id}/1-1.safetensors")

    copied = back_up(database, blobs, tmp_path / "backup", tell=quiet)
    again = restore(tmp_path / "backup", target, store, tell=quiet)

    assert (copied.files, copied.unusable, again.files, again.unusable) == (1, [], 1, [])
    check_whole(target, store)
    kept = Jobs(target).get(PROJECT, job_id).checkpoints
    assert [at["key"].rpartition("-")[2] for at in kept] == ["2.safetensors"]
    assert store.identity() not in (None, blobs.identity())
    with pytest.raises(TargetNotEmptyError, match="rows in its table"):
        restore(tmp_path / "backup", target, store, tell=quiet)


def test_an_installation_moves_into_another_and_counts_on(database, blobs, target, store):
    """From SQLite and a folder to PostgreSQL and a bucket, and to what is the same."""
    a_table(target, store)
    registered(target, store, name="people")

    moved = copy(target, store, database, blobs, tell=quiet)

    assert (moved.files, moved.unusable) == (2, [])
    check_whole(database, blobs)
    a_table(database, blobs)
    registered(database, blobs, name="cars")
    assert len(Registry(database).datasets(PROJECT, limit=9).items) == 2
    check_whole(database, blobs)


def test_a_restore_that_was_broken_off_goes_on_and_a_store_with_other_files_is_refused(
    target: Database, store: Blobs, sqlite_url: str, tmp_path: Path
) -> None:
    dataset_id = a_table(target, store)
    back_up(target, store, tmp_path / "backup", tell=quiet)
    database, blobs = Database(sqlite_url), Blobs.in_folder(tmp_path / "blobs")
    put(blobs, table_key(dataset_id), b"the half of it")
    other = put(blobs, table_key("ds_other"))
    with pytest.raises(TargetNotEmptyError, match="ds_other"):
        restore(tmp_path / "backup", database, blobs, tell=quiet)
    blobs.delete(other.key)

    assert restore(tmp_path / "backup", database, blobs, tell=quiet).unusable == []

    check_whole(database, blobs)
    database.dispose()


@pytest.mark.usefixtures("sqlite_url")  # in the folder
def test_a_data_directory_that_nobody_runs_is_restored_as_it_is(target, store, tmp_path):
    laptop = Database(f"sqlite:///{tmp_path / 'densityd.sqlite3'}")
    a_table(laptop, Blobs.in_folder(tmp_path / "blobs"))
    laptop.dispose()

    assert restore(tmp_path, target, store, tell=quiet).files == 1
    check_whole(target, store)


def test_what_is_deleted_during_a_back_up_is_not_in_it(target, store, tmp_path):
    tables = [a_table(target, store) for _ in range(3)]
    late: list[str] = []

    class Meanwhile(Blobs):
        """Deletes a dataset while the files are copied, and one more after the rows were."""

        def size(self, key: str) -> int:
            if tables and table_key(tables[-1]) != key:
                gone = tables.pop()
                Registry(target).delete_dataset(PROJECT, gone)
                self.delete(table_key(gone))
            elif not late:
                late.append(a_table(target, store))
            return super().size(key)

    copied = back_up(target, Meanwhile.in_folder(store.root), tmp_path / "backup", tell=quiet)

    assert copied.unusable == []
    check_whole(*opened(tmp_path / "backup"))


def test_a_damaged_file_is_told_and_the_rest_is_copied(target, store, tmp_path):
    bad, good = a_table(target, store), a_table(target, store)
    store.path(table_key(bad)).write_bytes(b"flipped")

    copied = back_up(target, store, tmp_path / "backup", tell=quiet)

    assert [one.file.key for one in copied.unusable] == [table_key(bad)]
    kept = Blobs.in_folder(tmp_path / "backup" / "blobs")
    assert [file.key for file in kept.files()] == [table_key(good)]


def test_what_is_no_whole_back_up_is_refused(target, store, tmp_path):
    folder = tmp_path / "backup"
    back_up(target, store, folder, tell=quiet)
    (folder / "rows.sqlite3").write_bytes(b"no database")
    with pytest.raises(CopyError, match="cannot be read"):
        restore(folder, target, store, tell=quiet)
    (folder / "rows.sqlite3").unlink()
    with pytest.raises(CopyError, match="no whole back-up"):
        restore(folder, target, store, tell=quiet)


def test_a_folder_of_something_else_is_left_alone(target, store, tmp_path):
    adopt(target, store)
    a_table(target, store)
    (tmp_path / "live").mkdir()
    store.root.rename(tmp_path / "live" / "blobs")
    live = Blobs.in_folder(tmp_path / "live" / "blobs")
    with pytest.raises(CopyError, match="blobs, which is of no back-up"):
        back_up(target, live, tmp_path / "live", tell=quiet)
    check_whole(target, live)


def test_a_list_of_parts_of_which_one_is_gone_is_no_checkpoint(target, store, tmp_path):
    registered(target, store)
    job = submitted(Jobs(target), kind=JobKind.SCORING, model_name="people", model_version=1)
    work = JobWork(target)
    assert work.claim("tester", lease_s=LEASE_S) is not None
    parts = []
    for number in (1, 2):
        stored = put(store, part_key(job.id, 1, number=number), b"%d" % number)
        parts.append(ResultPart(key=stored.key, sha256=stored.sha256, rows=1))
        listed = save_list(store, parts_key(job.id, 1, number=number), parts)
        at = Checkpoint(key=listed.key, sha256=listed.sha256, epoch=number, step=number)
        work.record_epoch(
            job.id, 1, lease_s=LEASE_S, metrics={"part": number}, progress={}, checkpoint=at
        )
    store.delete(part_key(job.id, 1, number=2))

    back_up(target, store, tmp_path / "backup", tell=quiet)

    rows, files = opened(tmp_path / "backup")
    kept = Jobs(rows).get(PROJECT, job.id).checkpoints
    assert [at["epoch"] for at in kept] == [1]
    check_whole(rows, files)


def backed_up_at(database: Database) -> float | None:
    """End of the last back-up, as the metrics tell it."""
    figures = {figure.name: figure.values for figure in JobFigures(database).read()}
    return figures.get("backup_timestamp_seconds", {}).get(())
