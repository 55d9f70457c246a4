"""Models, their versions and aliases."""

from datetime import datetime
from typing import Annotated

from densityd.client.members import (
    ColumnFields,
    FlowFields,
    Metrics,
    PreprocessingFields,
    TargetFields,
)
from densityd.client.records.record import AS_CAME, Record


class Latest(Record):
    """The newest version of a model, in short."""

    version: int
    family: str
    dim: int
    metrics: Annotated[Metrics, AS_CAME]
    created_at: datetime


class Model(Record):
    """A model: its name, its newest version, and the version of each alias."""

    name: str
    latest_version: int
    latest: Latest | None = None
    aliases: dict[str, int]
    description: str | None = None
    tags: dict[str, str] = {}
    created_at: datetime


class Lineage(Record):
    """The origin of a version."""

    job_id: str | None
    dataset_id: str | None
    dataset_sha256: str | None
    target: Annotated[TargetFields, AS_CAME] | None = None
    code_version: str
    seed: int | None


class HeldOut(Record):
    """The log densities of rows that a version was not trained on, by the level of the quantile.

    `part` says which rows: of `test`, or of `validation`, which chose the epoch, so that ranks among them
    may be a little low.
    """

    rows: int
    part: str | None = None
    quantiles: dict[str, float]
    standard_errors: dict[str, float] = {}


class Checkpoint(Record):
    """The file of a version's weights."""

    sha256: str
    bytes: int


class VersionSummary(Record):
    """A version of a model in a list; None stands for fields that the list does not include."""

    name: str
    version: int
    family: str
    dim: int
    columns: list[str] | None = None
    context_columns: list[str] | None = None
    flow: Annotated[FlowFields, AS_CAME] | None = None
    preprocessing: Annotated[PreprocessingFields, AS_CAME] | None = None
    parameters: int
    metrics: Annotated[Metrics, AS_CAME]
    lineage: Lineage
    checkpoint: Checkpoint
    aliases: list[str]
    description: str | None = None
    tags: dict[str, str] = {}
    created_at: datetime

    @property
    def ref(self) -> str:
        """The reference that always means this version, `name:version`."""
        return f"{self.name}:{self.version}"


class Version(VersionSummary):
    """A version of a model; it never changes, only the aliases that point at it do."""

    columns: list[str]
    context_columns: list[str] = []
    types: list[Annotated[ColumnFields, AS_CAME]] | None = None
    flow: Annotated[FlowFields, AS_CAME]
    preprocessing: Annotated[PreprocessingFields, AS_CAME]
    held_out: HeldOut | None = None


class Alias(Record):
    """An alias and its version; `etag` makes a later move conditional."""

    name: str
    alias: str
    version: int
    etag: str | None = None

    @property
    def ref(self) -> str:
        """The reference that follows the alias, `name@alias`."""
        return f"{self.name}@{self.alias}"


class AliasChange(Record):
    """A move of an alias, or its deletion, which has no version."""

    alias: str
    version: int | None
    reason: str | None
    created_at: datetime
