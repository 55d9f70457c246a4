"""Retention of jobs that have ended: which of them, and which of their files, are of no more use."""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import ColumnElement, and_, delete, exists, or_, select
from sqlalchemy.orm import Session, aliased

from models_store.database.clock import db_now
from models_store.database.database import Database, reading, writing
from models_store.database.dialects import constant, is_one_of
from models_store.database.schema import (
    DatasetRow,
    JobDatasetRow,
    JobEventRow,
    JobRow,
    ModelRow,
    ModelVersionRow,
)
from models_store.job_states import RESUMABLE_STATES, UNFINISHED_STATES, JobRole, JobState
from models_store.jobs.parents import children_of
from models_store.jobs.rows import count_files, lock_parent
from models_store.rows.idempotency import forget_resources

_IS_CHILD = JobRow.role == constant(JobRole.CHILD)


@dataclass(frozen=True)
class ForgottenChild:
    """Child whose files nothing needs, but for one perhaps.

    Attributes:
        attempt: Its last attempt, whose files and those of earlier ones may go.
        kept_key: Key of the file that its parent needs; None: there is none.
    """

    id: str
    attempt: int
    kept_key: str | None


class JobRetention:
    """Deletion of old jobs, and of what they no longer need."""

    def __init__(self, database: Database) -> None:
        self._database = database

    @reading
    def expired(self, session: Session, *, keep_s: float, limit: int) -> list[str]:
        """Return ids of jobs that ended that long ago and made no version that exists, oldest first.

        Args:
            session: Transaction, which the decorator begins.
            keep_s: Seconds after the end for which a job is kept.
            limit: Most ids.
        """
        query = select(JobRow.id).where(_expired(keep_s)).order_by(JobRow.finished_at)
        return list(session.scalars(query.limit(limit)))

    @writing
    def delete_expired(self, session: Session, job_id: str, *, keep_s: float) -> list[str]:
        """Delete a job that `expired` gave, as `delete`; nothing if it was resumed meanwhile."""
        query = select(JobRow).where(JobRow.id == job_id, _expired(keep_s))
        row = session.scalar(query.with_for_update(of=JobRow))
        return [] if row is None else delete_with_children(session, row)

    @reading
    def leftover(self, session: Session, *, keep_s: float, limit: int) -> list[str]:
        """Return ids of ended jobs whose checkpoints are of no more use, longest ended first.

        Args:
            session: Transaction, which the decorator begins.
            keep_s: Seconds after the end for which they are kept, unless a dataset of the job is
                gone, or its version, without which it cannot be resumed.
            limit: Most ids.
        """
        old = JobRow.finished_at <= db_now(-keep_s)
        query = (
            select(JobRow.id)
            .where(JobRow.stored_bytes > 0, is_one_of(JobRow.state, RESUMABLE_STATES))
            .where(old | _lacks_input())
            .order_by(JobRow.finished_at)
            .limit(limit)
        )
        return list(session.scalars(query))

    @writing
    def forget_checkpoints(self, session: Session, job_id: str, *, keep_s: float) -> int | None:
        """Name no checkpoints in a job that `leftover` gave; their files are the caller's to delete.

        Returns:
            The job's last attempt: its files and those of earlier ones may go. None: it was resumed
            meanwhile.
        """
        query = (
            select(JobRow)
            .where(JobRow.id == job_id, JobRow.state.in_(RESUMABLE_STATES))
            .where((JobRow.finished_at <= db_now(-keep_s)) | _lacks_input())
        )
        row = session.scalar(query.with_for_update(of=JobRow))
        if row is None:
            return None
        row.checkpoints = []
        count_files(row)
        return row.attempt

    @reading
    def needless_children(self, session: Session, *, keep_s: float, limit: int) -> list[str]:
        """Return ids of children whose files, or all of whose traces, nothing needs any more.

        Args:
            session: Transaction, which the decorator begins.
            keep_s: Seconds for which those of a parent are kept that ended without success.
            limit: Most ids.
        """
        # Two queries, so that neither reads all children that there are.
        with_files = select(JobRow.id).where(_with_needless_files()).limit(limit)
        parents = select(JobRow.id).where(_is_abandoned(JobRow, keep_s))
        abandoned = select(JobRow.id).where(_IS_CHILD, JobRow.parent_id.in_(parents)).limit(limit)
        return [*session.scalars(with_files), *session.scalars(abandoned)][:limit]

    @writing
    def forget_child(self, session: Session, job_id: str, *, keep_s: float) -> list[ForgottenChild]:
        """Forget the files of a child that `needless_children` gave.

        One that was abandoned is deleted with all its siblings: a parent that is resumed finds all or none.

        Returns:
            Children whose files are the caller's to delete; none if the parent was resumed.
        """
        lock_parent(session, job_id)
        query = select(JobRow).where(
            JobRow.id == job_id, _with_needless_files() | _of_abandoned(keep_s)
        )
        row = session.scalar(query.with_for_update(of=JobRow))
        if row is None:
            return []
        if not _has_succeeded(session, row.parent_id):
            abandoned = children_of(session, str(row.parent_id), lock=True)
            delete_jobs(session, abandoned)
            return [ForgottenChild(child.id, child.attempt, None) for child in abandoned]
        kept = _kept_key(session, row)
        row.product = None
        row.checkpoints = []
        count_files(row)
        return [ForgottenChild(row.id, row.attempt, kept)]


def delete_with_children(session: Session, row: JobRow) -> list[str]:
    """Delete a locked job that nothing needs, and its children; return their ids."""
    children = children_of(session, row.id, lock=True) if row.role == JobRole.PARENT else []
    return delete_jobs(session, [*children, row])


def delete_jobs(session: Session, rows: Sequence[JobRow]) -> list[str]:
    """Delete locked jobs that nothing needs, with their events; return their ids."""
    ids = [row.id for row in rows]
    for project in {row.project for row in rows}:
        forget_resources(session, project, ids)
    for table in (JobDatasetRow, JobEventRow):
        session.execute(delete(table).where(table.job_id.in_(ids)))
    session.execute(delete(JobRow).where(JobRow.id.in_(ids)))
    return ids


def _expired(keep_s: float) -> ColumnElement[bool]:
    old = JobRow.finished_at <= db_now(-keep_s)
    made_version = exists().where(ModelVersionRow.job_id == JobRow.id)
    alone = JobRow.role.is_distinct_from(JobRole.CHILD)
    return old & alone & JobRow.state.not_in(UNFINISHED_STATES) & ~made_version


def _lacks_input() -> ColumnElement[bool]:
    gone = ~exists().where(DatasetRow.id == JobDatasetRow.dataset_id)
    lacks_dataset = exists().where(
        JobDatasetRow.job_id == JobRow.id, or_(JobDatasetRow.retyped, gone)
    )
    version = exists().where(
        ModelRow.id == ModelVersionRow.model_id,
        ModelRow.project == JobRow.project,
        ModelRow.name == JobRow.model_name,
        ModelVersionRow.version == JobRow.model_version,
    )
    return lacks_dataset | (JobRow.model_version.is_not(None) & ~version)


def _with_needless_files() -> ColumnElement[bool]:
    """Return the condition of children whose files nothing needs: their parent has succeeded."""
    parent = aliased(JobRow)
    ended = exists().where(
        parent.id == JobRow.parent_id,
        parent.role == constant(JobRole.PARENT),
        parent.state == constant(JobState.SUCCEEDED),
    )
    return and_(_IS_CHILD, JobRow.stored_bytes > 0, ended)


def _of_abandoned(keep_s: float) -> ColumnElement[bool]:
    """Return the condition of children whose parent ended without success that long ago.

    Resumed later, it begins again.
    """
    parent = aliased(JobRow)
    old = exists().where(parent.id == JobRow.parent_id, _is_abandoned(parent, keep_s))
    return and_(_IS_CHILD, old)


def _is_abandoned(parent: type[JobRow], keep_s: float) -> ColumnElement[bool]:
    return and_(
        parent.role == constant(JobRole.PARENT),
        is_one_of(parent.state, RESUMABLE_STATES),
        parent.finished_at <= db_now(-keep_s),
    )


def _kept_key(session: Session, row: JobRow) -> str | None:
    """Return the key of the file that a child's parent has its version or its result of.

    Returns:
        None: the parent has neither, or not any more.
    """
    query = select(ModelVersionRow.checkpoint_key).where(ModelVersionRow.job_id == row.parent_id)
    result = session.scalar(select(JobRow.result).where(JobRow.id == row.parent_id))
    return session.scalar(query) if result is None else str(result["key"])


def _has_succeeded(session: Session, job_id: str | None) -> bool:
    """Return whether a job has succeeded."""
    state = session.scalar(select(JobRow.state).where(JobRow.id == job_id))
    return state == JobState.SUCCEEDED
