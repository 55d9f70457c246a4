"""Descriptions and tags that callers give to datasets, models, versions and jobs."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from sqlalchemy.orm import Session

from models_store.database.base import Described
from models_store.database.database import Rows, writing
from models_store.errors import ConflictError, LimitError
from models_store.job_states import Job
from models_store.jobs.rows import find, to_job
from models_store.label_types import MAX_TAGS
from models_store.records import Dataset, Model, Version
from models_store.rows.datasets import find_dataset
from models_store.rows.versions import find_model, find_version, to_models, to_versions

_Record = TypeVar("_Record")


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


class Labels(Rows):
    """Descriptions and tags of all projects.

    Each method changes one resource and returns it. Its condition gets the resource as it was: the
    change is made only if it returns true, else there is a `ConflictError`. There is a `LimitError` if the
    resource would have too many tags.
    """

    @writing
    def dataset(
        self,
        session: Session,
        project: str,
        dataset_id: str,
        change: LabelChange,
        condition: Callable[[Dataset], bool],
    ) -> Dataset:
        """Change a dataset."""
        row = find_dataset(session, project, dataset_id, lock=True)
        return _change(row, lambda: Dataset.of_row(row), change, condition)

    @writing
    def job(
        self,
        session: Session,
        project: str,
        job_id: str,
        change: LabelChange,
        condition: Callable[[Job], bool],
    ) -> Job:
        """Change a job."""
        row = find(session, project, job_id, lock=True)
        return _change(row, lambda: to_job(row), change, condition)

    @writing
    def model(
        self,
        session: Session,
        project: str,
        name: str,
        change: LabelChange,
        condition: Callable[[Model], bool],
    ) -> Model:
        """Change a model."""
        row = find_model(session, project, name, lock=True)
        return _change(row, lambda: to_models(session, [row])[0], change, condition)

    @writing
    def version(
        self,
        session: Session,
        project: str,
        name: str,
        number: int,
        change: LabelChange,
        condition: Callable[[Version], bool],
    ) -> Version:
        """Change a version; only its labels ever change."""
        model = find_model(session, project, name, lock=True)
        row = find_version(session, model, number)
        return _change(row, lambda: to_versions(session, model, [row])[0], change, condition)


def _change(
    row: Described,
    read: Callable[[], _Record],
    change: LabelChange,
    condition: Callable[[_Record], bool],
) -> _Record:
    """Change a locked row if the condition holds for what it says; return what it says then."""
    before = read()
    if not condition(before):
        what = type(before).__name__.lower()
        raise ConflictError(
            f"The {what} is in another state; the request's condition does not hold.",
            slug="precondition",
        )
    change.apply(row)
    return read()
