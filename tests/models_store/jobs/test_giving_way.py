"""Running jobs that give way to those of other projects, and jobs whose worker is gone."""

from functools import partial

import pytest
from sqlalchemy import text

from models_store.database.database import Database
from models_store.job_states import Accelerator, Job, JobKind, JobRole, JobState, NewJob
from models_store.jobs.jobs import Jobs
from models_store.jobs.leases import JobWork
from tests.models_store.jobs.test_queues import set_turn, submit
from tests.models_store.makers import LEASE_S


def let_wait(database: Database) -> None:
    """Let the time pass that a job waits for until a running one gives way to it."""
    with database.write() as session:
        long_ago = {"at": "2026-01-01T00:00:00.000Z"}
        session.execute(text("UPDATE job SET queued_at = :at WHERE state = 'queued'"), long_ago)


def claimed(work: JobWork) -> Job:
    job = work.claim("w", lease_s=LEASE_S)
    assert job is not None
    return job


def test_a_running_job_gives_way_to_the_project_whose_turn_it_is(
    database: Database,
) -> None:
    jobs, work = Jobs(database), JobWork(database)
    give_way = partial(work.should_give_way, accelerator=False)
    for name in ("a1", "a2", "a3"):
        submit(jobs, name, project="a", priority=100)
    first, second = (work.claim("w", lease_s=LEASE_S) for _ in range(2))
    assert first is not None
    assert second is not None
    let_wait(database)
    assert not give_way(first), "its own project alone waits"
    submit(jobs, "gpu", project="b", accelerator=Accelerator.REQUIRED)
    submit(jobs, "large", project="b", memory_bytes=2**30)
    let_wait(database)
    assert not give_way(first, memory_bytes=2**29), "nothing for this worker"
    submit(jobs, "b1", project="b")
    assert not give_way(first, memory_bytes=2**29), "an idle worker may take it"
    let_wait(database)
    assert give_way(first, memory_bytes=2**29)

    work.release(first.id, first.attempt, gives_way=True)
    other = work.claim("w", lease_s=LEASE_S, accelerator=False, memory_bytes=2**29)
    assert other is not None
    assert other.model_name == "b1"
    assert not give_way(second), "both projects run one job"
    again = jobs.get("a", first.id)
    assert (again.state, again.not_before) == ("queued", None)
    assert "another project" in jobs.events("a", first.id)[-2].data["text"]


def test_the_only_place_of_a_worker_goes_round(database: Database) -> None:
    jobs, work = Jobs(database), JobWork(database)
    submit(jobs, "a1", project="a")
    submit(jobs, "b1", project="b")
    let_wait(database)
    order = []
    for number in range(4):
        job = work.claim("w", lease_s=LEASE_S)
        assert job is not None
        order.append(job.project)
        set_turn(database, job.project, number)
        assert work.should_give_way(job)
        work.release(job.id, job.attempt, gives_way=True)
    assert order == ["a", "b", "a", "b"]


def test_a_job_gives_way_to_a_search_whose_first_step_nobody_took(
    database: Database,
) -> None:
    """Check that a look for work takes the steps of parents, which nobody else does then."""
    jobs, work = Jobs(database), JobWork(database)
    submit(jobs, "a1", project="a")
    job = work.claim("w", lease_s=LEASE_S)
    assert job is not None
    search = {
        "trials": [{"flow": {"family": "maf"}, "optimisation": {"max_epochs": 1, "patience": 1}}],
        "stages": [{"trials": 1, "share": 1}],
        "ensemble": 1,
        "max_seconds": None,
        "mixed": None,
    }
    new = NewJob(
        project="b",
        kind=JobKind.TRAINING,
        model_name="search",
        dataset_id=None,
        request=search,
        role=JobRole.PARENT,
    )
    jobs.submit(new)
    assert not work.should_give_way(job), "an idle worker may take it"
    let_wait(database)
    assert work.should_give_way(job)


def test_a_job_that_runs_on_gives_way_to_a_project_whose_turn_began_later(
    database: Database,
) -> None:
    jobs, work = Jobs(database), JobWork(database)
    submit(jobs, "a1", project="a")
    job = claimed(work)
    submit(jobs, "b1", project="b")
    beside = claimed(work)
    work.fail(beside.id, beside.attempt, code="numerical_failure", detail="It ended.")
    set_turn(database, "a", 0)
    set_turn(database, "b", 1)
    submit(jobs, "b2", project="b")
    let_wait(database)

    assert work.should_give_way(job)
    work.release(job.id, job.attempt, gives_way=True)
    assert [claimed(work).model_name, claimed(work).model_name] == ["b2", "a1"]


def lose_worker(database: Database, worker: str) -> None:
    """Let the leases of a worker run out, long ago."""
    with database.write() as session:
        session.execute(
            text("UPDATE job SET lease_expires_at = :at, queued_at = :at WHERE worker = :worker"),
            {"at": "2026-01-01T00:00:00.000Z", "worker": worker},
        )


def test_a_running_job_gives_way_to_one_whose_worker_is_gone(database: Database) -> None:
    jobs, work = Jobs(database), JobWork(database)
    for name in ("a1", "b1"):
        submit(jobs, name, project=name[0])
    job = claimed(work)
    lost = work.claim("gone", lease_s=LEASE_S)
    assert lost is not None
    assert not work.should_give_way(job), "its worker is at work"
    work.renew(lost.id, lost.attempt, lease_s=-30.0)
    assert not work.should_give_way(job), "it has not waited yet"
    let_wait(database)

    assert work.should_give_way(job)
    work.release(job.id, job.attempt, gives_way=True)
    assert [(one.model_name, one.attempt) for one in (claimed(work), claimed(work))] == [
        ("b1", 2),
        ("a1", 2),
    ]


def test_a_job_whose_worker_is_gone_keeps_its_project_from_no_other_place(
    database: Database,
) -> None:
    jobs, work = Jobs(database), JobWork(database)
    submit(jobs, "a1", project="a")
    job = claimed(work)
    submit(jobs, "large", project="b", memory_bytes=2**30)
    assert work.claim("gone", lease_s=LEASE_S) is not None
    lose_worker(database, "gone")
    submit(jobs, "b1", project="b")
    let_wait(database)

    assert work.should_give_way(job, memory_bytes=2**29)


@pytest.mark.parametrize(
    ("cancels", "state"), [(False, JobState.QUEUED), (True, JobState.CANCELLED)]
)
def test_a_job_whose_worker_is_gone_waits_or_ends_though_no_worker_suits_it(
    database: Database, cancels: bool, state: JobState
) -> None:
    jobs, work = Jobs(database), JobWork(database)
    gpu = submit(jobs, "gpu", accelerator=Accelerator.REQUIRED)
    lost = work.claim("gone", lease_s=LEASE_S, accelerator=True)
    assert lost is not None
    lose_worker(database, "gone")
    if cancels:
        jobs.cancel("p", gpu.id)

    assert work.claim("w", lease_s=LEASE_S, accelerator=False) is None
    assert jobs.get("p", gpu.id).state is state
