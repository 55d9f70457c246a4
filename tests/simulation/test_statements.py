"""Statements on the driver give what SQLAlchemy gives."""

from collections.abc import Iterator

import pytest
from sqlalchemy import bindparam, insert, select, update

from models_store.database.schema import JobEventRow, JobRow
from tests.simulation.plan import draw
from tests.simulation.schedules import run_plan
from tests.simulation.statements import Statements
from tests.simulation.world import Grounds

_JOBS = select(JobRow.__table__).order_by(JobRow.position)
_IDS = select(JobRow.id).order_by(JobRow.position)
_ONE = _JOBS.where(JobRow.id == bindparam("job_id"))
_SOME = _JOBS.where(JobRow.id.in_(bindparam("job_ids", expanding=True)))
_CHANGED = update(JobRow.__table__).values(metrics=bindparam("told")).returning(JobRow.metrics)
_EVENTS = select(JobEventRow.__table__).where(JobEventRow.event == "new")


@pytest.fixture
def writer(grounds: Grounds) -> Iterator[Statements]:
    """A transaction among the rows of a schedule, which is taken back."""
    assert run_plan(draw(3), grounds).violation is None  # a search and its children
    writer = grounds.database.writer
    with writer.connection.begin() as transaction:
        yield writer
        transaction.rollback()


def test_rows_and_values_are_those_of_sqlalchemy(writer: Statements) -> None:
    ids = writer.scalars(_IDS).all()
    assert len(ids) > 1
    assert ids == writer.connection.scalars(_IDS).all()
    assert writer.scalar(_IDS) == ids[0]
    assert writer.execute(_JOBS).all() == writer.connection.execute(_JOBS).all()
    found = writer.execute(_ONE, {"job_id": ids[1]}).one()
    assert found == writer.connection.execute(_ONE, {"job_id": ids[1]}).one()
    assert (found.id, found._mapping["id"]) == (ids[1], ids[1])
    assert writer.execute(_SOME, {"job_ids": ids[:2]}).all() == writer.execute(_JOBS).all()[:2]


def test_what_is_not_there_is_none(writer: Statements) -> None:
    nothing = {"job_id": "job_none"}
    assert writer.execute(_ONE, nothing).one_or_none() is None
    assert writer.scalar(_ONE, nothing) is None


def test_values_are_written_as_sqlalchemy_writes_them(writer: Statements) -> None:
    told = {"epoch": 1, "names": ["ä"]}
    assert set(map(str, writer.scalars(_CHANGED, {"told": told}))) == {str(told)}
    assert writer.connection.scalars(select(JobRow.metrics)).first() == told
    job_id = writer.scalar(_IDS)
    events = [
        {"job_id": job_id, "seq": seq, "project": "p", "event": "new", "data": told}
        for seq in (1000, 1001)
    ]
    writer.execute(insert(JobEventRow.__table__), events)
    assert [row.data for row in writer.connection.execute(_EVENTS)] == [told, told]
