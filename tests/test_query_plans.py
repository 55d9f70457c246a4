"""The look at the plans of statements finds those that read whole tables."""

import pytest
from sqlalchemy import func, select

from models_store.database.database import Database
from models_store.database.schema import JobRow, WorkerRow
from models_store.jobs.figures import JobFigures
from tests import query_plans
from tests.query_plans import planned, scanned


@pytest.mark.parametrize(
    "plan",
    [
        "SCAN job",
        "SCAN job_1",
        "SCAN job USING INDEX ix_job_child",
        "SEARCH model USING INDEX x (id=?)\nSCAN job USING COVERING INDEX sqlite_autoindex_job_1",
        "Limit\n  ->  Seq Scan on job  (cost=0.00..11.10 rows=110 width=54)",
        "Seq Scan on job job_1  (cost=0.00..11.10 rows=110 width=54)",
    ],
)
def test_a_plan_that_reads_a_table_of_projects_is_found(plan: str) -> None:
    assert scanned(plan) == {"job"}


@pytest.mark.parametrize(
    "plan",
    [
        "SEARCH job USING INDEX ix_job_parent (state=?)",
        "SCAN worker",
        "SCAN anon_1",
        "SCAN (subquery-5)",
        "SCAN job USING INDEX ix_job_finished_at",
        "Index Scan using uq_job_id on job  (cost=0.00..1.10 rows=1 width=54)",
        "Seq Scan on worker",
    ],
)
def test_a_plan_that_reads_few_rows_is_none(plan: str) -> None:
    assert scanned(plan) == set()


def test_a_statement_of_the_service_is_looked_at(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(query_plans, "_place", lambda: "models_store/here.py:1")
    whole = select(func.count()).select_from(JobRow).where(JobRow.kind == "told apart")
    found = pytest.raises(AssertionError, match=r"here\.py:1 reads all of job")
    with found, planned(), database.read() as session:
        session.execute(whole)
    with planned(), database.read() as session:
        session.execute(select(WorkerRow.name))
    with planned():
        JobFigures(database).read()
