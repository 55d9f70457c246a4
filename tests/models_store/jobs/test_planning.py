"""Plans of parents' steps: what they read, and what holds of them though children end meanwhile."""

import re
from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import Engine, event, select, update
from sqlalchemy.exc import OperationalError

from models_store.database.database import Database
from models_store.database.schema import JobRow
from models_store.job_states import EventKind, Job, JobRole, JobState
from models_store.jobs.jobs import Jobs
from models_store.jobs.leases import JobWork
from models_store.jobs.parents import planning, steps
from models_store.jobs.parents.children import children_of
from models_store.plans.search import SCORE
from tests.models_store.makers import LEASE_S, PROJECT, a_version, claimed, no_wait, submitted
from tests.models_store.searches import a_search

ONE_STAGE = ((3, 1.0),)


@pytest.fixture
def jobs(database: Database) -> Jobs:
    return Jobs(database)


@pytest.fixture
def work(database: Database) -> JobWork:
    return JobWork(database)


@pytest.fixture
def statements() -> Iterator[list[str]]:
    """Record the statements that are sent to the database."""
    found: list[str] = []

    def note(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        found.append(statement)

    event.listen(Engine, "before_cursor_execute", note)
    yield found
    event.remove(Engine, "before_cursor_execute", note)


def a_parent(jobs: Jobs, **changes: Any) -> Job:
    return submitted(jobs, role=JobRole.PARENT, request=a_search(**changes), reserved_bytes=10**7)


def ended(work: JobWork, job: Job, score: float) -> None:
    metrics = {SCORE: score, "epoch": 5, "seconds": 2.0}
    product = vars(a_version(job, metrics=metrics))
    work.finish_child(job.id, job.attempt, metrics=metrics, product=product)


def failed(work: JobWork, job: Job, detail: str) -> None:
    work.fail(job.id, job.attempt, code="diverged", detail=detail)


def children_ended(jobs: Jobs, parent: Job) -> Any:
    return (jobs.get(PROJECT, parent.id).progress or {}).get("children_ended")


def told(jobs: Jobs, parent: Job) -> list[int]:
    events = jobs.events(PROJECT, parent.id)
    return [one.data["number"] for one in events if one.event is EventKind.CHILD]


def planned(database: Database, parent: Job) -> planning.ParentPlan:
    """Return what a worker plans that looks now."""
    with database.read() as session:
        row = session.scalars(steps._PARENT, {"job_id": parent.id}).one()
        return planning.planned(session, row, children_of(session, parent.id))


def taken(database: Database, parent: Job, plan: planning.ParentPlan) -> None:
    """Take the step that was planned."""
    database.transact(steps._step, parent.id, plan)


def trials(jobs: Jobs, parent: Job) -> int:
    return len(jobs.list(PROJECT, limit=9, parent_id=parent.id).items)


def reads_of_products(statements: list[str]) -> int:
    """Return how many were read; an attempt's own writes read that of its job, which has none yet."""
    reads = [one for one in statements if re.search(r"^SELECT\b.*\bjob\.product\b", one, re.DOTALL)]
    return sum("job.attempt =" not in one for one in reads)


def test_a_search_reads_only_the_product_that_becomes_its_version(
    database: Database, jobs: Jobs, work: JobWork, statements: list[str]
) -> None:
    parent = a_parent(jobs, trials=3)
    for number, child in enumerate([claimed(work) for _ in range(3)], start=1):
        ended(work, child, float(number))
        steps.take_steps(database)
        assert children_ended(jobs, parent) == number
    last = claimed(work)
    assert reads_of_products(statements) == 0
    ended(work, last, 1.0)
    steps.take_steps(database)
    assert jobs.get(PROJECT, parent.id).state is JobState.SUCCEEDED
    assert reads_of_products(statements) == 1


def test_a_search_reads_only_the_products_of_the_members_of_its_ensemble(
    database: Database, jobs: Jobs, work: JobWork, statements: list[str]
) -> None:
    a_parent(jobs, trials=3, stages=ONE_STAGE, ensemble=2)
    children = [claimed(work) for _ in range(3)]
    for score, child in enumerate(children):
        ended(work, child, float(score))
    steps.take_steps(database)
    members = claimed(work).request["members"]
    assert [member["trial"] for member in members] == [2, 1]
    assert [member["key"] for member in members] == [
        a_version(child).checkpoint_key for child in children[:0:-1]
    ]
    assert reads_of_products(statements) == 2


def test_children_that_have_ended_are_told_of_though_others_end_meanwhile(
    database: Database, jobs: Jobs, work: JobWork
) -> None:
    parent = a_parent(jobs, trials=3)
    one, two, three = (claimed(work) for _ in range(3))
    ended(work, one, 1.0)
    first = planned(database, parent)
    ended(work, two, 2.0)
    second = planned(database, parent)
    ended(work, three, 3.0)
    taken(database, parent, first)
    assert (children_ended(jobs, parent), told(jobs, parent)) == (1, [0])
    taken(database, parent, second)
    assert (children_ended(jobs, parent), told(jobs, parent)) == (2, [0, 1])
    assert trials(jobs, parent) == 3, "its caller is told of the third one first"
    steps.take_steps(database)
    assert (told(jobs, parent), trials(jobs, parent)) == ([0, 1, 2], 4)


def test_an_old_plan_takes_back_nothing_that_a_newer_one_told(
    database: Database, jobs: Jobs, work: JobWork
) -> None:
    parent = a_parent(jobs, trials=3)
    one, two, three = (claimed(work) for _ in range(3))
    ended(work, one, 1.0)
    old = planned(database, parent)
    ended(work, two, 2.0)
    steps.take_steps(database)
    ended(work, three, 3.0)
    taken(database, parent, old)
    assert (children_ended(jobs, parent), told(jobs, parent)) == (2, [0, 1])


def test_a_plan_is_noted_once(database: Database, jobs: Jobs, work: JobWork) -> None:
    parent = a_parent(jobs, trials=3)
    one, two, three = (claimed(work) for _ in range(3))
    ended(work, one, 1.0)
    early = planned(database, parent)
    work.record_epoch(three.id, 1, lease_s=LEASE_S, metrics={"epoch": 3}, progress={})
    late = planned(database, parent)
    taken(database, parent, late)
    ended(work, two, 2.0)
    taken(database, parent, early)
    assert told(jobs, parent) == [0]
    metrics = jobs.get(PROJECT, parent.id).metrics
    assert metrics is not None
    assert metrics["trials"][2]["epochs"] == 3, "as of the later plan"


def test_a_plan_for_children_that_were_resumed_since_is_dropped(
    database: Database, jobs: Jobs, work: JobWork
) -> None:
    parent = a_parent(jobs, trials=1)
    failed(work, claimed(work), "The first time.")
    old = planned(database, parent)
    steps.take_steps(database)
    jobs.resume(PROJECT, parent.id)
    failed(work, claimed(work), "The second time.")
    taken(database, parent, old)
    assert jobs.get(PROJECT, parent.id).state is JobState.RUNNING
    steps.take_steps(database)
    error = jobs.get(PROJECT, parent.id).error
    assert error is not None
    assert error["detail"].endswith("The second time.")


def test_a_parent_that_is_cancelled_after_its_plan_was_made_makes_nothing(
    database: Database, jobs: Jobs, work: JobWork
) -> None:
    parent = a_parent(jobs, trials=2, stages=((2, 1.0),))
    one, two = claimed(work), claimed(work)
    ended(work, one, 1.0)
    early = planned(database, parent)
    jobs.cancel(PROJECT, parent.id)
    work.cancelled(two.id, 1)
    taken(database, parent, early)
    assert jobs.get(PROJECT, parent.id).state is JobState.RUNNING
    steps.take_steps(database)
    done = jobs.get(PROJECT, parent.id)
    assert (done.state, done.model_version) == (JobState.CANCELLED, None)
    assert told(jobs, parent) == [0, 1]


@pytest.mark.parametrize("ensemble", [1, 2])
def test_a_product_that_cannot_be_read_for_now_puts_the_step_off(
    database: Database, jobs: Jobs, work: JobWork, monkeypatch: pytest.MonkeyPatch, ensemble: int
) -> None:
    parent = a_parent(jobs, trials=2, stages=((2, 1.0),), ensemble=ensemble)
    for child in (claimed(work), claimed(work)):
        ended(work, child, 1.0)

    def unreadable(*_: Any) -> Any:
        raise OperationalError("SELECT", {}, Exception("the connection is gone"))

    with monkeypatch.context() as patch:
        patch.setattr(planning, "_product_of", unreadable)
        steps.take_steps(database)
    put_off = jobs.get(PROJECT, parent.id)
    assert put_off.state is JobState.RUNNING
    assert put_off.not_before is not None
    no_wait(database, parent.id)
    steps.take_steps(database)
    assert jobs.get(PROJECT, parent.id).not_before is None


@pytest.mark.parametrize("end", ["cancelled", "succeeded"])
def test_products_that_a_worker_of_the_last_release_made_count_when_the_parent_ends(
    database: Database, jobs: Jobs, work: JobWork, end: str
) -> None:
    charged = []
    for measured in (True, False):
        parent = a_parent(jobs, trials=2, stages=((2, 1.0),))
        one, two = claimed(work), claimed(work)
        ended(work, one, 1.0)
        if end == "succeeded":
            ended(work, two, 2.0)
        if not measured:
            of_it = update(JobRow).where(JobRow.parent_id == parent.id)
            with database.write() as session:
                session.execute(of_it.values(product_bytes=None))
        if end == "cancelled":
            jobs.cancel(PROJECT, parent.id)
            work.cancelled(two.id, 1)
        steps.take_steps(database)
        assert jobs.get(PROJECT, parent.id).state == end
        query = select(JobRow.product_bytes, JobRow.charged_bytes).order_by(JobRow.position)
        with database.read() as session:
            charged.append(session.execute(query.where(JobRow.parent_id == parent.id)).all())
    assert charged[0] == charged[1]
    assert charged[0][0].product_bytes > 660_000
    assert charged[0][1].product_bytes is None


@pytest.mark.parametrize("end", ["cancelled", "succeeded"])
@pytest.mark.parametrize("level", ["a\0b", "\ud800", '"checkpoint_bytes": 5'])
def test_products_with_any_characters_are_counted(
    database: Database, jobs: Jobs, work: JobWork, end: str, level: str
) -> None:
    parent = a_parent(jobs, trials=2, stages=((2, 1.0),))
    one, two = claimed(work), claimed(work)
    types = [{"name": "cut", "levels": [level]}]
    product = vars(a_version(one, types=types))
    work.finish_child(one.id, 1, metrics={SCORE: 1.0}, product=product)
    of_it = update(JobRow).where(JobRow.parent_id == parent.id)
    with database.write() as session:
        measured = session.scalars(select(JobRow.product_bytes).where(JobRow.id == one.id)).one()
        session.execute(of_it.values(product_bytes=None))
    if end == "cancelled":
        jobs.cancel(PROJECT, parent.id)
        work.cancelled(two.id, 1)
    else:
        ended(work, two, 2.0)
    steps.take_steps(database)
    assert jobs.get(PROJECT, parent.id).state == end
    with database.read() as session:
        query = select(JobRow.product_bytes).where(JobRow.id == one.id)
        assert session.scalars(query).one() == measured


def test_a_step_that_another_has_taken_is_not_planned(
    database: Database,
    jobs: Jobs,
    work: JobWork,
    statements: list[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    parent = a_parent(jobs, trials=1, stages=((1, 1.0),))
    ended(work, claimed(work), 1.0)
    for _ in range(2):
        steps._take(database, parent.id)
    assert jobs.get(PROJECT, parent.id).state is JobState.SUCCEEDED
    assert reads_of_products(statements) == 1
    assert caplog.text == ""


def test_a_claim_reads_the_request_before_it_holds_the_turn_of_the_project(
    jobs: Jobs, work: JobWork, statements: list[str]
) -> None:
    submitted(jobs)
    assert work.claim("worker", lease_s=LEASE_S) is not None
    order = [
        what
        for one in statements
        for what, pattern in (
            ("turn", r"^INSERT INTO turn\b"),
            ("request", r"^SELECT CAST\(job\.request\b"),
        )
        if re.search(pattern, one)
    ]
    assert order == ["request", "turn"]
