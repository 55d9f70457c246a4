"""Datasets inside a transaction."""

from typing import Any

from sqlalchemy import exists, select, update
from sqlalchemy.orm import Session

from models_store.database.dialects import is_one_of
from models_store.database.ids import is_id
from models_store.database.schema import DatasetRow, JobDatasetRow, JobRow
from models_store.errors import (
    ConflictError,
    NotFoundError,
)
from models_store.job_states import RESUMABLE_STATES, UNFINISHED_STATES
from models_store.records import NewDataset


def find_dataset(
    session: Session, project: str, dataset_id: str, *, lock: bool = False
) -> DatasetRow:
    """Return a dataset's row.

    Args:
        lock: Keep others from changing it until the transaction ends.

    Raises:
        NotFoundError: the project has no such dataset.
    """
    row = None
    if is_id(dataset_id, "ds"):
        query = select(DatasetRow).where(DatasetRow.id == dataset_id, DatasetRow.project == project)
        row = session.scalar(query.with_for_update() if lock else query)
    if row is None:
        raise NotFoundError("dataset", dataset_id)
    return row


def pin_dataset(
    session: Session, project: str, dataset_id: str, *, table: str | None = None
) -> None:
    """Keep a dataset from being deleted until this transaction, which adds a user, has ended.

    Args:
        table: Key of the table that it must have still; None: any.

    Raises:
        NotFoundError: the project has no such dataset.
        ConflictError: its types were changed, so that it has another table.
    """
    pinned = select(DatasetRow.key).where(
        DatasetRow.id == dataset_id, DatasetRow.project == project
    )
    pinned = pinned.with_for_update(read=True, key_share=True)
    key = session.scalar(pinned) if is_id(dataset_id, "ds") else None
    if key is None:
        raise NotFoundError("dataset", dataset_id)
    if table not in (None, key):
        raise changed_meanwhile(dataset_id)


def changed_meanwhile(dataset_id: str) -> ConflictError:
    """Return the error of a request for which a dataset was read that has other types by now."""
    return ConflictError(f"Dataset {dataset_id} was changed meanwhile; send the request again.")


def check_unused(session: Session, project: str, dataset_id: str) -> None:
    """Refuse to change a dataset that a job reads which has not ended.

    Looked for among the jobs that have not ended, which are few; any number may have read it before.

    Raises:
        ConflictError: `dataset-in-use`.
    """
    reads = exists().where(
        JobDatasetRow.job_id == JobRow.id, JobDatasetRow.dataset_id == dataset_id
    )
    unfinished = JobRow.project == project, is_one_of(JobRow.state, UNFINISHED_STATES)
    job_id = session.scalar(select(JobRow.id).where(*unfinished, reads).limit(1))
    if job_id is not None:
        detail = f"Dataset {dataset_id} is used by job {job_id}, which has not ended."
        raise ConflictError(detail, slug="dataset-in-use")


def is_same_table(old: NewDataset, new: NewDataset) -> bool:
    """Return whether jobs compute the same with two tables, whether types were found or stated."""
    return old.sha256 == new.sha256 and _used(old) == _used(new)


def _used(dataset: NewDataset) -> list[dict[str, Any]]:
    used = (column for column in dataset.columns if column.get("type") != "ignored")
    return [{**column, "reason": None} for column in used]


def mark_retyped(session: Session, dataset_id: str) -> None:
    """Note in the ended jobs that read a dataset that it has another table now: none of them is resumed."""
    ended = exists().where(
        JobRow.id == JobDatasetRow.job_id, is_one_of(JobRow.state, RESUMABLE_STATES)
    )
    session.execute(
        update(JobDatasetRow)
        .where(JobDatasetRow.dataset_id == dataset_id, ended)
        .values(retyped=True),
        execution_options={"synchronize_session": False},
    )
