"""Notes of whether anything was committed in a context, or may have been."""

import asyncio

import pytest
from sqlalchemy import event, text
from sqlalchemy.exc import IntegrityError

from models_store.audit.commits import noting_commits
from models_store.database.database import Database
from models_store.database.schema import ApiKeyRow
from models_store.errors import DatabaseUnavailableError


def change(database: Database) -> None:
    with database.write() as session:
        session.execute(text("UPDATE alembic_version SET version_num = version_num"))


def lose(*_: object) -> None:
    raise DatabaseUnavailableError


def test_a_commit_is_noted_in_the_context_that_began_its_thread_alone(database):
    async def main() -> list[bool]:
        with noting_commits() as outer, noting_commits() as inner:
            await asyncio.to_thread(change, database)
        return [outer.any, inner.any]

    assert asyncio.run(main()) == [False, True]


def test_what_is_read_or_rolled_back_is_not_noted(database):
    with noting_commits() as commits:
        database.ping()
        with pytest.raises(KeyError), database.write():
            raise KeyError
    assert not commits.any


def test_a_commit_without_an_answer_is_noted(database):
    lost = pytest.raises(DatabaseUnavailableError)
    with noting_commits() as commits, lost, database.write() as session:
        event.listen(session, "before_commit", lose)
    assert commits.any


def test_rows_that_the_database_refuses_are_not_noted(database):
    with noting_commits() as commits, pytest.raises(IntegrityError), database.write() as session:
        session.add(ApiKeyRow())  # without what it must have
    assert not commits.any
