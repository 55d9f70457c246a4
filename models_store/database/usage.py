"""Bytes that a project stores, counted as its rows change, and how many it may store.

Every row of a dataset, a job, a model or a version holds what it is charged with; the project's `UsageRow`
holds the sum. `charge`, called before every flush, keeps both right, and `held_jobs` does for what workers write:
nothing else adds to them.
Deliveries of webhooks come on top.
"""

import json
from functools import cache
from typing import Protocol

from sqlalchemy import Insert, bindparam, func, select
from sqlalchemy.orm import PassiveFlag, Session, UOWTransaction, attributes

from models_store.database.base import Described, JsonObject, is_whole
from models_store.database.dialects import dialect_of, insert_into
from models_store.database.schema import (
    DatasetRow,
    JobRow,
    ModelRow,
    ModelVersionRow,
    UsageRow,
    WebhookDeliveryRow,
)
from models_store.errors import LimitError
from models_store.job_states import FINAL_STATES, JobKind

EVENT_BYTES = 256
"""Bytes that the row of an event takes beside its data."""

ROW_BYTES = 1024
"""Bytes of any row: identities, hashes, times and indexes, an idempotency record."""

# A tag stands in its row, in the index of tags and in the key of that, whose rows take some bytes besides.
_TAG_COPIES, _TAG_BYTES = 3, 160

_encoded = json.JSONEncoder(separators=(",", ":")).encode
_COUNTED = select(UsageRow.bytes).where(UsageRow.project == bindparam("project"))
# Deliveries are few, and deleted many at once: they are added up when that is asked.
_TO_DELIVER = select(func.sum(WebhookDeliveryRow.bytes)).where(
    WebhookDeliveryRow.project == bindparam("project")
)
_STORED = select(_COUNTED.scalar_subquery(), _TO_DELIVER.scalar_subquery())
Charged = DatasetRow | JobRow | ModelRow | ModelVersionRow
"""Row that counts in the quota of its project."""


def json_bytes(value: object) -> int:
    """Return how many bytes a value takes in a column of JSON."""
    return len(_encoded(value))


def charge(session: Session, _context: UOWTransaction, _instances: object) -> None:
    """Bring what rows are charged with, and their projects' sums, up to date: before each flush."""
    more: dict[str, int] = {}
    deleted = session.deleted  # made anew at each access
    for row in session.new | session.dirty | deleted:
        if isinstance(row, Charged):
            now = 0 if row in deleted else _charge(row)
            change = now - (row.charged_bytes or 0)
            if change:
                row.charged_bytes = now
                more[row.project] = more.get(row.project, 0) + change
    for project, change in sorted(more.items()):
        count(session, project, change)


def count(session: Session, project: str, change: int) -> None:
    """Add what the rows of a project are charged with from now on, or take it away.

    Args:
        session: Transaction that changes the rows.
        project: Project that owns them.
        change: Bytes more, negative for fewer.
    """
    session.connection().execute(
        _counting(dialect_of(session)), {"project": project, "change": change}
    )


def hold_project(session: Session, project: str) -> None:
    """Let other transactions of a project that add something wait until this one has ended."""
    count(session, project, 0)


@cache
def _counting(dialect: str) -> Insert:
    added = insert_into(dialect, UsageRow).values(
        project=bindparam("project"), bytes=bindparam("change")
    )
    return added.on_conflict_do_update(
        index_elements=[UsageRow.project], set_={"bytes": UsageRow.bytes + added.excluded.bytes}
    )


def stored_bytes(session: Session, project: str) -> int:
    """Return what a project stores and has reserved, with what it has to deliver."""
    session.flush()
    found = session.connection().execute(_STORED, {"project": project}).one()
    # PostgreSQL adds deliveries up as a decimal number.
    return sum(int(part or 0) for part in found)


def check_storage(session: Session, project: str, max_bytes: int, *, more: int = 0) -> None:
    """Refuse to let a project store more than it may.

    After the flush of what it adds, this is exact: the row of the sum is locked until the
    transaction ends, and others that add to it wait. Ends of jobs make deliveries whatever the quota
    is; those keep the project from starting more.

    Args:
        session: Transaction, in which what was added is flushed.
        project: Project that stores it.
        max_bytes: Bytes that it may store.
        more: Bytes that would come on top.

    Raises:
        LimitError: `quota-storage`.
    """
    wanted = stored_bytes(session, project) + more
    if wanted > max_bytes:
        raise LimitError(
            "quota-storage",
            f"The project may store {max_bytes:,} bytes and would have {wanted:,}, with what its"
            " unfinished jobs may come to store; delete datasets, results or webhooks that are not"
            " needed.",
        )


def _charge(row: Charged) -> int:
    described: tuple[object, ...]
    match row:
        case DatasetRow() | ModelVersionRow() if not is_whole(row):
            # Nothing else of it changes; tags of rows from before counted less.
            return max(ROW_BYTES + _file_bytes(row), row.charged_bytes + _change_of_labels(row))
        case DatasetRow():
            described = (row.columns, row.warnings, row.options)
            return ROW_BYTES + _file_bytes(row) + sum(map(json_bytes, described)) + label_bytes(row)
        case ModelRow():
            return row.history_bytes + label_bytes(row)
        case ModelVersionRow():
            described = (
                row.columns,
                row.context_columns,
                row.types,
                row.flow,
                row.metrics,
                row.target,
                row.held_out,
            )
            return ROW_BYTES + _file_bytes(row) + sum(map(json_bytes, described)) + label_bytes(row)
        case JobRow():
            return charge_of_job(row)


def _file_bytes(row: DatasetRow | ModelVersionRow) -> int:
    """Return the bytes of the files of a dataset or a version."""
    if isinstance(row, ModelVersionRow):
        return row.checkpoint_bytes
    return row.bytes + (0 if row.cells is None else int(row.cells["bytes"]))


class ChargedJob(Protocol):
    """Columns of a job that decide what it is charged with."""

    kind: str
    state: str
    covered: bool
    metadata_bytes: int
    checkpoint_bytes: int
    reserved_bytes: int
    checkpoints: list[JsonObject]
    result: JsonObject | None
    product_bytes: int | None
    description: str | None
    tags: dict[str, str]


def charge_of_job(row: ChargedJob | JobRow) -> int:
    """Return the bytes that a job is charged with; set those of its checkpoints."""
    row.checkpoint_bytes = _checkpoint_bytes(row)
    if row.covered:
        return 0
    result_bytes = 0 if row.result is None else int(row.result["bytes"])
    stored = ROW_BYTES + (row.metadata_bytes or 0) + row.checkpoint_bytes + result_bytes
    stored += label_bytes(row) + (row.product_bytes or 0)
    return stored if row.state in FINAL_STATES else max(stored, row.reserved_bytes or 0)


def label_bytes(row: ChargedJob | Described) -> int:
    """Return the bytes of a description and of tags, which mostly there are none of."""
    return sum(_label_bytes(label) for label in (row.description, row.tags) if label)


def _label_bytes(label: str | dict[str, str]) -> int:
    """Return the bytes of a description, or of tags with their index."""
    if isinstance(label, str):
        return json_bytes(label)
    return _TAG_COPIES * json_bytes(label) + _TAG_BYTES * len(label)


def _change_of_labels(row: Described) -> int:
    """Return how many bytes more the labels of a changed row take."""
    unloaded = PassiveFlag.PASSIVE_NO_INITIALIZE
    found = [attributes.get_history(row, name, unloaded) for name in ("description", "tags")]
    before = sum(_label_bytes(old) for one in found for old in one.deleted or () if old)
    return sum(_label_bytes(new) for one in found for new in one.added or () if new) - before


def _checkpoint_bytes(row: ChargedJob | JobRow) -> int:
    """Return the bytes of a job's checkpoints; one byte for each from before they were kept."""
    sizes = [int(checkpoint.get("bytes", 1)) for checkpoint in row.checkpoints or ()]
    # Of bulk work, the newest list names the parts of the older ones, too.
    return sum(sizes) if JobKind(row.kind).makes_version else max(sizes, default=0)
