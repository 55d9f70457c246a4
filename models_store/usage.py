"""What a project stores, and how much it may."""

from sqlalchemy import BigInteger, func, select
from sqlalchemy.orm import Session

from models_store.errors import LimitError
from models_store.tables import DatasetRow, JobRow, ModelVersionRow


def stored_bytes(session: Session, project: str) -> int:
    """Return the bytes of a project's datasets, weights of models and results of bulk jobs."""
    result_bytes = JobRow.result["bytes"].as_string().cast(BigInteger)
    sums = (
        select(func.sum(DatasetRow.bytes)).where(DatasetRow.project == project),
        select(func.sum(ModelVersionRow.checkpoint_bytes)).where(
            ModelVersionRow.project == project
        ),
        select(func.sum(result_bytes)).where(JobRow.project == project, JobRow.result.is_not(None)),
    )
    return sum(int(session.scalar(query) or 0) for query in sums)


def check_storage(session: Session, project: str, max_bytes: int, *, more: int = 0) -> None:
    """Refuse to store more than a project may.

    Args:
        session: requests that race may together pass the limit on PostgreSQL.
        project: whose storage it is.
        max_bytes: what it may store.
        more: bytes that would come on top; 0: nothing is known of them yet, so one must fit.

    Raises:
        LimitError: `quota-storage`.
    """
    if stored_bytes(session, project) + max(more, 1) > max_bytes:
        raise LimitError(
            "quota-storage",
            f"The project may store {max_bytes:,} bytes; delete datasets that are not needed.",
        )
