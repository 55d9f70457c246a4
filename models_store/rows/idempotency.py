"""Idempotency records: which job, dataset or version a caller's key stands for."""

from sqlalchemy import Select, delete, select, tuple_
from sqlalchemy.orm import Session

from models_store.database.clock import db_now
from models_store.database.dialects import dialect_of, insert_into
from models_store.database.schema import IdempotencyRow
from models_store.errors import ConflictError
from models_store.job_states import Idempotency

RETENTION_S = 24 * 3600
_PURGE = 100


def claim_key(session: Session, project: str, idempotency: Idempotency, *, new_id: str) -> str:
    """Return the id of what the key stands for: the new one, if the key is free.

    Of two transactions with one key, the second waits here for the first.

    Raises:
        ConflictError: The key stands for another request.
    """
    _purge(session)
    new = insert_into(dialect_of(session), IdempotencyRow).values(
        project=project,
        key=idempotency.key,
        fingerprint=idempotency.fingerprint,
        resource_id=new_id,
        expires_at=db_now(RETENTION_S),
    )
    changed = ("fingerprint", "resource_id", "expires_at")
    claimed = new.on_conflict_do_update(
        index_elements=[IdempotencyRow.project, IdempotencyRow.key],
        set_={name: new.excluded[name] for name in changed},
        where=IdempotencyRow.expires_at <= db_now(),
    )
    if session.scalar(claimed.returning(IdempotencyRow.resource_id)) is not None:
        return new_id
    return _resource_of(session.scalars(_record(project, idempotency.key)).one(), idempotency)


def known_resource(session: Session, project: str, idempotency: Idempotency) -> str | None:
    """Return the id of what the key stands for by now, if it stands for anything.

    Raises:
        ConflictError: The key stands for another request.
    """
    valid = _record(project, idempotency.key).where(IdempotencyRow.expires_at > db_now())
    first = session.scalar(valid)
    return None if first is None else _resource_of(first, idempotency)


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


def _record(project: str, key: str) -> Select[IdempotencyRow]:
    query = select(IdempotencyRow).where(
        IdempotencyRow.project == project, IdempotencyRow.key == key
    )
    return query.execution_options(populate_existing=True)


def _resource_of(first: IdempotencyRow, idempotency: Idempotency) -> str:
    if first.fingerprint != idempotency.fingerprint:
        raise ConflictError(
            "This idempotency key was used with another request: send a new key with a new request.",
            slug="idempotency-key-reused",
        )
    return first.resource_id


def _purge(session: Session) -> None:
    """Drop some expired records, past those that another transaction is dropping."""
    key = IdempotencyRow.project, IdempotencyRow.key
    expired = select(*key).where(IdempotencyRow.expires_at <= db_now()).limit(_PURGE)
    session.execute(
        delete(IdempotencyRow).where(tuple_(*key).in_(expired.with_for_update(skip_locked=True))),
        execution_options={"synchronize_session": False},
    )
