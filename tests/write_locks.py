"""Checks, while tests run, that transactions which write leave large columns alone.

SQLite has one write lock, for which the writes of all projects wait: see `models_store.database.base`.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any

from sqlalchemy import Dialect
from sqlalchemy.orm import Session

from models_store.database import base
from models_store.database.database import Database

_here = threading.local()
_found: list[str] = []


@contextmanager
def watched() -> Iterator[None]:
    """Fail at the end if a large column was read, or its value encoded, in a transaction that writes."""
    try:
        yield
        assert not _found, "; ".join(_found)
    finally:
        _found.clear()


def _refuse(what: str) -> None:
    if getattr(_here, "writes", False):
        _found.append(f"{what} while a transaction that writes was open")
        raise AssertionError(_found[-1])


def _writing(transact: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(transact)
    def run(database: Database, work: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        def watched_work(session: Session, *args: Any, **kwargs: Any) -> Any:
            _here.writes = True
            try:
                result = work(session, *args, **kwargs)
                session.flush()
            finally:
                _here.writes = False
            return result

        return transact(database, watched_work, *args, **kwargs)

    return run


def _read(_type: base.LargeJson, value: Any, _dialect: Dialect) -> Any:
    if value is not None:
        _refuse("a large column was read")
    return value


def _written(_type: base.LargeJson, value: Any, _dialect: Dialect) -> Any:
    if value is not None and not isinstance(value, base.Encoded):
        _refuse("a large column was written that is not encoded")
    return value


def _encoded(kind: type[base.Encoded], text: str) -> base.Encoded:
    _refuse("a large value was encoded")
    return str.__new__(kind, text)


# Callers' transactions and workers'; those of a test itself begin with `Database.write`.
Database.transact = _writing(Database.transact)  # type: ignore[method-assign]
base.LargeJson.process_result_value = _read  # type: ignore[method-assign, assignment]
base.LargeJson.process_bind_param = _written  # type: ignore[method-assign, assignment]
base.Encoded.__new__ = _encoded  # type: ignore[method-assign, assignment]
