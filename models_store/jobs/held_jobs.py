"""Jobs that the attempt of a worker holds: locked, changed and written without the ORM.

A worker writes often, and little each time. Reading and writing the columns takes a fraction of what
the ORM takes for them; a request, which may have megabytes, is left alone.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from datetime import datetime
from functools import cache
from types import SimpleNamespace
from typing import Any

from sqlalchemy import Float, Row, RowMapping, Select, bindparam, literal, select, update
from sqlalchemy.orm import Session
from sqlalchemy.sql.dml import Update

from models_store.database.announcements import note_end
from models_store.database.base import JsonObject, large_names
from models_store.database.clock import db_now
from models_store.database.dialects import constant
from models_store.database.schema import JobRow
from models_store.database.usage import charge_of_job, count
from models_store.errors import FencedError
from models_store.job_states import FINAL_STATES, Checkpoint, JobRole, JobState

_CHECKPOINTS_KEPT = 2
_JOB = JobRow.__table__.c


@dataclass(kw_only=True)
class HeldJob:
    """Columns of a job that its worker's writes read or change.

    Attributes:
        stored: Columns as they were read, more of them perhaps.
    """

    stored: RowMapping
    position: int
    id: str
    project: str
    kind: str
    state: str
    attempt: int
    worker: str | None
    claimed_at: datetime | None
    lease_expires_at: datetime | None
    run_seconds: float
    failures: list[JsonObject]
    not_before: datetime | None
    failed_on: str | None
    cancel_requested: bool
    model_name: str
    model_version: int | None
    progress: JsonObject | None
    metrics: JsonObject | None
    checkpoints: list[JsonObject]
    result: JsonObject | None
    error_code: str | None
    error_detail: str | None
    last_epoch: int
    last_step: int
    last_event: int
    started_at: datetime | None
    finished_at: datetime | None
    metadata_bytes: int
    checkpoint_bytes: int
    reserved_bytes: int
    role: str | None
    product: JsonObject | None
    product_bytes: int | None
    covered: bool
    charged_bytes: int
    description: str | None
    tags: dict[str, str]

    def whole(self, **more: object) -> SimpleNamespace:
        """Return the columns as they are now, with those that were read beside them, and more."""
        return SimpleNamespace(**{**self.stored, **vars(self)}, **more)


_COLUMNS = tuple(field.name for field in fields(HeldJob) if field.name != "stored")


@contextmanager
def held(
    session: Session, job_id: str, attempt: int, *, lease_s: float | None = None
) -> Iterator[HeldJob]:
    """Lock the job of a worker's attempt, the fence before each of its writes; write what changes.

    Args:
        session: Transaction that takes the lock.
        job_id: Id of the job.
        attempt: Attempt that claimed it.
        lease_s: Seconds of a new lease from now; None: the old one stays.

    Raises:
        FencedError: the attempt no longer holds the job.
    """
    values = {"job_id": job_id, "of_attempt": attempt}
    found = session.connection().execute(_held(), values).one_or_none()
    if found is None:
        raise FencedError(job_id, attempt=attempt)
    row = _of(found)
    yield row
    _write(session, row, lease_s)


@contextmanager
def taken(session: Session, position: int) -> Iterator[HeldJob]:
    """Give a job that is locked already, with all that was stored; write what changes.

    Args:
        session: Transaction that holds the lock.
        position: Position of the job.
    """
    row = _of(session.connection().execute(_TAKEN, {"at": position}).one())
    yield row
    _write(session, row, None)


def name_checkpoint(row: HeldJob, checkpoint: Checkpoint) -> list[str]:
    """Name a checkpoint in a held job; return the keys of those that it no longer names."""
    # Progress is what a next attempt need not do again.
    step = checkpoint.get("step", 0)
    if step > row.last_step:
        row.last_step = step
        row.failures = []
    others = [other for other in row.checkpoints if other["key"] != checkpoint["key"]]
    named = [dict(checkpoint), *others]
    row.checkpoints = named[:_CHECKPOINTS_KEPT]
    return [old["key"] for old in named[_CHECKPOINTS_KEPT:]]


def _of(found: Row[*tuple[Any, ...]]) -> HeldJob:
    stored = found._mapping
    return HeldJob(stored=stored, **{name: stored[name] for name in _COLUMNS})


_SMALL = [column for column in _JOB if column.name not in large_names(JobRow)]
_TAKEN = select(*_SMALL, literal(None).label("product")).where(_JOB.position == bindparam("at"))


@cache
def _held() -> Select[*tuple[Any, ...]]:
    query = select(*(_JOB[name] for name in _COLUMNS)).where(
        _JOB.id == bindparam("job_id"),
        _JOB.attempt == bindparam("of_attempt"),
        _JOB.state == constant(JobState.RUNNING),
    )
    return query.with_for_update()


def _write(session: Session, row: HeldJob, lease_s: float | None) -> None:
    charged = charge_of_job(row)
    if charged != row.charged_bytes:
        count(session, row.project, charged - row.charged_bytes)
        row.charged_bytes = charged
    now = vars(row)
    changed = tuple(name for name in _COLUMNS if now[name] != row.stored[name])
    if not changed and lease_s is None:
        return
    values = {f"new_{name}": now[name] for name in changed}
    if lease_s is not None:
        values["lease_s"] = lease_s
    session.connection().execute(
        _update(changed, lease_s is not None), {"at": row.position, **values}
    )
    if "state" in changed and row.state in FINAL_STATES and row.role != JobRole.CHILD:
        note_end(session, row)


@cache
def _update(changed: tuple[str, ...], lease: bool) -> Update:  # noqa: FBT001 - part of what is built once
    values: dict[str, Any] = {name: bindparam(f"new_{name}") for name in changed}
    if lease:
        values["lease_expires_at"] = db_now(bindparam("lease_s", type_=Float))
    return update(JobRow.__table__).where(_JOB.position == bindparam("at")).values(values)
