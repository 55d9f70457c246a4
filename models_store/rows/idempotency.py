"""Idempotency records: which job, dataset or version a caller's key stands for."""

from functools import cache
from typing import Any

from sqlalchemy import Row, bindparam, delete, select, tuple_
from sqlalchemy.orm import Session
from sqlalchemy.sql.dml import ReturningInsert

from models_store.database.clock import db_now
from models_store.database.dialects import dialect_of, insert_into
from models_store.database.schema import IdempotencyRow
from models_store.errors import IdempotencyReusedError
from models_store.job_states import Idempotency

RETENTION_S = 24 * 3600
_PURGE = 100
# Statements are built once: that takes longer than to run them.
_RECORD = select(IdempotencyRow.fingerprint, IdempotencyRow.resource_id).where(
    IdempotencyRow.project == bindparam("project"), IdempotencyRow.key == bindparam("key")
)
_KEY = (IdempotencyRow.project, IdempotencyRow.key)
_PURGED = delete(IdempotencyRow.__table__).where(
    tuple_(*_KEY).in_(
        select(*_KEY)
        .where(IdempotencyRow.expires_at <= db_now())
        .limit(_PURGE)
        .with_for_update(skip_locked=True)
    )
)
_VALID = _RECORD.where(IdempotencyRow.expires_at > db_now())


def claim_key(session: Session, project: str, idempotency: Idempotency, *, new_id: str) -> str:
    """Return the id of what the key stands for: the new one, if the key is free.

    Of two transactions with one key, the second waits here for the first.

    Raises:
        IdempotencyReusedError: The key stands for another request.
    """
    _purge(session)
    values = {
        "project": project,
        "key": idempotency.key,
        "fingerprint": idempotency.fingerprint,
        "resource_id": new_id,
    }
    if session.connection().scalar(_claim(dialect_of(session)), values) is not None:
        return new_id
    record = {"project": project, "key": idempotency.key}
    return _resource_of(session.connection().execute(_RECORD, record).one(), idempotency)


@cache
def _claim(dialect: str) -> ReturningInsert[str]:
    told: dict[str, Any] = {name: bindparam(name) for name in ("fingerprint", "resource_id")}
    new = insert_into(dialect, IdempotencyRow).values(
        project=bindparam("project"), key=bindparam("key"), expires_at=db_now(RETENTION_S), **told
    )
    return new.on_conflict_do_update(
        index_elements=[IdempotencyRow.project, IdempotencyRow.key],
        set_={name: new.excluded[name] for name in (*told, "expires_at")},
        where=IdempotencyRow.expires_at <= db_now(),
    ).returning(IdempotencyRow.resource_id)


def known_resource(session: Session, project: str, idempotency: Idempotency) -> str | None:
    """Return the id of what the key stands for by now, if it stands for anything.

    Raises:
        IdempotencyReusedError: The key stands for another request.
    """
    record = {"project": project, "key": idempotency.key}
    first = session.connection().execute(_VALID, record).one_or_none()
    return None if first is None else _resource_of(first, idempotency)


def is_known(session: Session, project: str, key: str) -> bool:
    """Return whether a key stands for something, whatever the request was."""
    known = select(IdempotencyRow.key).where(
        IdempotencyRow.project == project,
        IdempotencyRow.key == key,
        IdempotencyRow.expires_at > db_now(),
    )
    return session.scalar(known) is not None


def forget_resource(session: Session, project: str, resource_id: str) -> None:
    """Free the keys that stand for something which is no more."""
    forget_resources(session, project, [resource_id])


def forget_resources(session: Session, project: str, ids: list[str]) -> None:
    """Free the keys that stand for one of several things which are no more."""
    session.execute(
        delete(IdempotencyRow).where(
            IdempotencyRow.project == project, IdempotencyRow.resource_id.in_(ids)
        ),
        execution_options={"synchronize_session": False},
    )


def _resource_of(first: Row[str, str], idempotency: Idempotency) -> str:
    if first.fingerprint != idempotency.fingerprint:
        raise IdempotencyReusedError(idempotency.key)
    resource_id: str = first.resource_id
    return resource_id


def _purge(session: Session) -> None:
    """Drop some expired records, past those that another transaction is dropping."""
    session.connection().execute(_PURGED)
