"""Deletion of what is of no more use: old jobs, their files, and staged files."""

import os
import time
from pathlib import Path

import pytest

from models_store.consistency import compare
from models_store.database.database import Database, migrate
from models_store.files.blobs import Blobs, checkpoint_key, result_key
from models_store.jobs.jobs import Jobs
from tests.api.serving import registered
from tests.store.makers import submitted
from workers.leftovers import sweep


@pytest.fixture
def database(tmp_path: Path) -> Database:
    url = f"sqlite:///{tmp_path / 'densityd.sqlite3'}"
    migrate(url)
    return Database(url)


def test_old_jobs_are_deleted_with_their_files(tmp_path: Path, database: Database) -> None:
    blobs, jobs = Blobs.in_folder(tmp_path / "blobs"), Jobs(database)
    version = registered(database, blobs)
    old, waiting = submitted(jobs), submitted(jobs)
    for job in (old, waiting):
        for key in (checkpoint_key(job.id, 1, number=1), result_key(job.id, 1, suffix="npy")):
            with blobs.staged(".x") as path:
                path.write_bytes(b"x")
                blobs.commit(path, key)
    jobs.cancel("default", old.id)
    for keep_jobs_s in (None, 3600):
        sweep(database, blobs, keep_s=3600, keep_jobs_s=keep_jobs_s)
        assert len(jobs.list("default", limit=9).items) == 3
    sweep(database, blobs, keep_s=3600, keep_jobs_s=0)
    assert {job.id for job in jobs.list("default", limit=9).items} == {version.job_id, waiting.id}
    assert not any(blobs.keys(f"{folder}/{old.id}") for folder in ("jobs", "results"))
    assert len(blobs.keys(f"jobs/{waiting.id}")) == 1
    found = compare(database, blobs, deep=True, grace_s=0)
    assert (found.orphans, found.unusable) == ([], [])
    database.dispose()


def test_staged_files_are_swept_while_the_worker_runs(tmp_path: Path, database: Database) -> None:
    blobs = Blobs.in_folder(tmp_path / "blobs")
    with blobs.staged() as old, blobs.staged() as fresh:
        past = time.time() - 24 * 3600
        os.utime(old, (past, past))
        sweep(database, blobs, keep_s=0)
        assert not old.exists()
        assert fresh.exists()
    database.dispose()


def test_a_sweep_tells_whether_more_jobs_are_due(
    tmp_path: Path, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = Jobs(database)
    for _ in range(3):
        jobs.cancel("default", submitted(jobs).id)
    monkeypatch.setattr("workers.leftovers._MOST_JOBS", 2)
    blobs = Blobs.in_folder(tmp_path / "blobs")
    assert [sweep(database, blobs, keep_s=3600, keep_jobs_s=0) for _ in range(2)] == [True, False]
    assert jobs.list("default", limit=9).items == []
    database.dispose()
