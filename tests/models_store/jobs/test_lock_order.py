"""Order of the locks of transactions: none waits for another in a circle."""

import logging
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import text, update

from models_store.database.base import Described
from models_store.database.database import Database
from models_store.database.schema import JobRow
from models_store.database.usage import hold_project, stored_bytes
from models_store.job_states import JobRole, JobState
from models_store.jobs.jobs import Jobs
from models_store.jobs.leases import JobWork
from models_store.labels import LabelChange, Labels, any_state
from models_store.plans.search import SCORE
from models_store.registry import Registry
from tests.models_store.makers import LEASE_S, PROJECT, a_version, claimed, submitted
from tests.models_store.searches import a_search

_WAITING = text(
    "SELECT count(*) FROM pg_stat_activity"
    " WHERE datname = current_database() AND wait_event_type = 'Lock'"
)


@pytest.fixture
def database(postgres_url: str) -> Iterator[Database]:
    database = Database(postgres_url)
    yield database
    database.dispose()


@pytest.fixture
def between(
    database: Database, caplog: pytest.LogCaptureFixture
) -> Iterator[Callable[[Callable[[], object]], None]]:
    """Start a transaction in the midst of another one, and return once it waits for the other's lock."""
    caplog.set_level(logging.INFO)
    with ThreadPoolExecutor() as pool:
        started = []

        def start(work: Callable[[], object]) -> None:
            started.append(pool.submit(work))
            while not started[-1].done() and not _is_one_waiting(database):
                time.sleep(0.01)

        yield start
        for one in started:
            one.result()
    assert started
    told = [record.getMessage() for record in caplog.get_records("call")]
    assert not [line for line in told if "collided" in line]


def _is_one_waiting(database: Database) -> bool:
    with database.read() as session:
        return bool(session.scalar(_WAITING))


def test_a_step_that_makes_a_version_locks_its_model_before_the_usage(
    database: Database,
    jobs: Jobs,
    work: JobWork,
    registry: Registry,
    between: Callable[[Callable[[], object]], None],
) -> None:
    registry.add_version(PROJECT, "shuttle", a_version(submitted(jobs)))
    jobs.cancel(PROJECT, jobs.list(PROJECT, limit=1).items[0].id)
    request = a_search(trials=1, stages=((1, 1.0),))
    parent = submitted(jobs, role=JobRole.PARENT, request=request)
    child = claimed(work)
    work.finish_child(child.id, 1, metrics={SCORE: 1.0}, product=vars(a_version(child)))

    with (
        database.write() as session
    ):  # as if it stored more: each of its events counts in the usage
        session.execute(update(JobRow).values(reserved_bytes=0))

    def meanwhile(_model: object) -> bool:
        between(lambda: work.claim("worker", lease_s=LEASE_S))
        return True

    change = LabelChange(describes=True, description="Counts in the usage.")
    Labels(database).model(PROJECT, "shuttle", change, meanwhile)
    while jobs.get(PROJECT, parent.id).state is JobState.RUNNING:
        assert work.claim("worker", lease_s=LEASE_S) is None
    assert jobs.get(PROJECT, parent.id).state is JobState.SUCCEEDED
    assert registry.model(PROJECT, "shuttle").latest_version == 2


def test_a_parent_is_deleted_after_what_changes_its_children(
    database: Database,
    jobs: Jobs,
    work: JobWork,
    between: Callable[[Callable[[], object]], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    parent = submitted(jobs, role=JobRole.PARENT, request=a_search(trials=1))
    child = claimed(work)
    work.fail(child.id, 1, code="oom", detail=None)
    jobs.cancel(PROJECT, parent.id)

    apply = LabelChange.apply

    def meanwhile(change: LabelChange, row: Described) -> None:
        between(lambda: jobs.delete(PROJECT, parent.id))
        apply(change, row)

    monkeypatch.setattr(LabelChange, "apply", meanwhile)
    change = LabelChange(describes=True, description="Counts in the usage.")
    Labels(database).job(PROJECT, child.id, change, any_state)
    while jobs.list(PROJECT, limit=1).items:
        time.sleep(0.01)
    with database.read() as session:
        assert stored_bytes(session, PROJECT) == 0


def test_a_claim_locks_the_usage_of_one_project_at_a_time(
    database: Database,
    jobs: Jobs,
    work: JobWork,
    between: Callable[[Callable[[], object]], None],
) -> None:
    first, second = (submitted(jobs, project=name, reserved_bytes=10**6) for name in ("a", "b"))
    for job in (first, second):
        assert claimed(work).id == job.id
        jobs.cancel(job.project, job.id)
    with database.write() as session:
        session.execute(update(JobRow).values(lease_expires_at=JobRow.created_at))

    with database.write() as session:
        hold_project(session, second.project)
        between(lambda: work.claim("worker", lease_s=LEASE_S))
        hold_project(session, first.project)
    while jobs.get(second.project, second.id).state is JobState.RUNNING:
        assert work.claim("worker", lease_s=LEASE_S) is None
    assert jobs.get(first.project, first.id).state is JobState.CANCELLED
