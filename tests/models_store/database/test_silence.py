"""A PostgreSQL that answers nothing and closes nothing, such as one that is stopped or whose disk is frozen."""

import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any, TypeVar

import psycopg
import pytest
from psycopg.abc import PQGen
from sqlalchemy import Connection, Engine, event, text

from models_store.database import postgres
from models_store.database.database import Database, migrate
from models_store.database.driver_errors import translated
from models_store.database.engines import migration_engine, parse_url
from models_store.database.schema import METADATA
from models_store.errors import CommitLostError, DatabaseUnavailableError, FencedError
from models_store.job_states import Idempotency, Job, JobState
from models_store.jobs.jobs import Jobs
from models_store.jobs.leases import JobWork
from models_store.jobs.retries import Ending
from tests.models_store.makers import (
    LEASE_S,
    PROJECT,
    a_checkpoint,
    a_job,
    a_version,
    an_end,
    claimed,
    submitted,
)
from tests.servers import PostgresServer

T = TypeVar("T")

_FAR_S = 120.0  # far longer than anything is to take


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    """A server that a test may stop."""
    server = PostgresServer()
    migrate(server.create("densityd"))
    yield server
    server.close()


@pytest.fixture
def database(server: PostgresServer) -> Iterator[Database]:
    """A database without rows, whose server is not waited for for long."""
    server.empty("densityd", [table.name for table in reversed(METADATA.sorted_tables)])
    database = Database(server.url("densityd"), busy_timeout_s=0.5, answer_s=0.5)
    yield database
    database.dispose()


def _in_thread(call: Callable[[], T]) -> "Future[T]":
    """Begin a call in a thread that does not keep the process from ending."""
    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(call())
        except BaseException as error:  # noqa: BLE001 - whoever waits for it gets it
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return future


def test_nobody_waits_for_a_silent_server_without_an_end(
    server: PostgresServer, database: Database
) -> None:
    database.ping()
    with server.silent():
        for _ in range(3):  # of an idle connection, of one that is not made, of nothing
            with pytest.raises(DatabaseUnavailableError, match="does not answer"):
                _in_thread(database.ping).result(_FAR_S)
    with ThreadPoolExecutor(1) as pool:
        pool.submit(_until_it_answers, database).result(_FAR_S)


def test_a_statement_whose_server_falls_silent_ends(
    server: PostgresServer, database: Database
) -> None:
    def ask() -> None:
        with database.read() as session, server.silent():
            session.execute(text("SELECT 1"))

    with pytest.raises(DatabaseUnavailableError, match="does not answer"):
        _in_thread(ask).result(_FAR_S)
    _until_it_answers(database)


def test_a_driver_that_knows_no_time_limit_of_a_wait_is_given_none(
    monkeypatch: pytest.MonkeyPatch, database: Database
) -> None:
    present = psycopg.Connection.wait

    def wait(connection: psycopg.Connection[Any], gen: PQGen[T], interval: float = 0.1) -> T:
        return present(connection, gen, interval)

    monkeypatch.setattr(psycopg.Connection, "wait", wait)  # as of 3.2
    database.ping()
    with database.write() as session:
        session.execute(text("SELECT 1"))


def test_a_process_that_is_to_end_waits_for_a_silent_server_for_a_moment_only(
    server: PostgresServer,
) -> None:
    database = Database(server.url("densityd"), busy_timeout_s=3600, answer_s=3600)
    database.ping()
    with server.silent():
        asked = _in_thread(database.ping)
        database.hurry()
        for last in (asked, *(_in_thread(database.ping) for _ in range(5))):
            with pytest.raises(DatabaseUnavailableError, match="does not answer"):
                last.result(_FAR_S)
    database.dispose()


def test_nobody_waits_for_a_silent_name_server_without_an_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    answered = threading.Event()
    asked: list[str] = []

    def look_up(host: str, *_: object, **__: object) -> list[Any]:
        asked.append(host)
        answered.wait()
        raise socket.gaierror(socket.EAI_AGAIN, "no answer")

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    database = Database("postgresql://nobody@database.invalid/densityd", busy_timeout_s=1)
    for _ in range(3):  # of a look, of one that is under way, of none
        with pytest.raises(DatabaseUnavailableError, match=r"[Nn]o name server|does not answer"):
            _in_thread(database.ping).result(_FAR_S)
    answered.set()
    assert asked == ["database.invalid"]
    database.dispose()


def test_a_migration_whose_server_falls_silent_ends(
    server: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres, "_ASK_S", 0.2)
    engine = migration_engine(parse_url(server.url("densityd")))

    def ask(statement: str) -> None:
        with translated(), engine.begin() as connection:
            connection.execute(text(statement))

    _in_thread(lambda: ask("SELECT pg_sleep(1)")).result(_FAR_S)  # it answers others
    with pytest.raises(DatabaseUnavailableError, match="does not answer"):
        _in_thread(lambda: _asked_in_silence(server, engine)).result(_FAR_S)
    engine.dispose()


def _asked_in_silence(server: PostgresServer, engine: Engine) -> None:
    with translated(), engine.begin() as connection, server.silent():
        connection.execute(text("SELECT 1"))


def _until_it_answers(database: Database) -> None:
    while True:
        try:
            return database.ping()
        except DatabaseUnavailableError:
            continue


def _silent_at_commit(
    server: PostgresServer, database: Database, call: Callable[[], object]
) -> None:
    """Make a call whose server falls silent as it is told to commit, and let it speak again."""
    with ExitStack() as silence:

        def stop(connection: Connection) -> None:
            if not connection.get_execution_options().get("postgresql_readonly"):
                silence.enter_context(server.silent())

        event.listen(database._engine, "commit", stop)
        with pytest.raises(CommitLostError):
            _in_thread(call).result(_FAR_S)
        event.remove(database._engine, "commit", stop)


_Write = Callable[[JobWork, Job], Any]
_WRITES: dict[str, _Write] = {
    "renew": lambda work, job: work.renew(job.id, job.attempt, lease_s=LEASE_S),
    "record_epoch": lambda work, job: work.record_epoch(
        job.id,
        job.attempt,
        lease_s=LEASE_S,
        metrics={"epoch": 1},
        progress={},
        checkpoint=a_checkpoint(job, 1),
    ),
    "finish": lambda work, job: work.finish(
        job.id, job.attempt, metrics={}, version=a_version(job)
    ),
    "fail": lambda work, job: work.fail(job.id, job.attempt, code="internal", detail=None),
    "release": lambda work, job: work.release(job.id, job.attempt, failed=an_end(Ending.CRASHED)),
}


@pytest.mark.parametrize(("name", "write"), _WRITES.items(), ids=_WRITES)
def test_a_write_of_an_attempt_whose_answer_was_lost_is_repeated_without_harm(
    server: PostgresServer, database: Database, name: str, write: _Write
) -> None:
    jobs, work = Jobs(database), JobWork(database)
    submitted(jobs)
    job = claimed(work)
    _silent_at_commit(server, database, lambda: write(work, job))
    _until_it_answers(database)
    done = _story(jobs, job)
    if name in ("fail", "release"):
        with pytest.raises(FencedError):
            write(work, job)
    else:
        write(work, job)
    assert _story(jobs, job) == done
    if name == "finish":
        assert done[0] == (JobState.SUCCEEDED, 1, 1)


def _story(jobs: Jobs, job: Job) -> tuple[object, ...]:
    """Return all that may not be done twice."""
    found = jobs.get(PROJECT, job.id)
    events = jobs.event_page(PROJECT, job.id, after=0, limit=100, max_bytes=2**20).events
    counted = found.state, found.attempt, found.model_version
    return counted, found.checkpoints, [(one.event, one.data) for one in events]


def test_a_submission_whose_answer_was_lost_is_the_same_job_with_its_key(
    server: PostgresServer, database: Database
) -> None:
    jobs = Jobs(database)
    key = Idempotency.of("once", "job", "the same request")

    def submit() -> Job:
        return jobs.submit(a_job(), idempotency=key).job

    database.ping()
    _silent_at_commit(server, database, submit)
    _until_it_answers(database)
    first = submit()
    assert [job.id for job in jobs.list(PROJECT, limit=100).items] == [first.id]


def test_a_claim_whose_answer_was_lost_is_left_to_its_lease(
    server: PostgresServer, database: Database
) -> None:
    jobs, work = Jobs(database), JobWork(database)
    job = submitted(jobs)
    _silent_at_commit(server, database, lambda: work.claim("w", lease_s=LEASE_S))
    _until_it_answers(database)
    assert work.claim("w", lease_s=LEASE_S) is None
    found = jobs.get(PROJECT, job.id)
    assert (found.state, found.attempt) == (JobState.RUNNING, 1)
