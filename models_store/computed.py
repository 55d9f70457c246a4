"""Rows that requests have had computed, by project and day."""

from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy import delete, func, select
from sqlalchemy.orm import Session

from models_store.database.clock import db_now
from models_store.database.database import Rows, reading, writing
from models_store.database.dialects import dialect_of, insert_into
from models_store.database.schema import ComputedRow, DatasetRow, JobRow, ModelRow, ModelVersionRow
from models_store.job_states import JobRole, JobState
from models_store.quotas import stored_bytes

_DAYS = 30


@dataclass(frozen=True, kw_only=True)
class ProjectUsage:
    """Storage and requests of a project.

    Attributes:
        jobs: Number of jobs in each state that there are any in.
        waiting: Number of those that wait and count in the limit; children do not.
        rows_today: Rows that requests have had computed on this day, in UTC.
        rows_recently: Those of the last 30 days, this one included.
    """

    stored_bytes: int
    datasets: int
    models: int
    versions: int
    jobs: dict[str, int]
    waiting: int
    rows_today: int
    rows_recently: int


class Usage(Rows):
    """Usage of all projects."""

    @writing
    def add_rows(self, session: Session, rows: Mapping[str, int]) -> None:
        """Add rows that were computed today, by project, and forget those of days that no longer count."""
        today = _today(session)
        for project, count in sorted(rows.items()):
            session.execute(
                insert_into(dialect_of(session), ComputedRow)
                .values(project=project, day=today, rows=count)
                .on_conflict_do_update(
                    index_elements=[ComputedRow.project, ComputedRow.day],
                    set_={"rows": ComputedRow.rows + count},
                )
            )
            past = ComputedRow.project == project, ComputedRow.day <= today - _DAYS
            session.execute(delete(ComputedRow).where(*past))

    @reading
    def of_project(self, session: Session, project: str) -> ProjectUsage:
        """Return the usage of a project."""
        today = _today(session)
        recent = select(ComputedRow.day, ComputedRow.rows).where(
            ComputedRow.project == project, ComputedRow.day > today - _DAYS
        )
        rows = {found.day: found.rows for found in session.execute(recent)}
        states = select(JobRow.state, func.count()).where(JobRow.project == project)
        states = states.group_by(JobRow.state)
        return ProjectUsage(
            stored_bytes=stored_bytes(session, project),
            datasets=_count(session, DatasetRow, project),
            models=_count(session, ModelRow, project),
            versions=_count(session, ModelVersionRow, project),
            jobs={str(state): int(count) for state, count in session.execute(states)},
            waiting=_count_waiting(session, project),
            rows_today=rows.get(today, 0),
            rows_recently=sum(rows.values()),
        )


def _today(session: Session) -> int:
    """Return the number of the present day, by the database's clock."""
    return session.scalars(select(db_now())).one().date().toordinal()


def _count_waiting(session: Session, project: str) -> int:
    query = select(func.count()).select_from(JobRow).where(JobRow.project == project)
    query = query.where(JobRow.state == JobState.QUEUED)
    return session.scalar(query.where(JobRow.role.is_distinct_from(JobRole.CHILD))) or 0


def _count(
    session: Session, row: type[DatasetRow | ModelRow | ModelVersionRow], project: str
) -> int:
    query = select(func.count()).select_from(row).where(row.project == project)
    if row is ModelRow:
        query = query.where(ModelRow.latest_version > 0)
    return session.scalar(query) or 0
