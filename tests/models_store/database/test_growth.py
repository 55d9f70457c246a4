# ruff: noqa: S608, ISC004 - statements that fill tables
"""Repeated work of the service takes no longer where one project has stored much.

Counted are the steps of SQLite's machine, not seconds.
"""

import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from sqlalchemy import event, inspect, text

from models_store.computed import Usage
from models_store.database.base import large_names
from models_store.database.database import Database
from models_store.database.schema import DatasetRow, JobRow, ModelVersionRow
from models_store.errors import DatasetInUseError
from models_store.jobs.figures import JobFigures
from models_store.jobs.jobs import Jobs
from models_store.jobs.leases import JobWork
from models_store.jobs.retention import JobRetention
from models_store.keys import MAX_KEYS, Keys, Scope
from models_store.listings.filters import Filters
from models_store.registry import Registry
from models_store.webhooks.deliveries import Deliveries, Outcome
from models_store.webhooks.webhooks import Webhooks
from tests.models_store.makers import a_dataset, a_job, a_version

OTHER = "other"
DATASET = "ds_" + 32 * "0"
TAG = "t", "v"
FEW, MANY = 200, 800
STEPS = 10
ROWS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < :most)"
NOW = "strftime('%Y-%m-%dT%H:%M:%fZ', 'now', '-7200 seconds')"
JOB_ID = "printf('job_{kind}%031x', i)"


def jobs_of(
    kind: str, state: str, *, role: str = "NULL", parent: str = "NULL", **values: str
) -> str:
    """Return the statement that adds jobs whose ids begin with a letter."""
    fixed = {
        "id": JOB_ID.format(kind=kind),
        "project": f"'{OTHER}'",
        "kind": "'training'",
        "state": f"'{state}'",
        "model_name": "'m'",
        "checkpoints": "'[]'",
        "failures": "'[]'",
        "request": "'{}'",
        "created_at": NOW,
        "queued_at": NOW,
        "finished_at": NOW,
        "role": role,
        "parent_id": parent,
    }
    zero = (
        "attempt", "cancel_requested", "dispatched", "last_epoch", "last_event", "run_seconds", "last_step",
        "metadata_bytes", "checkpoint_bytes", "reserved_bytes", "charged_bytes", "noticed", "covered",
    )  # fmt: skip
    row = {**dict.fromkeys(zero, "0"), **fixed, **values}
    return f"INSERT INTO job ({', '.join(row)}) {ROWS} SELECT {', '.join(row.values())} FROM n"


def parent_of(kind: str) -> str:
    return "'" + "job_" + kind + 30 * "0" + "1'"


CHILD = "'child'"
FILL = (
    jobs_of("e", "cancelled"),
    f"INSERT INTO job_dataset (job_id, dataset_id, project) SELECT id, '{DATASET}', project"
    " FROM job WHERE id LIKE 'job_e%'",
    "INSERT INTO idempotency (project, key, fingerprint, resource_id, expires_at)"
    " SELECT project, id, '', id, '9' FROM job WHERE project = 'other'",
    jobs_of("1", "succeeded", role=CHILD, parent=parent_of("a"), noticed="1"),
    jobs_of("2", "cancelled", role=CHILD, parent=parent_of("b")),
    jobs_of("3", "cancelled", role=CHILD, parent=parent_of("c")),
    "INSERT INTO webhook_delivery (id, webhook_id, project, event, data, bytes, attempts, due_at, delivered, created_at)"
    f" {ROWS} SELECT 'msg_' || i, :webhook, '{OTHER}', 'job.failed', '{{}}', 1, 0, {NOW}, 0, {NOW} FROM n",
    f"INSERT INTO api_key (id, project, scope, secret_sha256, created_at) {ROWS}"
    f" SELECT 'key_' || i, '{OTHER}', 'read', '', {NOW} FROM n",
    "INSERT INTO model_version (project, model_id, version, family, dim, columns, flow, preprocessing, parameters,"
    " metrics, code_version, checkpoint_key, checkpoint_sha256, checkpoint_bytes, created_at, charged_bytes)"
    f" {ROWS} SELECT '{OTHER}', 1, i + 1, 'maf', 1, '[]', '{{}}', '{{}}', 1, '{{}}', '', i, '', 0, {NOW}, 0 FROM n",
    f"INSERT INTO job_event (job_id, seq, project, event, data, created_at) {ROWS}"
    f" SELECT {JOB_ID.format(kind='e')}, 1, '{OTHER}', 'message', '{{}}', {NOW} FROM n",
    "INSERT INTO tag (project, kind, name, value, position)"
    " SELECT project, 'job', 't', 'v', position FROM job WHERE id LIKE 'job_e%'",
)  # fmt: skip
ONE = (
    jobs_of("a", "running", role="'parent'", finished_at="NULL"),
    jobs_of("4", "queued", role=CHILD, parent=parent_of("a"), accelerator="'required'"),
    jobs_of("b", "cancelled", role="'parent'"),
    jobs_of("c", "succeeded", role="'parent'"),
    jobs_of("5", "succeeded", role=CHILD, parent=parent_of("c"), checkpoint_bytes="1"),
    jobs_of("d", "queued", finished_at="NULL"),
    f"INSERT INTO job_dataset (job_id, dataset_id, project) SELECT id, '{DATASET}', project"
    " FROM job WHERE id LIKE 'job_d%'",
)
CHILD_ID = "job_5" + 30 * "0" + "1"


@contextmanager
def stored(template: Path, file: Path, most: int) -> Iterator[tuple[Database, list[int]]]:
    """Give a database where one project has stored so many rows, and a list that grows with its steps."""
    shutil.copy(template, file)
    database, steps = Database(f"sqlite:///{file}"), list[int]()

    def connected(connection: sqlite3.Connection, _record: object) -> None:
        connection.set_progress_handler(lambda: steps.append(STEPS), STEPS)

    event.listen(database._engine.pool, "connect", connected)
    Registry(database).add_dataset(a_dataset(id=DATASET, project=OTHER))
    Registry(database).add_version(OTHER, "m", a_version(Jobs(database).submit(a_job()).job))
    webhook = Webhooks(database).create(OTHER, "https://example.org", events=["job.failed"])
    with database.write() as session:
        for statement in FILL:
            session.execute(text(statement), {"most": most, "webhook": webhook.id})
        for statement in ONE:
            session.execute(text(statement), {"most": 1, "webhook": webhook.id})
    yield database, steps
    database.dispose()


def delete_used(database: Database) -> None:
    with suppress(DatasetInUseError):
        Registry(database).delete_dataset(OTHER, DATASET)


def end_delivery(database: Database) -> None:
    deliveries = Deliveries(database)
    (due,) = deliveries.take(8, {}, lease_s=-1)
    deliveries.end(due.id, due.attempt, Outcome(error="none"))


ACTIONS: dict[str, Callable[[Database], object]] = {
    "a claim": lambda database: JobWork(database).claim("w", lease_s=30, accelerator=False),
    "a sweep": lambda database: Jobs(database).claimable(1000),
    "the figures": lambda database: JobFigures(database).read(),
    "the deletion of a dataset in use": delete_used,
    "the deletion of a job": lambda database: Jobs(database).delete(OTHER, "job_e" + 30 * "0" + "1"),
    "the needless children": lambda database: JobRetention(database).needless_children(keep_s=9e9, limit=100),
    "to forget a child": lambda database: JobRetention(database).forget_child(CHILD_ID, keep_s=9e9),
    "the expired jobs": lambda database: JobRetention(database).expired(keep_s=9e9, limit=100),
    "the leftovers": lambda database: JobRetention(database).leftover(keep_s=0, limit=100),
    "a look for deliveries": end_delivery,
    "the usage of a project": lambda database: Usage(database).of_project("default"),
    "the keys of a project": lambda database: Keys(database).list("default"),
    "a new key": lambda database: Keys(database).create("default", Scope.READ, most=MAX_KEYS),
    "a new job": lambda database: Jobs(database).submit(a_job(project="default"), max_queued=9, max_bytes=2**40),
}  # fmt: skip


@pytest.mark.parametrize("name", ACTIONS)
def test_what_one_project_has_stored_keeps_nobody_waiting(
    sqlite_template: Path, tmp_path: Path, name: str
) -> None:
    taken = []
    for most in (FEW, MANY):
        with stored(sqlite_template, tmp_path / f"{most}.sqlite3", most) as (database, steps):
            steps.clear()
            ACTIONS[name](database)
            taken.append(sum(steps))
    few, many = taken
    assert many < 1.2 * few + 200


@pytest.mark.parametrize("tags", [[TAG], 3 * [TAG], 3 * [(TAG[0], None)], [TAG, ("no", None), TAG]])
@pytest.mark.parametrize("oldest_first", [False, True])
def test_a_page_of_a_filter_by_tags_looks_at_so_many_rows(
    sqlite_template: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    tags: list[tuple[str, str | None]],
    *,
    oldest_first: bool,
) -> None:
    monkeypatch.setattr("models_store.listings.paging._MOST_LOOKED_AT", 50)
    filters, taken = Filters(tags=tuple(tags), oldest_first=oldest_first), []
    for most in (FEW, MANY):
        with stored(sqlite_template, tmp_path / f"{most}.sqlite3", most) as (database, steps):
            steps.clear()
            Jobs(database).list(OTHER, limit=5, filters=filters)
            taken.append(sum(steps))
    few, many = taken
    assert many < 1.2 * few + 200


def test_looks_for_work_do_not_read_through_large_columns(sqlite_url: str) -> None:
    database = Database(sqlite_url)
    with database.read() as session:
        for table in (DatasetRow, JobRow, ModelVersionRow):
            columns = inspect(session.connection()).get_columns(table.__tablename__)
            large = large_names(table)
            last = [column["name"] for column in columns][-len(large) :]
            assert set(last) == large
    database.dispose()
