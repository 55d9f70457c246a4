"""Registry of datasets, models and versions."""

import re
from collections.abc import Collection
from typing import Any

from sqlalchemy import or_, select
from sqlalchemy.orm import Session

from models_store.aliases import find_alias
from models_store.database.database import Rows, reading, writing
from models_store.database.schema import DatasetRow, ModelRow, ModelVersionRow
from models_store.errors import ConflictError, NotFoundError
from models_store.job_states import Idempotency
from models_store.labels import LabelChange
from models_store.listing import ALL, Filters, Listing, Page, page_of
from models_store.quotas import check_storage, most_bytes, stored_bytes
from models_store.records import (
    Dataset,
    DatasetSummary,
    Model,
    NewDataset,
    NewVersion,
    Version,
    VersionSummary,
)
from models_store.rows.datasets import (
    changed_meanwhile,
    check_unused,
    find_dataset,
    is_same_table,
    mark_retyped,
)
from models_store.rows.idempotency import claim_key, forget_resource
from models_store.rows.versions import (
    LargeField,
    add_version,
    aliases_of,
    delete_versions,
    find_model,
    find_version,
    to_models,
    to_version_summaries,
    to_versions,
    version_of_weights,
)

DEFAULT_ALIAS = "production"
"""The alias that a model's name alone stands for, if it is set."""

_RETYPED = ("dtype", "columns", "warnings", "key", "sha256", "bytes", "cells", "options")
_NO_LABELS = LabelChange()
_DATASETS = Listing(name="datasets", key=DatasetRow.position)
_MODELS = Listing(name="models", key=ModelRow.id)
_VERSIONS = Listing(name="versions", key=ModelVersionRow.version)
_NAMES = (
    "`NAME:2` is version 2 of a model, `NAME@champion` that of its alias `champion`, and `NAME` alone that"
    f" of its alias `{DEFAULT_ALIAS}`, or the newest where it has none."
)
_REF = re.compile(r"(?P<name>[^@:]+)(?:@(?P<alias>[^@:]+)|:(?P<version>[1-9][0-9]{0,8}))?")


class Registry(Rows):
    """Datasets, models and versions of all projects; `models_store.aliases` has the aliases.

    Methods raise `NotFoundError` for what the project does not have, and listings `ConflictError` for a cursor
    that they did not give.
    """

    @writing
    def add_dataset(
        self,
        session: Session,
        new: NewDataset,
        *,
        idempotency: Idempotency | None = None,
        max_bytes: int | None = None,
    ) -> Dataset:
        """Register a table that is durable in the blob store.

        Args:
            idempotency: Key with which a repeated request gets the first dataset, which has another
                id than `new`, for 24 hours or until it is deleted.

        Raises:
            ConflictError: The key came before with another fingerprint.
            LimitError: The project would store too much.
        """
        if idempotency is not None:
            first_id = claim_key(session, new.project, idempotency, new_id=new.id)
            if first_id != new.id:
                return Dataset.of_row(find_dataset(session, new.project, first_id))
        row = DatasetRow(**vars(new), width=len(new.columns), stored_bytes=_file_bytes(new))
        session.add(row)
        session.flush()
        if max_bytes is not None:
            check_storage(session, new.project, max_bytes)
        return Dataset.of_row(row)

    @reading
    def room(self, session: Session, project: str, *, max_bytes: int) -> int:
        """Return how many bytes a project may store beyond what it has.

        Raises:
            LimitError: None at all.
        """
        check_storage(session, project, max_bytes, more=1)
        return most_bytes(session, project, max_bytes) - stored_bytes(session, project)

    @reading
    def dataset(self, session: Session, project: str, dataset_id: str) -> Dataset:
        """Return a dataset."""
        return Dataset.of_row(find_dataset(session, project, dataset_id))

    @reading
    def datasets(
        self,
        session: Session,
        project: str,
        *,
        limit: int,
        cursor: str | None = None,
        filters: Filters = ALL,
        sha256: str | None = None,
    ) -> Page[DatasetSummary]:
        """List datasets without their columns, newest first.

        Args:
            limit: Most items.
            cursor: End of the page before; None for the first page.
            filters: Datasets to list, and their order.
            sha256: Hash of the stored table or of the uploaded file; None for any.
        """
        query = select(DatasetRow).where(DatasetRow.project == project)
        if sha256 is not None:
            query = query.where(
                or_(DatasetRow.sha256 == sha256, DatasetRow.source_sha256 == sha256)
            )
        query, listing = filters.apply(query, _DATASETS)
        page = page_of(session, query, listing, cursor=cursor, limit=limit)
        return page.map(DatasetSummary.of_row)

    @writing
    def retype_dataset(
        self,
        session: Session,
        old: Dataset,
        new: NewDataset,
        *,
        labels: LabelChange = _NO_LABELS,
        as_labelled: bool = False,
        max_bytes: int | None = None,
    ) -> Dataset:
        """Put a table with other types in the place of one; the caller deletes the files of the old one.

        Jobs that could be resumed have read the old table, which is gone: none of them is, unless the new
        one is the same.

        Args:
            new: The same dataset with another table, which is durable in the blob store.
            labels: Change of its labels, which is made, too.
            as_labelled: True if it must have the labels still that it was read with.

        Raises:
            ConflictError: A job that has not ended reads it, or it was changed since it was read.
            ConflictError: It has other labels.
            LimitError: It would have too many tags, or the project would store too much.
        """
        row = find_dataset(session, old.project, old.id, lock=True)
        check_unused(session, old.project, old.id)
        if row.key != old.key:
            raise changed_meanwhile(old.id)
        if as_labelled and (row.description, row.tags) != (old.description, old.tags):
            raise ConflictError(
                "The dataset is in another state; the request's condition does not hold.",
                slug="precondition",
            )
        if not is_same_table(old, new):
            mark_retyped(session, old.id)
        for name in _RETYPED:
            setattr(row, name, getattr(new, name))
        row.stored_bytes = _file_bytes(new)
        labels.apply(row)
        session.flush()
        if max_bytes is not None:
            check_storage(session, old.project, max_bytes)
        return Dataset.of_row(row)

    @writing
    def delete_dataset(self, session: Session, project: str, dataset_id: str) -> DatasetSummary:
        """Delete the row of a dataset and return the dataset, whose files the caller must delete.

        Jobs and versions that were made from it keep its id and hash.

        Raises:
            ConflictError: `dataset-in-use`, by a job that has not ended.
        """
        # A job that is being submitted holds the row too: one of the two waits for the other.
        row = find_dataset(session, project, dataset_id, lock=True)
        check_unused(session, project, dataset_id)
        forget_resource(session, project, dataset_id)
        session.delete(row)
        return DatasetSummary.of_row(row)

    @reading
    def models(
        self,
        session: Session,
        project: str,
        *,
        limit: int,
        cursor: str | None = None,
        filters: Filters = ALL,
    ) -> Page[Model]:
        """List models, newest first; arguments as for `datasets`."""
        query = select(ModelRow).where(ModelRow.project == project, ModelRow.latest_version > 0)
        query, listing = filters.apply(query, _MODELS)
        page = page_of(session, query, listing, cursor=cursor, limit=limit)
        return page.of(to_models(session, page.items))

    @reading
    def model(self, session: Session, project: str, name: str) -> Model:
        """Return a model."""
        return to_models(session, [find_model(session, project, name)])[0]

    @reading
    def versions(  # noqa: PLR0913  which versions, which page of them, and with which fields
        self,
        session: Session,
        project: str,
        name: str,
        *,
        limit: int,
        cursor: str | None = None,
        filters: Filters = ALL,
        include: Collection[LargeField] = (),
    ) -> Page[VersionSummary]:
        """List the versions of a model, newest first; arguments as for `datasets`.

        `include` names large fields of versions to read too; the page then ends after 256 KiB of them.
        """
        model = find_model(session, project, name)
        mine = ModelVersionRow.model_id == model.id
        query = select(ModelVersionRow).where(mine)
        query, listing = filters.apply(query, _VERSIONS)
        page = page_of(session, query, listing, cursor=cursor, limit=limit)
        items = to_version_summaries(session, model, page.items, include=include)
        return page.first(len(items)).of(items)

    @reading
    def version_numbers(
        self, session: Session, project: str, name: str, *, limit: int
    ) -> list[int]:
        """Return the numbers of the newest versions of a model, in their order, and nothing else of them."""
        model = find_model(session, project, name)
        mine = select(ModelVersionRow.version).where(ModelVersionRow.model_id == model.id)
        newest = mine.order_by(ModelVersionRow.version.desc()).limit(limit)
        return sorted(session.scalars(newest))

    @reading
    def version(self, session: Session, project: str, name: str, number: int) -> Version:
        """Return a version of a model."""
        model = find_model(session, project, name)
        return to_versions(session, model, [find_version(session, model, number)])[0]

    @reading
    def version_summary(
        self, session: Session, project: str, name: str, number: int
    ) -> VersionSummary:
        """Return a version of a model without its large fields."""
        model = find_model(session, project, name)
        row = find_version(session, model, number)
        return to_version_summaries(session, model, [row])[0]

    @reading
    def resolve(self, session: Session, project: str, ref: str) -> Version:
        """Return the version that ``name``, ``name@alias`` or ``name:version`` refers to.

        A name alone refers to its alias ``production`` if set, else to its newest version.
        """
        model, row = _referred(session, project, ref)
        return to_versions(session, model, [row])[0]

    @reading
    def unusual(
        self, session: Session, project: str, name: str, number: int
    ) -> dict[str, Any] | None:
        """Return the least likely rows of the table of a version; None if none were kept."""
        return find_version(session, find_model(session, project, name), number).unusual

    @writing
    def add_version(
        self,
        session: Session,
        project: str,
        name: str,
        new: NewVersion,
        *,
        idempotency: Idempotency | None = None,
        max_bytes: int | None = None,
    ) -> Version:
        """Register an imported flow, durable in the blob store, as the next version of a model.

        Args:
            idempotency: Key with which a repeated request gets the first version, whose weights have
                another key than those of `new`, for 24 hours.

        Raises:
            ConflictError: the key came before with another fingerprint.
            LimitError: the project would store too much.
        """
        if idempotency is not None:
            # The number of the version is not known yet; no other version has these weights' key.
            first_key = claim_key(session, project, idempotency, new_id=new.checkpoint_key)
            if first_key != new.checkpoint_key:
                return version_of_weights(session, find_model(session, project, name), first_key)
        version = add_version(session, new, project=project, name=name, job_id=None)
        if max_bytes is not None:
            check_storage(session, project, max_bytes)
        return version

    @writing
    def delete_version(self, session: Session, project: str, name: str, number: int) -> list[str]:
        """Delete a version; return the keys of its weights, which the caller must delete.

        Its number is never used again. A model without versions is not found any more.

        Raises:
            ConflictError: `version-in-use`: an alias points at it, or a job that has not ended uses it.
        """
        return delete_versions(session, find_model(session, project, name, lock=True), number)

    @writing
    def delete_model(self, session: Session, project: str, name: str) -> list[str]:
        """Delete all versions of a model; return the keys of their weights, as `delete_version`.

        Raises:
            ConflictError: `version-in-use`: it has an alias, or a job that has not ended uses a version.
        """
        return delete_versions(session, find_model(session, project, name, lock=True))


def _referred(session: Session, project: str, ref: str) -> tuple[ModelRow, ModelVersionRow]:
    match = _REF.fullmatch(ref)
    if match is None:
        raise NotFoundError("model", ref)
    model = find_model(session, project, match["name"])
    number = _number(session, model, alias=match["alias"], version=match["version"])
    return model, find_version(session, model, number)


def _number(session: Session, model: ModelRow, *, alias: str | None, version: str | None) -> int:
    if version is not None:
        return int(version)
    row = find_alias(session, model, alias or DEFAULT_ALIAS)
    if row is not None:
        return row.version
    if alias is not None:
        named = [row.name for row in aliases_of(session, [model.id])]
        there = f"There is {', '.join(named)}." if named else "The model has no alias."
        raise NotFoundError("alias", alias, hint=f"{there} {_NAMES}")
    return model.latest_version


def _file_bytes(dataset: NewDataset) -> int:
    """Return the bytes of the files of a dataset."""
    return dataset.bytes + (0 if dataset.cells is None else int(dataset.cells["bytes"]))
