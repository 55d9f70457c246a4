"""Rows that a clock has left which was an hour ahead, and was set back."""

import pytest
from sqlalchemy import select, update

from models_store.clock_steps import mend_instants
from models_store.database.base import Base
from models_store.database.clock import db_now
from models_store.database.database import Database
from models_store.database.schema import JobRow, TurnRow, WorkerRow
from models_store.job_states import JobKind, NewJob
from models_store.jobs.jobs import Jobs
from models_store.jobs.leases import JobWork
from models_store.jobs.live_workers import LIVE_S, Workers
from tests.models_store.makers import CRASHED, LEASE_S

HOUR_S = 3600.0


def submit(jobs: Jobs, name: str, *, project: str = "p") -> str:
    new = NewJob(
        project=project,
        kind=JobKind.VARIATIONAL,
        model_name=name,
        dataset_id=None,
        request={},
    )
    return jobs.submit(new).job.id


def set_ahead(database: Database, *columns: str, table: type[Base], **where: str) -> None:
    conditions = [getattr(table, name) == value for name, value in where.items()]
    with database.write() as session:
        values = dict.fromkeys(columns, db_now(HOUR_S))
        session.connection().execute(update(table.__table__).where(*conditions).values(values))


def mended(database: Database) -> int:
    return mend_instants(database, lease_s=LEASE_S, live_s=LIVE_S)


def taken(work: JobWork) -> str | None:
    job = work.claim("w", lease_s=LEASE_S)
    return None if job is None else job.model_name


def test_a_project_does_not_wait_behind_all_jobs_of_others(database: Database) -> None:
    jobs, work = Jobs(database), JobWork(database)
    for number in range(2):
        submit(jobs, f"b{number}", project="b")
    submit(jobs, "a", project="a")
    with database.write() as session:
        for project, ahead_s in (("a", HOUR_S), ("b", -1.0)):
            session.add(TurnRow(project=project, taken_at=db_now(ahead_s)))
    set_ahead(database, "queued_at", table=JobRow, project="b")

    assert mended(database) == 2
    with database.read() as session:
        assert session.scalar(select(TurnRow).where(TurnRow.taken_at > db_now(1.0))) is None
    assert [taken(work) for _ in range(3)] == ["b0", "a", "b1"]
    assert mended(database) == 0


def test_a_job_is_tried_again_without_waiting_for_the_clock(database: Database) -> None:
    jobs, work = Jobs(database), JobWork(database)
    job_id = submit(jobs, "m")
    claimed = work.claim("w", lease_s=LEASE_S)
    assert claimed is not None
    work.release(job_id, claimed.attempt, failed=CRASHED)
    set_ahead(database, "not_before", table=JobRow)
    assert taken(work) is None

    assert mended(database) == 1
    assert work.claim("another", lease_s=LEASE_S) is not None


@pytest.mark.parametrize("alive", [True, False])
def test_the_job_of_a_worker_that_died_is_taken_over(database: Database, *, alive: bool) -> None:
    jobs, work, workers = Jobs(database), JobWork(database), Workers(database)
    submit(jobs, "m")
    workers.beat("w")
    assert taken(work) == "m"
    set_ahead(database, "lease_expires_at", table=JobRow)
    if not alive:
        set_ahead(database, "seen_at", table=WorkerRow)

    assert mended(database) == (0 if alive else 2)
    assert (taken(work) is None) == alive


def test_a_worker_that_died_does_not_count_as_alive(database: Database) -> None:
    Workers(database).beat("w")
    set_ahead(database, "seen_at", table=WorkerRow)
    assert mended(database) == 1
    with database.read() as session:
        assert session.scalar(select(WorkerRow).where(WorkerRow.seen_at > db_now(1.0))) is None


def test_right_instants_stay_as_they_are(database: Database) -> None:
    jobs, work = Jobs(database), JobWork(database)
    for name in ("m", "n"):
        submit(jobs, name)
    claimed = work.claim("w", lease_s=LEASE_S)
    assert claimed is not None
    work.release(claimed.id, claimed.attempt, failed=CRASHED)
    Workers(database).beat("w")
    assert taken(work) == "n"
    before = instants(database)

    assert mended(database) == 0
    assert instants(database) == before


def instants(database: Database) -> list[object]:
    columns = (JobRow.queued_at, JobRow.not_before, JobRow.lease_expires_at)
    with database.read() as session:
        found = session.execute(select(*columns).order_by(JobRow.position)).all()
        return [*found, *session.scalars(select(WorkerRow.seen_at))]
