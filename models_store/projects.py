"""Projects as administrators of the service see them: what they store, and limits of their own."""

from dataclasses import dataclass
from typing import NamedTuple

from sqlalchemy import func, select, union
from sqlalchemy.orm import Session

from models_store.database.database import Rows, reading, writing
from models_store.database.ids import is_name
from models_store.database.schema import ApiKeyRow, DatasetRow, JobRow, ModelRow, ProjectRow
from models_store.errors import NotFoundError
from models_store.quotas import hold_project, stored_by_project
from models_store.records import Record


@dataclass(frozen=True, kw_only=True)
class Project(Record):
    """A project; its limits are None where those of the settings hold.

    Attributes:
        keys: Number of keys, ended ones included.
    """

    name: str
    max_bytes: int | None
    max_queued_jobs: int | None
    stored_bytes: int
    keys: int


class Limits(NamedTuple):
    """Limits of a project; None where those of the settings hold."""

    max_bytes: int | None = None
    max_queued_jobs: int | None = None


class Projects(Rows):
    """All projects: those that were made, and those that something belongs to."""

    @reading
    def list(self, session: Session) -> "list[Project]":
        """Return all projects by name."""
        return _found(session)

    @reading
    def get(self, session: Session, name: str) -> Project:
        """Return a project.

        Raises:
            NotFoundError: There is none.
        """
        return next(iter(_found(session, name)), None) or _refuse(name)

    @reading
    def limits(self, session: Session, name: str) -> Limits:
        """Return the limits of a project, which nothing need belong to."""
        columns = select(ProjectRow.max_bytes, ProjectRow.max_queued_jobs)
        row = session.execute(columns.where(ProjectRow.name == name)).first()
        return Limits() if row is None else Limits(*row)

    @writing
    def put(
        self, session: Session, name: str, *, max_bytes: int | None, max_queued_jobs: int | None
    ) -> Project:
        """Make a project, or set the limits of one.

        Args:
            max_bytes: Bytes that its files may have; None: as the settings say.
            max_queued_jobs: Jobs of it that may wait; None: as the settings say.

        Raises:
            NotFoundError: The name is none that a project can have.
        """
        if not is_name(name):
            _refuse(name)
        row = hold_project(session, name)
        row.max_bytes, row.max_queued_jobs = max_bytes, max_queued_jobs
        session.flush()
        (project,) = _found(session, name)
        return project


def _refuse(name: str) -> Project:
    raise NotFoundError("project", name)


def _found(session: Session, name: str | None = None) -> list[Project]:
    columns = (ApiKeyRow.project, DatasetRow.project, JobRow.project, ModelRow.project)
    known = union(select(ProjectRow.name), *(select(column).distinct() for column in columns))
    named = known.subquery()
    keys = select(func.count()).where(ApiKeyRow.project == named.c.name).scalar_subquery()
    query = (
        select(named.c.name, ProjectRow.max_bytes, ProjectRow.max_queued_jobs, keys.label("keys"))
        .outerjoin(ProjectRow, ProjectRow.name == named.c.name)
        .order_by(named.c.name)
    )
    if name is not None:
        query = query.where(named.c.name == name)
    stored = stored_by_project(session)
    return [
        Project.of_row(row, stored_bytes=stored.get(row.name, 0)) for row in session.execute(query)
    ]
