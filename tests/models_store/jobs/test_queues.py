"""Order in which workers take jobs: projects in turn, priority, age; and the workers that jobs suit."""

from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import pytest
from sqlalchemy import event, text

from models_store.database.database import Database
from models_store.job_states import (
    Accelerator,
    EventKind,
    Job,
    JobKind,
    JobRole,
    JobState,
    NewJob,
)
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
    memory_bytes: int | None = None,
) -> Job:
    return jobs.submit(
        NewJob(
            project=project,
            kind=JobKind.VARIATIONAL,
            model_name=name,
            dataset_id=None,
            request={},
            priority=priority,
            accelerator=accelerator,
            memory_bytes=memory_bytes,
        )
    ).job


def taken(work: JobWork, *, accelerator: bool | None = None) -> str | None:
    job = work.claim("w", lease_s=LEASE_S, accelerator=accelerator)
    return None if job is None else job.model_name


def test_projects_take_turns_and_in_each_priorities_come_first_then_age(
    database: Database,
) -> None:
    jobs, work = Jobs(database), JobWork(database)
    for name in ("a1", "a2", "a3"):
        submit(jobs, name, project="a")
    submit(jobs, "b1", project="b")
    submit(jobs, "low", project="c", priority=-1)
    submit(jobs, "high", project="a", priority=5)
    order = [taken(work) for _ in range(7)]
    assert order == ["high", "b1", "low", "a1", "a2", "a3", None]
    assert jobs.list("a", limit=1).items[0].priority == 5


def test_one_worker_serves_a_small_project_beside_one_that_never_ends(database: Database) -> None:
    """Each job has ended before the next is taken: no project runs more than another."""
    jobs, work = Jobs(database), JobWork(database)
    for number in range(20):
        submit(jobs, f"a{number}", project="a", priority=100)
    for number in range(3):
        submit(jobs, f"b{number}", project="b", priority=-100)
    order = []
    for number in range(8):
        submit(jobs, f"late{number}", project="a", priority=100)
        job = work.claim("w", lease_s=LEASE_S)
        assert job is not None
        order.append(job.project)
        work.fail(job.id, job.attempt, code="internal", detail="It ended.")
        set_turn(database, job.project, number)
    assert order == ["a", "b", "a", "b", "a", "b", "a", "a"]


def set_turn(database: Database, project: str, second: int) -> None:
    """Move the last turn of a project: SQLite's clock counts thousandths, and two may be equal."""
    with database.write() as session:
        session.execute(
            text("UPDATE turn SET taken_at = :at WHERE project = :project"),
            {"at": f"2026-01-01T00:00:{second:02}.000Z", "project": project},
        )


def let_wait(database: Database) -> None:
    """Let the time pass that a job waits for until a running one gives way to it."""
    with database.write() as session:
        long_ago = {"at": "2026-01-01T00:00:00.000Z"}
        session.execute(text("UPDATE job SET queued_at = :at WHERE state = 'queued'"), long_ago)


def claimed(work: JobWork) -> Job:
    job = work.claim("w", lease_s=LEASE_S)
    assert job is not None
    return job


@pytest.mark.fault(291)
def test_fault_291_a_job_that_is_resumed_or_deleted_wins_no_turn(database: Database) -> None:
    jobs, work = Jobs(database), JobWork(database)
    submit(jobs, "a0", project="a")
    for number in range(4):
        submit(jobs, f"b{number}", project="b")
    order = []
    for number in range(5):
        job = work.claim("w", lease_s=LEASE_S)
        assert job is not None
        order.append(job.project)
        jobs.cancel(job.project, job.id)
        work.cancelled(job.id, job.attempt)
        set_turn(database, job.project, number)
        if job.project == "a":
            jobs.resume("a", job.id)
        else:
            jobs.delete("b", job.id)
    assert order == ["a", "b", "a", "b", "a"]


@pytest.mark.fault(339)
def test_fault_339_a_running_job_gives_way_to_the_project_whose_turn_it_is(
    database: Database,
) -> None:
    jobs, work = Jobs(database), JobWork(database)
    give_way = partial(work.should_give_way, worker="w", accelerator=False)
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


@pytest.mark.fault(339)
def test_fault_339_the_only_place_of_a_worker_goes_round(database: Database) -> None:
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
        assert work.should_give_way(job, "w")
        work.release(job.id, job.attempt, gives_way=True)
    assert order == ["a", "b", "a", "b"]


@pytest.mark.fault(339)
def test_fault_339_a_job_gives_way_to_a_search_whose_first_step_nobody_took(
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
    assert not work.should_give_way(job, "w"), "an idle worker may take it"
    let_wait(database)
    assert work.should_give_way(job, "w")


@pytest.mark.fault(339)
@pytest.mark.parametrize(("waiting", "expected"), [(1, 1), (2, 2), (6, 4)])
def test_fault_339_as_many_jobs_give_way_as_wait_or_as_are_fair(
    database: Database, waiting: int, expected: int
) -> None:
    jobs, work = Jobs(database), JobWork(database)
    for number in range(8):
        submit(jobs, f"a{number}", project="a")
    running = [claimed(work) for _ in range(8)]
    for number in range(waiting):
        submit(jobs, f"b{number}", project="b")
    let_wait(database)
    asked = partial(work.should_give_way, worker="w")
    with ThreadPoolExecutor(8) as pool:
        told = list(pool.map(asked, running))
    told = [gives_way or asked(job) for job, gives_way in zip(running, told, strict=True)]
    assert sum(told) == expected
    first = running.pop(told.index(True))
    work.release(first.id, first.attempt, gives_way=True)
    assert not any(asked(job) for job in running), "the free place is the other project's"
    assert claimed(work).model_name == "b0"


@pytest.mark.fault(339)
def test_fault_339_a_promise_that_nobody_kept_is_made_again(database: Database) -> None:
    jobs, work = Jobs(database), JobWork(database)
    submit(jobs, "a1", project="a")
    job = claimed(work)
    submit(jobs, "b1", project="b")
    let_wait(database)
    assert work.should_give_way(job, "w")
    assert not work.should_give_way(job, "w")
    with database.write() as session:
        passed = {"at": "2026-01-01T00:00:00.000Z"}
        session.execute(
            text("UPDATE job SET lease_expires_at = :at WHERE state = 'queued'"), passed
        )
    assert work.should_give_way(job, "w")
    other = claimed(work)
    assert (other.project, other.attempt) == ("b", 1), "it held no lease"


@pytest.mark.fault(940)
def test_fault_940_a_job_that_runs_on_gives_way_to_a_project_whose_turn_began_later(
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

    assert work.should_give_way(job, "w")
    work.release(job.id, job.attempt, gives_way=True)
    assert [claimed(work).model_name, claimed(work).model_name] == ["b2", "a1"]


@pytest.mark.fault(942)
def test_fault_942_a_job_whose_end_frees_no_place_promises_none(database: Database) -> None:
    jobs, work = Jobs(database), JobWork(database)
    for name in ("a1", "b1"):
        submit(jobs, name, project=name[0])
    first, beside = claimed(work), claimed(work)
    submit(jobs, "c1", project="c")
    let_wait(database)

    assert work.should_give_way(first, "w", beside=["b"], promises=False)
    work.release(first.id, first.attempt, gives_way=True)
    assert work.should_give_way(beside, "w")
    work.release(beside.id, beside.attempt, gives_way=True)
    assert [claimed(work).model_name for _ in range(3)] == ["c1", "a1", "b1"]


@pytest.mark.fault(903)
def test_fault_903_no_place_is_promised_to_a_job_that_may_not_have_it(database: Database) -> None:
    jobs, work = Jobs(database), JobWork(database)
    for name in ("a1", "b1", "b2"):
        submit(jobs, name, project=name[0])
    running = {job.model_name: job for job in (claimed(work) for _ in range(3))}
    submit(jobs, "a2", project="a")
    let_wait(database)
    set_turn(database, "a", 0)
    set_turn(database, "b", 1)
    assert not work.should_give_way(running["b1"], "w", beside=["a"])
    assert work.should_give_way(running["b2"], "w")


def test_a_job_that_requires_an_accelerator_waits_for_one(database: Database) -> None:
    jobs, work = Jobs(database), JobWork(database)
    submit(jobs, "gpu", accelerator=Accelerator.REQUIRED)
    assert taken(work, accelerator=False) is None
    assert taken(work, accelerator=True) == "gpu"


@pytest.mark.parametrize(
    ("wanted", "better"), [(Accelerator.PREFERRED, True), (Accelerator.NONE, False)]
)
def test_a_job_waits_some_seconds_for_the_workers_that_suit_it(
    database: Database, wanted: Accelerator, better: bool
) -> None:
    jobs, work, workers = Jobs(database), JobWork(database), Workers(database)
    submit(jobs, "first", accelerator=wanted)
    assert taken(work, accelerator=not better) == "first"  # no better worker is at work
    submit(jobs, "second", accelerator=wanted)
    workers.beat("better", accelerator=better)
    assert taken(work, accelerator=not better) is None
    with database.write() as session:
        long_ago = {"at": "2026-01-01T00:00:00.000Z"}
        session.execute(text("UPDATE job SET queued_at = :at WHERE state = 'queued'"), long_ago)
    assert taken(work, accelerator=not better) == "second"
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


def test_no_worker_takes_a_job_that_does_not_fit_and_others_pass_it(database: Database) -> None:
    jobs, work = Jobs(database), JobWork(database)
    submit(jobs, "large", memory_bytes=3 * 2**30)
    submit(jobs, "small", memory_bytes=2**30)
    submit(jobs, "unknown")
    claim_small = partial(work.claim, "w", lease_s=LEASE_S, memory_bytes=2 * 2**30)
    names = [job and job.model_name for job in (claim_small() for _ in range(3))]
    assert names == ["small", "unknown", None]
    large = work.claim("large", lease_s=0.0, memory_bytes=3 * 2**30)
    assert large is not None
    assert claim_small() is None, "its lease ran out, and it fits no better"
    assert work.claim("w", lease_s=LEASE_S) is not None, "of a worker that does not know its memory"


@pytest.mark.parametrize(
    ("wanted", "needed", "told"),
    [
        (
            Accelerator.NONE,
            2**31,
            "2,048 MiB of memory for it, and the largest that is at work has 1,024",
        ),
        (Accelerator.NONE, 2**30, None),
        (Accelerator.NONE, None, None),
        (Accelerator.REQUIRED, 2**20, "No worker that is at work has the GPU"),
    ],
)
def test_a_job_that_no_worker_at_work_can_take_says_so(
    database: Database, wanted: Accelerator, needed: int | None, told: str | None
) -> None:
    jobs, workers = Jobs(database), Workers(database)
    alone = submit(jobs, "x", accelerator=wanted, memory_bytes=needed)
    workers.beat("a", accelerator=False, memory_bytes=2**29)
    workers.beat("b", accelerator=False, memory_bytes=2**30)
    job = submit(jobs, "y", accelerator=wanted, memory_bytes=needed)
    for one, expected in ((alone, None), (job, told)):
        texts = [
            event.data["text"]
            for event in jobs.events("p", one.id)
            if event.event is EventKind.MESSAGE
        ]
        assert len(texts) == (expected is not None)
        assert expected is None or expected in texts[0]
    jobs.cancel("p", job.id)
    jobs.resume("p", job.id)
    assert len(jobs.events("p", job.id)) == (4 if told is None else 6), "told again"


def test_who_looks_for_work_passes_no_state(database: Database, jobs: Jobs, work: JobWork) -> None:
    """SQLite would plan anew with each value, for indexes of some states and roles."""
    passed: list[object] = []

    def note(_connection: Any, _cursor: Any, _statement: str, given: Any, *_: object) -> None:
        passed.extend(given.values() if isinstance(given, dict) else given)

    for engine in (database._read, database._write):
        event.listen(engine, "before_cursor_execute", note)
    assert jobs.claimable(1) == []
    assert passed
    assert work.claim("w", lease_s=LEASE_S, accelerator=True, memory_bytes=1) is None
    assert "w" in passed
    assert not [value for value in passed if isinstance(value, JobState | JobRole)]
