"""Order in which workers take jobs: priority, projects in turn, age; and the workers that jobs suit."""

import pytest

from models_store.database.database import Database
from models_store.job_states import Accelerator, JobKind, NewJob
from models_store.jobs import rows
from models_store.jobs.jobs import Jobs
from models_store.jobs.leases import JobWork
from models_store.jobs.live_workers import Workers
from tests.models_store.makers import LEASE_S


def submit(
    jobs: Jobs,
    name: str,
    *,
    project: str = "p",
    priority: int = 0,
    accelerator: Accelerator = Accelerator.NONE,
) -> None:
    jobs.submit(
        NewJob(
            project=project,
            kind=JobKind.VARIATIONAL,
            model_name=name,
            dataset_id=None,
            request={},
            priority=priority,
            accelerator=accelerator,
        )
    )


def taken(work: JobWork, *, accelerator: bool | None = None) -> str | None:
    job = work.claim("w", lease_s=LEASE_S, accelerator=accelerator)
    return None if job is None else job.model_name


def test_priorities_come_first_then_projects_in_turn_then_age(database: Database) -> None:
    jobs, work = Jobs(database), JobWork(database)
    for name in ("a1", "a2", "a3"):
        submit(jobs, name, project="a")
    submit(jobs, "b1", project="b")
    submit(jobs, "low", project="c", priority=-1)
    submit(jobs, "high", project="a", priority=5)
    order = [taken(work) for _ in range(7)]
    assert order == ["high", "b1", "a1", "a2", "a3", "low", None]
    assert jobs.list("a", limit=1).items[0].priority == 5


def test_a_job_that_requires_an_accelerator_waits_for_one(database: Database) -> None:
    jobs, work = Jobs(database), JobWork(database)
    submit(jobs, "gpu", accelerator=Accelerator.REQUIRED)
    assert taken(work, accelerator=False) is None
    assert taken(work, accelerator=True) == "gpu"


@pytest.mark.parametrize(
    ("wanted", "better"), [(Accelerator.PREFERRED, True), (Accelerator.NONE, False)]
)
def test_a_job_waits_some_seconds_for_the_workers_that_suit_it(
    database: Database, wanted: Accelerator, better: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs, work, workers = Jobs(database), JobWork(database), Workers(database)
    submit(jobs, "first", accelerator=wanted)
    assert taken(work, accelerator=not better) == "first"  # no better worker is at work
    submit(jobs, "second", accelerator=wanted)
    workers.beat("better", accelerator=better)
    assert taken(work, accelerator=not better) is None
    monkeypatch.setattr(rows, "PREFERENCE_S", -1.0)
    assert taken(work, accelerator=not better) == "second"
    monkeypatch.undo()
    submit(jobs, "third", accelerator=wanted)
    workers.beat("better", accelerator=better, unfit="It has no store.")
    assert taken(work, accelerator=not better) == "third"
    submit(jobs, "fourth", accelerator=wanted)
    workers.beat("better", accelerator=better)
    assert taken(work, accelerator=better) == "fourth"


def test_a_job_of_an_older_version_has_the_usual_priority(database: Database) -> None:
    jobs, work = Jobs(database), JobWork(database)
    submit(jobs, "old")
    job = work.claim("w", lease_s=LEASE_S, accelerator=True)
    assert job is not None
    assert (job.priority, job.accelerator) == (0, Accelerator.NONE)
