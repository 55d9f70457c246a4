"""Descriptions and tags that callers give to datasets, models, versions and jobs."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

from sqlalchemy.orm import Session

from models_store.database.base import Base, Described, large_names
from models_store.database.database import Database
from models_store.database.schema import DatasetRow, ModelVersionRow
from models_store.database.usage import Charged, check_storage, label_bytes
from models_store.errors import LimitError, PreconditionError
from models_store.job_states import Job
from models_store.jobs.rows import find, to_job
from models_store.label_types import MAX_TAGS
from models_store.records import Dataset, Model, Version
from models_store.rows.datasets import find_dataset
from models_store.rows.versions import find_model, find_version, to_models, to_versions

_Record = TypeVar("_Record")
_Locked = tuple[Charged, Callable[[], _Record | None]]
_TRIES = 10


@dataclass(frozen=True, kw_only=True)
class LabelChange:
    """Change of a description and of tags.

    Attributes:
        describes: True if the description changes.
        description: New description; None for none.
        tags: New values of tags by their names; None removes a tag.
    """

    describes: bool = False
    description: str | None = None
    tags: Mapping[str, str | None] = field(default_factory=dict)

    def apply(self, row: Described) -> None:
        """Change a locked row; raises as `merged`."""
        if self.describes:
            row.description = self.description
        row.tags = self.merged(row.tags)

    def merged(self, tags: Mapping[str, str]) -> dict[str, str]:
        """Return what becomes of tags.

        Raises:
            LimitError: `limit-tags`, if there would be too many.
        """
        changed = {**tags, **self.tags}
        merged = {name: value for name, value in changed.items() if value is not None}
        if len(merged) > MAX_TAGS:
            detail = f"There may be {MAX_TAGS} tags, and there would be {len(merged)}."
            raise LimitError("limit-tags", detail)
        return merged


def any_state(_resource: object) -> bool:
    """Return true: no condition."""
    return True


class Labels:
    """Descriptions and tags of all projects.

    Each method changes one resource and returns it. Its condition gets the resource as it was: the
    change is made only if it returns true, else there is a `PreconditionError`. It is tested before the
    resource is locked, and again if that has changed meanwhile.

    Args:
        database: Database of the resources.
        max_bytes: Function that returns the bytes that a project may store now; None: any number.
    """

    def __init__(self, database: Database, *, max_bytes: Callable[[], int] | None = None) -> None:
        self._database = database
        self._max_bytes = max_bytes

    def dataset(
        self,
        project: str,
        dataset_id: str,
        change: LabelChange,
        condition: Callable[[Dataset], bool],
    ) -> Dataset:
        """Change a dataset.

        Raises:
            NotFoundError: The project has no such dataset.
            PreconditionError: The condition does not hold.
            LimitError: It would have too many tags, or the project would store too much.
        """

        def read(session: Session) -> Dataset:
            return Dataset.of_row(find_dataset(session, project, dataset_id, full=True))

        def lock(session: Session, before: Dataset) -> _Locked[Dataset]:
            row = find_dataset(session, project, dataset_id, lock=True)
            large = _large(before, DatasetRow) if row.key == before.key else None
            return row, lambda: None if large is None else Dataset.of_row(row, **large)

        return self._change(read, lock, change, condition)

    def job(
        self,
        project: str,
        job_id: str,
        change: LabelChange,
        condition: Callable[[Job], bool],
    ) -> Job:
        """Change a job, as `dataset`."""

        def read(session: Session) -> Job:
            row = find(session, project, job_id, full=True)
            return to_job(row, row.request)

        def lock(session: Session, before: Job) -> _Locked[Job]:
            row = find(session, project, job_id, lock=True)
            return row, partial(to_job, row, before.request)

        return self._change(read, lock, change, condition)

    def model(
        self,
        project: str,
        name: str,
        change: LabelChange,
        condition: Callable[[Model], bool],
    ) -> Model:
        """Change a model, as `dataset`."""

        def read(session: Session) -> Model:
            return to_models(session, [find_model(session, project, name)])[0]

        def lock(session: Session, _before: Model) -> _Locked[Model]:
            row = find_model(session, project, name, lock=True)
            return row, lambda: to_models(session, [row])[0]

        return self._change(read, lock, change, condition)

    def version(
        self,
        project: str,
        name: str,
        number: int,
        change: LabelChange,
        condition: Callable[[Version], bool],
    ) -> Version:
        """Change a version, as `dataset`; only its labels ever change."""

        def read(session: Session) -> Version:
            model = find_model(session, project, name)
            return to_versions(session, model, [find_version(session, model, number, full=True)])[0]

        def lock(session: Session, before: Version) -> _Locked[Version]:
            model = find_model(session, project, name, lock=True)
            row = find_version(session, model, number)
            large = _large(before, ModelVersionRow)
            return row, lambda: to_versions(session, model, [row], large=large)[0]

        return self._change(read, lock, change, condition)

    def _change(
        self,
        read: Callable[[Session], _Record],
        lock: Callable[[Session, _Record], _Locked[_Record]],
        change: LabelChange,
        condition: Callable[[_Record], bool],
    ) -> _Record:
        """Change a resource if the condition holds for it; return the new record.

        Args:
            read: Function that returns the resource with its large fields.
            lock: Function that locks the row of what was read, and returns it with a function of its
                record as it is then; None: it has other large fields now.
            change: Change to make.
            condition: Condition on the resource.
        """
        depends = condition is not any_state
        for _ in range(_TRIES):
            with self._database.read() as session:
                before = read(session)
            if not condition(before):
                raise PreconditionError(f"The {type(before).__name__.lower()} is in another state")
            after = self._database.transact(self._apply, before, lock, change, depends=depends)
            if after is not None:
                return after
        raise PreconditionError("It changes all the time")

    def _apply(
        self,
        session: Session,
        before: _Record,
        lock: Callable[[Session, _Record], _Locked[_Record]],
        change: LabelChange,
        *,
        depends: bool,
    ) -> _Record | None:
        """Change a resource, unless it is another by now and the change depends on that."""
        row, record = lock(session, before)
        present = record()
        if present is None or (depends and present != before):
            return None
        stored = label_bytes(row)  # which `charged_bytes` of an old row lacks
        change.apply(row)
        session.flush()
        if self._max_bytes is not None and label_bytes(row) > stored:
            check_storage(session, row.project, self._max_bytes())
        return record()


def _large(record: Dataset | Version, table: type[Base]) -> dict[str, Any]:
    """Return the fields of a record that its row has in large columns."""
    return {name: getattr(record, name) for name in large_names(table)}
