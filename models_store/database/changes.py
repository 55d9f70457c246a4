"""Requests that change something: each is noted in the transaction of its first change."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from sqlalchemy import insert
from sqlalchemy.orm import Session

from models_store.database.schema import AuditRow


@dataclass
class Change:
    """Request that may change something.

    Attributes:
        key_id: Key of the caller; None: there are no keys.
        action: Method of the request.
        request_id: Id of the request, as in the log and in the response.
        noted: True once a transaction of the request was committed with the row.
    """

    project: str
    key_id: str | None
    action: str
    resource: str
    request_id: str
    noted: bool = False


_CHANGE: ContextVar[Change | None] = ContextVar("change", default=None)


@contextmanager
def auditing(change: Change) -> Iterator[Change]:
    """Have the transactions of a context, and of the threads that it starts, note a request."""
    token = _CHANGE.set(change)
    try:
        yield change
    finally:
        _CHANGE.reset(token)


def note(session: Session) -> Change | None:
    """Add the row of the request that a transaction works for, unless an earlier one did; return the request."""
    change = _CHANGE.get()
    if change is None or change.noted:
        return None
    values = {name: value for name, value in vars(change).items() if name != "noted"}
    session.execute(insert(AuditRow).values(values))
    return change
