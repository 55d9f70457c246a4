"""What the registry holds, as plain values: datasets, models, versions and aliases."""

from dataclasses import dataclass, field, fields
from datetime import datetime
from typing import Any, Self


@dataclass(frozen=True, kw_only=True)
class Record:
    """Plain value of a row, whose fields have the names of the row's columns."""

    @classmethod
    def of_row(cls, row: object, **given: Any) -> Self:  # noqa: ANN401  as the columns
        """Return a row as a record.

        Args:
            row: Row whose columns the record names.
            **given: Fields that the row lacks, or has in another form.
        """
        names = [field.name for field in fields(cls) if field.name not in given]
        return cls(**{name: getattr(row, name) for name in names}, **given)


@dataclass(frozen=True, kw_only=True)
class NewDataset(Record):
    """A parsed table whose bytes are durable in the blob store.

    Attributes:
        id: made by ``new_id("ds")`` before the bytes were stored under it.
        project: whose it is.
        name: the caller's label for it.
        rows: how many it has.
        dtype: float32 or float64.
        columns: one JSON object a column: name, dtype, mean, std, min, max, distinct.
        warnings: JSON objects: code, column, detail.
        source_format: what was uploaded: csv, parquet or npy.
        source_sha256: hash of the upload as it came.
        key: the stored table in the blob store.
        sha256: hash of the stored table; workers check it, and lineage names it.
        bytes: size of the stored table.
    """

    id: str
    project: str
    name: str | None
    rows: int
    dtype: str
    columns: list[dict[str, Any]]
    warnings: list[dict[str, Any]]
    source_format: str
    source_sha256: str
    key: str
    sha256: str
    bytes: int


@dataclass(frozen=True, kw_only=True)
class Dataset(NewDataset):
    """A registered dataset."""

    created_at: datetime


@dataclass(frozen=True, kw_only=True)
class DatasetSummary(Record):
    """A registered dataset without its columns and their statistics.

    Attributes:
        width: Number of its columns.
    """

    id: str
    project: str
    name: str | None
    rows: int
    width: int
    key: str
    sha256: str
    bytes: int
    created_at: datetime


@dataclass(frozen=True, kw_only=True)
class NewVersion(Record):
    """A trained flow whose weights are durable in the blob store.

    Attributes:
        columns: the names of the columns that it models, in order.
        context_columns: those that it is conditioned on; rows have them after the others.
        flow: its spec, a JSON object.
        dataset_sha256: hash of the table that it was trained on.
        target: the density that it was fitted to instead, a JSON object.
        held_out: of the log densities of rows that it was not trained on: how many ``rows``, and
            their ``quantiles`` 0, 0.001, ..., 1.
        checkpoint_key: its weights in the blob store.
    """

    family: str
    dim: int
    columns: list[str]
    context_columns: list[str] = field(default_factory=list)
    flow: dict[str, Any]
    preprocessing: dict[str, Any]
    parameters: int
    metrics: dict[str, Any]
    dataset_id: str | None
    dataset_sha256: str | None
    target: dict[str, Any] | None = None
    held_out: dict[str, Any] | None = None
    seed: int | None
    code_version: str
    checkpoint_key: str
    checkpoint_sha256: str
    checkpoint_bytes: int


@dataclass(frozen=True, kw_only=True)
class Version(NewVersion):
    """A registered version of a model.

    Attributes:
        job_id: the job that made it; None: it was imported.
        aliases: those that point at it now.
    """

    project: str
    name: str
    version: int
    job_id: str | None
    aliases: list[str]
    created_at: datetime

    @property
    def ref(self) -> str:
        """The reference that always stands for this version."""
        return f"{self.name}:{self.version}"


@dataclass(frozen=True, kw_only=True)
class VersionSummary(Record):
    """A registered version without its columns, spec, target and quantiles."""

    project: str
    name: str
    version: int
    family: str
    dim: int
    parameters: int
    metrics: dict[str, Any]
    job_id: str | None
    dataset_id: str | None
    dataset_sha256: str | None
    seed: int | None
    code_version: str
    checkpoint_key: str
    checkpoint_sha256: str
    checkpoint_bytes: int
    aliases: list[str]
    created_at: datetime


@dataclass(frozen=True, kw_only=True)
class Model(Record):
    """A model: its newest version, and where its aliases point."""

    project: str
    name: str
    latest_version: int
    aliases: dict[str, int]
    created_at: datetime


@dataclass(frozen=True, kw_only=True)
class Alias(Record):
    """Where an alias points. ``revision`` changes with every move and never comes back: its ETag."""

    name: str
    version: int
    revision: int
