"""Retention of jobs that have ended: those that are of no more use go, and so do files that nothing needs."""

from collections.abc import Sequence

from sqlalchemy import ColumnElement, delete, exists, or_, select
from sqlalchemy.orm import Session, aliased

from models_store.database.clock import db_now
from models_store.database.database import Rows, writing
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
from models_store.jobs.rows import count_files
from models_store.rows.idempotency import forget_resources

_IS_CHILD = JobRow.role == constant(JobRole.CHILD)


Attempt = tuple[str, int]
"""Id of a job and its last attempt: its files and those of earlier ones may go."""


class JobRetention(Rows):
    """Deletion of old jobs, and of what they no longer need.

    Each method does some of it, `limit` jobs at most, past those that another process is deleting. What it
    returns has files, which are the caller's to delete.
    """

    @writing
    def delete_expired(self, session: Session, *, keep_s: float, limit: int) -> list[str]:
        """Delete jobs that ended that long ago and made no version that exists; return their ids."""
        made_version = exists().where(ModelVersionRow.job_id == JobRow.id)
        expired = (
            JobRow.finished_at <= db_now(-keep_s),
            JobRow.role.is_distinct_from(JobRole.CHILD),
            JobRow.state.not_in(UNFINISHED_STATES),
            ~made_version,
        )
        rows = _locked(session, *expired, limit=limit)
        return [job_id for row in rows for job_id in delete_with_children(session, row)]

    @writing
    def forget_checkpoints(self, session: Session, *, keep_s: float, limit: int) -> list[Attempt]:
        """Name no checkpoints in jobs that ended that long ago, or that cannot be resumed: an input is gone."""
        old = JobRow.finished_at <= db_now(-keep_s)
        leftover = (
            JobRow.stored_bytes > 0,
            is_one_of(JobRow.state, RESUMABLE_STATES),
            old | _lacks_input(),
        )
        rows = _locked(session, *leftover, limit=limit)
        for row in rows:
            row.checkpoints = []
            count_files(row)
        return [(row.id, row.attempt) for row in rows]

    @writing
    def forget_children(self, session: Session, *, keep_s: float, limit: int) -> list[Attempt]:
        """Forget the files of children whose parent has succeeded: that which it needs is its own by then.

        Children of a parent that ended that long ago without success are deleted: resumed, it begins anew.
        """
        parent = aliased(JobRow)
        succeeded = exists().where(
            parent.id == JobRow.parent_id, parent.state == constant(JobState.SUCCEEDED)
        )
        done = _locked(session, _IS_CHILD, JobRow.stored_bytes > 0, succeeded, limit=limit)
        forgotten = [(row.id, row.attempt) for row in done]
        for row in done:
            row.product, row.checkpoints = None, []
            count_files(row)
        child = aliased(JobRow)
        abandoned = (
            JobRow.role == constant(JobRole.PARENT),
            is_one_of(JobRow.state, RESUMABLE_STATES),
            JobRow.finished_at <= db_now(-keep_s),
            exists().where(child.parent_id == JobRow.id, child.role == constant(JobRole.CHILD)),
        )
        for row in _locked(session, *abandoned, limit=limit):
            children = children_of(session, row.id, lock=True)
            forgotten += [(one.id, one.attempt) for one in children]
            delete_jobs(session, children)
        return forgotten


def _locked(session: Session, *conditions: ColumnElement[bool], limit: int) -> Sequence[JobRow]:
    """Lock and return jobs that nobody else has locked, longest ended first."""
    query = select(JobRow).where(*conditions).order_by(JobRow.finished_at).limit(limit)
    return session.scalars(query.with_for_update(of=JobRow, skip_locked=True)).all()


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
