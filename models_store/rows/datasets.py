"""Datasets inside a transaction."""

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

from sqlalchemy import Select, bindparam, exists, select, update
from sqlalchemy.orm import Session

from models_store.database.base import large_names, whole
from models_store.database.dialects import is_one_of
from models_store.database.ids import is_id
from models_store.database.schema import DatasetRow, JobDatasetRow, JobRow
from models_store.database.usage import check_storage
from models_store.errors import (
    ConflictError,
    DatasetInUseError,
    NotFoundError,
    PreconditionError,
)
from models_store.job_states import RESUMABLE_STATES, UNFINISHED_STATES, Idempotency
from models_store.records import Dataset, NewDataset
from models_store.rows.idempotency import claim_key

MOST_READERS = 10_000
"""Most jobs of a dataset whose table may change: while these are told, nobody else writes to SQLite."""


def find_dataset(
    session: Session, project: str, dataset_id: str, *, lock: bool = False, full: bool = False
) -> DatasetRow:
    """Return a dataset's row.

    Args:
        session: Transaction to read in.
        project: Project that owns the dataset.
        dataset_id: Id of the dataset.
        lock: Keep others from changing it until the transaction ends.
        full: Read its large columns, too.

    Raises:
        NotFoundError: the project has no such dataset.
    """
    row = None
    if is_id(dataset_id, "ds"):
        row = session.scalar(_found(lock, full), {"dataset_id": dataset_id, "project": project})
    if row is None:
        raise NotFoundError("dataset", dataset_id)
    return row


@cache
def _found(lock: bool, full: bool) -> Select[DatasetRow]:  # noqa: FBT001 - as of `find_dataset`
    query = select(DatasetRow).where(
        DatasetRow.id == bindparam("dataset_id"), DatasetRow.project == bindparam("project")
    )
    if full:
        query = query.options(*whole(DatasetRow))
    return query.with_for_update() if lock else query


# Statements are built once: that takes longer than to run them.
_PINNED = (
    select(DatasetRow.key)
    .where(DatasetRow.id == bindparam("dataset_id"), DatasetRow.project == bindparam("project"))
    .with_for_update(read=True, key_share=True)
)
_USER = (
    select(JobRow.id)
    .where(JobRow.project == bindparam("project"), is_one_of(JobRow.state, UNFINISHED_STATES))
    .where(
        exists().where(
            JobDatasetRow.job_id == JobRow.id,
            JobDatasetRow.dataset_id == bindparam("dataset_id"),
        )
    )
    .limit(1)
)


def pin_dataset(
    session: Session, project: str, dataset_id: str, *, table: str | None = None
) -> None:
    """Keep a dataset from being deleted until this transaction, which adds a user, has ended.

    Args:
        session: Transaction to read in.
        project: Project that owns the dataset.
        dataset_id: Id of the dataset.
        table: Key of the table that it must have still; None: any.

    Raises:
        NotFoundError: the project has no such dataset.
        ConflictError: its types were changed, so that it has another table.
    """
    values = {"dataset_id": dataset_id, "project": project}
    key = session.connection().scalar(_PINNED, values) if is_id(dataset_id, "ds") else None
    if key is None:
        raise NotFoundError("dataset", dataset_id)
    if table not in (None, key):
        raise changed_meanwhile(dataset_id)


def changed_meanwhile(dataset_id: str) -> ConflictError:
    """Return the error of a request for which a dataset was read that has other types by now."""
    return ConflictError(f"Dataset {dataset_id} was changed meanwhile; send the request again.")


def user_of(session: Session, project: str, dataset_id: str) -> str | None:
    """Return the id of a job that has not ended and reads a dataset of a project, if there is one.

    Found among the jobs that have not ended, which are few; any number may have read it before.
    """
    values = {"dataset_id": dataset_id, "project": project}
    return session.connection().scalar(_USER, values)


def add_dataset(
    session: Session,
    new: NewDataset,
    columns: Mapping[str, Any],
    *,
    idempotency: Idempotency | None,
    max_bytes: int | None,
) -> Dataset | str:
    """Register a table, or return the id of that which an earlier request gave.

    Args:
        session: Transaction to write in.
        new: Table to register.
        columns: Columns of its row, the large ones encoded.
        idempotency: Key of the caller's request.
        max_bytes: Bytes that the project may store.

    Raises:
        IdempotencyReusedError: The key came before with another fingerprint.
        LimitError: The project would store too much.
    """
    if idempotency is not None:
        first_id = claim_key(session, new.project, idempotency, new_id=new.id)
        if first_id != new.id:
            return first_id
    row = DatasetRow(**columns)
    session.add(row)
    session.flush()
    if max_bytes is not None:
        check_storage(session, new.project, max_bytes)
    return Dataset(**vars(new), created_at=row.created_at)


def is_same_table(old: NewDataset, new: NewDataset) -> bool:
    """Return whether jobs compute the same with two tables, whether types were found or stated."""
    return old.sha256 == new.sha256 and _used(old) == _used(new)


def _used(dataset: NewDataset) -> list[dict[str, Any]]:
    used = (column for column in dataset.columns if column.get("type") != "ignored")
    return [{**column, "reason": None} for column in used]


def retype_dataset(  # noqa: PLR0913 - each is another part of the change
    session: Session,
    old: Dataset,
    new: NewDataset,
    changed: Mapping[str, Any],
    *,
    same: bool,
    relabel: Callable[[DatasetRow], None],
    as_labelled: bool,
    max_bytes: int | None,
) -> Dataset:
    """Put a table with other types in the place of one, as `Registry.retype_dataset` says.

    Jobs that could be resumed read the old table, which is gone: they name its key in place of the dataset,
    unless the new one is the same.

    Args:
        session: Transaction to write in.
        old: Dataset as it was read before.
        new: The same dataset with another table.
        changed: Columns of the row that change, the large ones encoded.
        same: True if jobs compute the same with both, as `is_same_table` finds.
        relabel: Function that changes the labels of the row, too.
        as_labelled: True if it must have the labels still that it was read with.
        max_bytes: Bytes that the project may store.

    Raises:
        NotFoundError: The project has no such dataset any more.
        DatasetInUseError: A job that has not ended reads it.
        ConflictError: It was changed since it was read, or too many jobs have read it.
        PreconditionError: It has other labels.
        LimitError: It would have too many tags, or the project would store too much.
    """
    row = find_dataset(session, old.project, old.id, lock=True)
    job_id = user_of(session, old.project, old.id)
    if job_id is not None:
        raise DatasetInUseError(old.id, job_id=job_id)
    if row.key != old.key:
        raise changed_meanwhile(old.id)
    if as_labelled and (row.description, row.tags) != (old.description, old.tags):
        raise PreconditionError("The dataset is in another state")
    if not same:
        _check_readers(session, old)
        _disown(session, old)
    for name, value in changed.items():
        setattr(row, name, value)
    relabel(row)
    session.flush()
    if max_bytes is not None:
        check_storage(session, old.project, max_bytes)
    return Dataset.of_row(row, **{name: getattr(new, name) for name in large_names(DatasetRow)})


def _check_readers(session: Session, old: Dataset) -> None:
    """Refuse to change the table of a dataset that so many jobs have read that others would wait for it.

    Raises:
        ConflictError: There are more than `MOST_READERS`.
    """
    read = select(JobDatasetRow.dataset_id).where(JobDatasetRow.dataset_id == old.id)
    if session.scalar(read.offset(MOST_READERS).limit(1)) is not None:
        raise ConflictError(
            f"More than {MOST_READERS:,} jobs have read dataset {old.id}: delete some of them, or upload"
            " its file again with these types."
        )


def _disown(session: Session, old: Dataset) -> None:
    """Let jobs that could be resumed name the key of a table in place of its dataset."""
    # What such a job did before it was resumed would be of another table than the rest.
    ended = exists().where(
        JobRow.id == JobDatasetRow.job_id, is_one_of(JobRow.state, RESUMABLE_STATES)
    )
    session.execute(
        update(JobDatasetRow)
        .where(JobDatasetRow.dataset_id == old.id, ended)
        .values(dataset_id=old.key),
        execution_options={"synchronize_session": False},
    )
