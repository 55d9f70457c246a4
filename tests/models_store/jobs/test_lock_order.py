"""Order of the locks of transactions: none waits for another in a circle."""

import logging
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import text

from models_store.database.base import Described
from models_store.database.database import Database
from models_store.job_states import JobRole
from models_store.jobs.jobs import Jobs
from models_store.jobs.leases import JobWork
from models_store.labels import LabelChange, Labels, any_state
from tests.models_store.makers import PROJECT, claimed, submitted
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

    apply = LabelChange.apply

    def meanwhile(change: LabelChange, row: Described) -> None:
        between(lambda: jobs.delete(PROJECT, parent.id))
        apply(change, row)

    monkeypatch.setattr(LabelChange, "apply", meanwhile)
    change = LabelChange(describes=True, description="Counts in the usage.")
    Labels(database).job(PROJECT, child.id, change, any_state)
    while jobs.list(PROJECT, limit=1).items:
        time.sleep(0.01)
