"""Records of the registry as plain values: datasets, models, versions and aliases."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, Self

from tabular.columns import Column

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


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
    """Parsed table whose bytes are durable in the blob store.

    Attributes:
        id: Id from ``new_id("ds")``, under which the bytes are stored.
        columns: JSON object of each column of the file: its type, as `Column.to_dict` gives it, and
            statistics. Those of type `ignored` are not in the stored table.
        warnings: JSON objects with code, column and detail.
        source_sha256: SHA-256 of the upload.
        key: Key of the stored table in the blob store.
        sha256: SHA-256 of the stored table, which workers verify and lineage names.
        cells: Key, hash and size of the file of the cells that are no numbers, if there are any.
        options: Options that the file was read with; None of a dataset from before there were types.
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
    cells: dict[str, Any] | None = None
    options: dict[str, Any] | None = None
    description: str | None = None
    tags: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Dataset(NewDataset):
    """Registered dataset."""

    created_at: datetime

    @property
    def stored_columns(self) -> list[dict[str, Any]]:
        """JSON objects of the columns of the stored table, in order."""
        return [column for column in self.columns if column.get("type") != "ignored"]

    @property
    def column_types(self) -> list[Column]:
        """Types of the columns of the stored table, in order."""
        return [Column.from_dict(column) for column in self.stored_columns]


@dataclass(frozen=True, kw_only=True)
class DatasetSummary(Record):
    """Registered dataset without its columns and their statistics."""

    id: str
    project: str
    name: str | None
    rows: int
    width: int
    key: str
    sha256: str
    bytes: int
    description: str | None
    tags: dict[str, str]
    created_at: datetime


@dataclass(frozen=True, kw_only=True)
class NewVersion(Record):
    """Trained flow whose weights are durable in the blob store.

    Attributes:
        columns: Names of the columns that it models, in order.
        context_columns: Columns that it is conditioned on; in a row they follow the others.
        types: Types of the columns, then of the context columns, as `Column.to_dict` gives them;
            None: all are plain numbers.
        flow: Spec of the flow, a JSON object.
        dataset_sha256: SHA-256 of the table that it was trained on.
        target: Density that it was fitted to instead, a JSON object.
        held_out: Number of ``rows`` that it was not trained on, and the ``quantiles`` 0, 0.001, ...,
            1 of their log densities.
        unusual: Least likely rows of its table, as `LeastRows.to_dict` gives them, and which of them are
            ``held_out``; a registered version leaves them in the database.
    """

    family: str
    dim: int
    columns: list[str]
    context_columns: list[str] = field(default_factory=list)
    types: list[dict[str, Any]] | None = None
    flow: dict[str, Any]
    preprocessing: dict[str, Any]
    parameters: int
    metrics: dict[str, Any]
    dataset_id: str | None
    dataset_sha256: str | None
    target: dict[str, Any] | None = None
    held_out: dict[str, Any] | None = None
    unusual: dict[str, Any] | None = None
    seed: int | None
    code_version: str
    checkpoint_key: str
    checkpoint_sha256: str
    checkpoint_bytes: int
    description: str | None = None
    tags: dict[str, str] = field(default_factory=dict)

    @property
    def held_out_part(self) -> Literal["test", "validation"]:
        """Part of the split whose rows `held_out` describes; those of validation chose the epoch."""
        return "test" if "test_log_likelihood" in self.metrics else "validation"


@dataclass(frozen=True, kw_only=True)
class Version(NewVersion):
    """Registered version of a model.

    Attributes:
        job_id: Id of the job that made it; None: it was imported.
        aliases: Names of the aliases that point at it now.
    """

    project: str
    name: str
    version: int
    job_id: str | None
    aliases: list[str]
    created_at: datetime

    @cached_property
    def row_bytes(self) -> int:
        """Bytes of what its row says of it, about."""
        large = (
            self.columns,
            self.types,
            self.flow,
            self.preprocessing,
            self.target,
            self.held_out,
        )
        return len(json.dumps(large))

    @cached_property
    def held_out_quantiles(self) -> "NDArray[np.float64] | None":
        """The `quantiles` of `held_out` as an array; each request for scores needs it."""
        import numpy as np  # noqa: PLC0415 - workers have none

        return None if self.held_out is None else np.array(self.held_out["quantiles"])

    @property
    def ref(self) -> str:
        """Reference that always refers to this version."""
        return f"{self.name}:{self.version}"

    @property
    def is_plain(self) -> bool:
        """True if all its columns are plain numbers, in rows of any format."""
        return all(column.is_plain for column in self.column_types)

    @property
    def column_types(self) -> list[Column]:
        """Types of the columns of a row: those that it models, then those of the context."""
        if self.types is None:  # of a version from before types were recorded
            return [Column(name=name) for name in (*self.columns, *self.context_columns)]
        return [Column.from_dict(fields) for fields in self.types]


@dataclass(frozen=True, kw_only=True)
class VersionSummary(Record):
    """Registered version without its columns, spec, target and quantiles.

    Attributes:
        included: Those of its large fields that were asked for, by their names.
    """

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
    description: str | None
    tags: dict[str, str]
    aliases: list[str]
    created_at: datetime
    included: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Latest(Record):
    """Newest version of a model, in short."""

    version: int
    family: str
    dim: int
    metrics: dict[str, Any]
    created_at: datetime


@dataclass(frozen=True, kw_only=True)
class Model(Record):
    """Model with its newest version and its aliases."""

    project: str
    name: str
    latest_version: int
    latest: Latest
    aliases: dict[str, int]
    description: str | None
    tags: dict[str, str]
    created_at: datetime


@dataclass(frozen=True, kw_only=True)
class AliasChange(Record):
    """Move or deletion of an alias; a deletion has no version."""

    alias: str
    version: int | None
    reason: str | None
    created_at: datetime


@dataclass(frozen=True, kw_only=True)
class Alias(Record):
    """Alias and its version. ``revision``, its ETag, changes with every move and never repeats."""

    name: str
    version: int
    revision: int
