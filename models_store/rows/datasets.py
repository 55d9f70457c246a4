"""Datasets inside a transaction."""

from dataclasses import fields
from functools import cache

from sqlalchemy import Select, bindparam, select
from sqlalchemy.orm import Session, load_only

from models_store.database.ids import is_id
from models_store.database.schema import DatasetRow, JobDatasetRow, JobRow
from models_store.errors import NotFoundError
from models_store.job_states import FINAL_STATES
from models_store.records import DatasetSummary

DATASET_SUMMARY = load_only(
    *(getattr(DatasetRow, field.name) for field in fields(DatasetSummary)), raiseload=True
)
"""Columns that a query of summaries reads: the columns of a table may take megabytes."""


def find_dataset(
    session: Session, project: str, dataset_id: str, *, lock: bool = False, summary: bool = False
) -> DatasetRow:
    """Return a dataset's row.

    Args:
        session: Transaction to read in.
        project: Project that owns the dataset.
        dataset_id: Id of the dataset.
        lock: Keep others from changing it until the transaction ends.
        summary: Leave out what `DATASET_SUMMARY` does.

    Raises:
        NotFoundError: the project has no such dataset.
    """
    row = None
    if is_id(dataset_id, "ds"):
        row = session.scalar(_found(lock, summary), {"dataset_id": dataset_id, "project": project})
    if row is None:
        raise NotFoundError("dataset", dataset_id)
    return row


@cache
def _found(lock: bool, summary: bool) -> Select[DatasetRow]:  # noqa: FBT001 - as of `find_dataset`
    query = select(DatasetRow).where(
        DatasetRow.id == bindparam("dataset_id"), DatasetRow.project == bindparam("project")
    )
    if summary:
        query = query.options(DATASET_SUMMARY)
    return query.with_for_update() if lock else query


# Statements are built once: that takes longer than to run them.
_PINNED = (
    select(DatasetRow.id)
    .where(DatasetRow.id == bindparam("dataset_id"), DatasetRow.project == bindparam("project"))
    .with_for_update(read=True, key_share=True)
)


def pin_dataset(session: Session, project: str, dataset_id: str) -> None:
    """Keep a dataset from being deleted until this transaction, which adds a user, has ended.

    Raises:
        NotFoundError: the project has no such dataset.
    """
    values = {"dataset_id": dataset_id, "project": project}
    if not is_id(dataset_id, "ds") or session.connection().scalar(_PINNED, values) is None:
        raise NotFoundError("dataset", dataset_id)


def user_of(session: Session, dataset_id: str) -> str | None:
    """Return the id of a job that has not ended and reads the dataset, if there is one."""
    return session.scalar(
        select(JobRow.id)
        .join(JobDatasetRow, JobDatasetRow.job_id == JobRow.id)
        .where(JobDatasetRow.dataset_id == dataset_id, JobRow.state.not_in(FINAL_STATES))
        .limit(1)
    )
