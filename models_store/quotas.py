"""Quotas of projects: bytes of files, and a number of rows.

What is stored is summed when it is asked: rows with files are few thousands. What describes them is bounded by limits of its own
and by the number of rows. A job is looked at when it is submitted and when it begins, so a project may come to store
more than its quota by one result for each job that runs.
"""

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from models_store.database.dialects import dialect_of, insert_into
from models_store.database.schema import DatasetRow, JobRow, ModelVersionRow, ProjectRow
from models_store.errors import LimitError

MOST_ROWS = 100_000
"""Datasets of a project, versions of its models and jobs: as many of each."""

_FILES = (DatasetRow.stored_bytes, ModelVersionRow.checkpoint_bytes, JobRow.stored_bytes)


def hold_project(session: Session, project: str) -> ProjectRow:
    """Let other transactions of a project that add something wait until this one has ended."""
    new = insert_into(dialect_of(session), ProjectRow).values(name=project)
    session.execute(new.on_conflict_do_nothing())
    query = select(ProjectRow).where(ProjectRow.name == project)
    return session.scalars(query.with_for_update()).one()


def stored_bytes(session: Session, project: str) -> int:
    """Return the bytes of the files of a project."""
    total = 0
    for column in _FILES:
        mine = column.class_.project == project, column > 0
        # PostgreSQL adds big integers up as a decimal number.
        total += int(session.scalar(select(func.sum(column)).where(*mine)) or 0)
    return total


def stored_by_project(session: Session) -> dict[str, int]:
    """Return the bytes of the files of each project that has any."""
    sums: dict[str, int] = {}
    for column in _FILES:
        project = column.class_.project
        query = select(project, func.sum(column)).where(column > 0).group_by(project)
        for name, total in session.execute(query):
            sums[name] = sums.get(name, 0) + int(total)
    return sums


def most_bytes(session: Session, project: str, usual: int) -> int:
    """Return how many bytes the files of a project may have: its own limit, or else the usual one."""
    own = session.scalar(select(ProjectRow.max_bytes).where(ProjectRow.name == project))
    return usual if own is None else own


def check_storage(session: Session, project: str, max_bytes: int, *, more: int = 0) -> None:
    """Refuse to let a project store more than it may.

    Args:
        project: Project that stores it.
        max_bytes: Bytes that its files may have, unless it has a limit of its own.
        more: Bytes that would come on top.

    Raises:
        LimitError: `quota-storage`.
    """
    max_bytes = most_bytes(session, project, max_bytes)
    wanted = stored_bytes(session, project) + more
    if wanted > max_bytes:
        raise LimitError(
            "quota-storage",
            f"The project may store {max_bytes:,} bytes and would have {wanted:,}; delete datasets, versions or"
            " results that are not needed.",
        )
    for column in _FILES:
        row = column.class_
        many = session.scalar(select(func.count()).where(row.project == project)) or 0
        if many > MOST_ROWS:
            raise LimitError(
                "quota-storage",
                f"The project may have {MOST_ROWS:,} datasets, versions and jobs each; it has as many"
                f" {row.__tablename__.replace('_', ' ')} rows: delete some.",
            )
