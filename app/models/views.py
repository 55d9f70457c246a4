"""Request and response models of models, versions and aliases."""

import math
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from app.http.examples import COLUMNS, DATASET_ID, EXAMPLE_DESCRIPTION, EXAMPLE_TAGS, MODEL
from app.models.verdict import VerdictView
from app.resources.labels import DESCRIPTION, TAGS
from app.resources.listing import NEXT_CURSOR
from app.resources.metrics import VersionMetrics
from app.resources.view import View
from models_store.label_types import Reason
from models_store.records import Alias, Version, VersionSummary
from models_store.requests.training import Flow, Preprocessing
from models_store.requests.variational import Target
from models_store.schema_of import SchemaOf
from tabular.columns import Column

_MODEL_EXAMPLE: dict[str, Any] = {
    "name": MODEL,
    "latest_version": 3,
    "latest": {
        "version": 3,
        "family": "maf",
        "dim": 2,
        "metrics": {"test_log_likelihood": 3.0, "test_standard_error": 0.01},
        "created_at": "2026-11-24T15:27:00Z",
    },
    "aliases": {"production": 2},
    "description": EXAMPLE_DESCRIPTION,
    "tags": EXAMPLE_TAGS,
    "created_at": "2026-11-24T15:27:00Z",
}
_VERSION_EXAMPLE: dict[str, Any] = {
    "name": MODEL,
    "version": 2,
    "family": "maf",
    "dim": 2,
    "columns": COLUMNS,
    "context_columns": [],
    "types": None,
    "flow": {"family": "maf", "layers": 5, "hidden": [128]},
    "preprocessing": {"standardise": True},
    "parameters": 164050,
    "metrics": {
        "train_log_likelihood": 3.2,
        "validation_log_likelihood": 3.0,
        "test_log_likelihood": 3.0,
        "test_standard_error": 0.01,
        "epoch": 88,
    },
    "verdict": {
        "level": "usable",
        "sentence": "Usable: it knows the dependence between the columns: rows are on average 12 times likelier than"
        " if the columns had nothing to do with each other.",
        "facts": [],
    },
    "held_out": {
        "rows": 4900,
        "part": "test",
        "quantiles": {"0.01": -31.8, "0.05": -24.9, "0.5": -17.3},
        "standard_errors": {"0.01": 0.0014, "0.05": 0.0031, "0.5": 0.0071},
    },
    "lineage": {
        "job_id": "job_0f3c5f4e7d0c4d5b9b8f1e2a3c4d5e6f",
        "dataset_id": DATASET_ID,
        "dataset_sha256": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
        "target": None,
        "code_version": "0.1.0",
        "seed": 0,
    },
    "checkpoint": {
        "sha256": "2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae",
        "bytes": 660000,
    },
    "aliases": ["production"],
    "description": None,
    "tags": EXAMPLE_TAGS,
    "created_at": "2026-11-24T15:27:00Z",
}

_WHOLE_ONLY = ("columns", "context_columns", "types", "flow", "preprocessing", "held_out")
_SUMMARY_EXAMPLE: dict[str, Any] = {
    **{name: value for name, value in _VERSION_EXAMPLE.items() if name not in _WHOLE_ONLY},
    "lineage": {
        name: value for name, value in _VERSION_EXAMPLE["lineage"].items() if name != "target"
    },
}

_SHOWN_QUANTILES = (0.01, 0.05, 0.5)

_METRICS = "Metrics of the training job."
_COLUMNS = "Columns that the version models, in order."
_CONTEXT_COLUMNS = "Columns that the density is conditioned on; in a row they follow the others."
_FLOW = "Family of the flow and its fields."
_PREPROCESSING = "Preprocessing layers between the data and the flow."
_IF_INCLUDED = " Only if `include` names it."


class LatestView(BaseModel):
    """Newest version of a model, in short."""

    version: int = Field(description="Number of the version, counted from 1.")
    family: str = Field(description="Family of the flow.")
    dim: int = Field(description="Number of columns that the version models.")
    metrics: VersionMetrics = Field(description=_METRICS)
    created_at: datetime = Field(description="Time of the registration.")


class ModelView(View):
    """Model: a name with versions and aliases."""

    model_config = ConfigDict(json_schema_extra={"examples": [_MODEL_EXAMPLE]})

    name: str = Field(description="Name of the model.")
    latest_version: int = Field(description="Number of the newest version.")
    latest: LatestView = Field(description="Newest version.")
    aliases: dict[str, int] = Field(description="Version that each alias points at.")
    description: str | None = DESCRIPTION
    tags: dict[str, str] = TAGS
    created_at: datetime = Field(description="Time of the first version.")


class ModelPage(BaseModel):
    """Page of models, newest first."""

    items: list[ModelView] = Field(description="Models of the page.")
    next_cursor: str | None = NEXT_CURSOR


class LineageSummaryView(BaseModel):
    """Origin of a version, without its target."""

    job_id: str | None = Field(description="Job that trained the version; null if it was imported.")
    dataset_id: str | None = Field(
        description="Dataset that the version was trained on; null if it was not, or was imported."
    )
    dataset_sha256: str | None = Field(
        description="SHA-256 of the table that the version was trained on."
    )
    code_version: str = Field(description="Version of densityd that trained it.")
    seed: int | None = Field(description="Seed of the training; null if it is not known.")


class LineageView(LineageSummaryView):
    """Origin of a version."""

    target: Annotated[dict[str, Any], SchemaOf(Target)] | None = Field(
        description="Target of the variational inference; null if the version was trained on a"
        " dataset."
    )


class HeldOutView(BaseModel):
    """Log densities of rows that a version was not trained on."""

    rows: int = Field(
        description="Number of rows: those of the test part, or of the validation part if there was no"
        " test part."
    )
    part: Literal["test", "validation"] = Field(
        description="Part of the split. Validation rows chose the epoch, so that ranks among them may be"
        " a little low."
    )
    quantiles: dict[str, float] = Field(
        description="Quantiles of the log densities, keyed by their level."
    )
    standard_errors: dict[str, float] = Field(
        description="Standard errors of the `quantile` of a score, keyed by it:"
        " sqrt(quantile (1 - quantile) / rows)."
    )

    @classmethod
    def of(cls, held_out: dict[str, Any], part: Literal["test", "validation"]) -> "HeldOutView":
        """Return the view of held-out densities, which has some of their many quantiles."""
        quantiles = held_out["quantiles"]
        last = len(quantiles) - 1
        shown = {str(at): quantiles[round(at * last)] for at in _SHOWN_QUANTILES}
        rows = held_out["rows"]
        errors = {str(at): math.sqrt(at * (1 - at) / rows) for at in _SHOWN_QUANTILES}
        return cls(rows=rows, part=part, quantiles=shown, standard_errors=errors)


class CheckpointView(BaseModel):
    """File of the weights of a version."""

    sha256: str = Field(description="SHA-256 of the file.")
    bytes: int = Field(description="Size of the file in bytes.")


class _Version(BaseModel):
    name: str = Field(description="Name of the model.")
    version: int = Field(description="Number of the version, counted from 1.")
    family: str = Field(description="Family of the flow.")
    dim: int = Field(description="Number of columns that the version models.")
    parameters: int = Field(description="Number of weights of the flow.")
    metrics: VersionMetrics = Field(description=_METRICS)
    verdict: VerdictView | None = Field(
        description="Verdict on the version in plain words; null if its training did not tell enough for one."
    )
    checkpoint: CheckpointView = Field(description="File of the weights.")
    aliases: list[str] = Field(description="Aliases that point at the version.")
    description: str | None = DESCRIPTION
    tags: dict[str, str] = TAGS
    created_at: datetime = Field(description="Time of the registration.")


class VersionSummaryView(_Version):
    """Version in a list, without its target and quantiles; columns and spec only if they are asked for."""

    model_config = ConfigDict(json_schema_extra={"examples": [_SUMMARY_EXAMPLE]})

    lineage: LineageSummaryView = Field(description="Origin of the version.")
    columns: list[str] = Field(default_factory=list, description=_COLUMNS + _IF_INCLUDED)
    context_columns: list[str] = Field(
        default_factory=list, description=_CONTEXT_COLUMNS + _IF_INCLUDED
    )
    flow: Annotated[dict[str, Any], SchemaOf(Flow)] = Field(
        default_factory=dict, description=_FLOW + _IF_INCLUDED
    )
    preprocessing: Annotated[dict[str, Any], SchemaOf(Preprocessing)] = Field(
        default_factory=dict, description=_PREPROCESSING + _IF_INCLUDED
    )

    @classmethod
    def of(cls, version: VersionSummary) -> "VersionSummaryView":
        """Return the view of a version in a list; fields that were not asked for are unset."""
        return cls.model_validate({**_members(version), **version.included}, from_attributes=True)


class VersionView(_Version):
    """Version of a model. It never changes, except for its labels and the aliases that point at it."""

    model_config = ConfigDict(json_schema_extra={"examples": [_VERSION_EXAMPLE]})

    columns: list[str] = Field(description=_COLUMNS)
    context_columns: list[str] = Field(description=_CONTEXT_COLUMNS)
    types: Annotated[list[dict[str, Any]], SchemaOf(list[Column])] | None = Field(
        description="Type, levels and states of each column, then of each context column; null if all"
        " are plain numbers."
    )
    flow: Annotated[dict[str, Any], SchemaOf(Flow)] = Field(description=_FLOW)
    preprocessing: Annotated[dict[str, Any], SchemaOf(Preprocessing)] = Field(
        description=_PREPROCESSING
    )
    metrics: VersionMetrics = Field(
        description="Mean log likelihoods and their standard errors, in nats and the data's own units;"
        " for a target the ELBO, the evidence and the quality of the approximation."
    )
    held_out: HeldOutView | None = Field(
        description="Densities that `score` compares rows with; null if the version has no calibrated"
        " scores."
    )
    lineage: LineageView = Field(description="Origin of the version.")

    @classmethod
    def of(cls, version: Version) -> "VersionView":
        """Return the view of a version."""
        held_out = None
        if version.held_out is not None:
            held_out = HeldOutView.of(version.held_out, version.held_out_part)
        return cls.model_validate(_members(version) | {"held_out": held_out}, from_attributes=True)


class VersionPage(BaseModel):
    """Page of versions, newest first."""

    items: list[VersionSummaryView] = Field(description="Versions, in short.")
    next_cursor: str | None = NEXT_CURSOR


class AliasRequest(BaseModel):
    """New target of an alias."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    version: int = Field(
        ge=1,
        le=2**31 - 1,
        description="Number of the version that the alias points at from now on.",
    )
    reason: Reason | None = Field(
        default=None, description="Reason for the move, which stays in the history."
    )


class AliasView(BaseModel):
    """Alias and the version that it points at."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"name": MODEL, "alias": "production", "version": 2}]}
    )

    name: str = Field(description="Name of the model.")
    alias: str = Field(description="Name of the alias.")
    version: int = Field(description="Number of the version that the alias points at.")

    @classmethod
    def of(cls, model_name: str, alias: Alias) -> "AliasView":
        """Return the view of an alias."""
        return cls(name=model_name, alias=alias.name, version=alias.version)


class AliasChangeView(View):
    """Move or deletion of an alias."""

    alias: str = Field(description="Name of the alias.")
    version: int | None = Field(
        description="Number of the version that the alias pointed at from then on, which may have been"
        " deleted since; null if the alias was deleted."
    )
    reason: str | None = Field(
        description="Reason that was given for the move; null if there is none."
    )
    created_at: datetime = Field(description="Time of the change, in UTC.")


class AliasChangePage(BaseModel):
    """Page of changes of aliases, newest first."""

    items: list[AliasChangeView] = Field(description="Changes of the page.")
    next_cursor: str | None = NEXT_CURSOR


def _members(version: Version | VersionSummary) -> dict[str, Any]:
    """Return the fields of a version, grouped as callers see them."""
    checkpoint = {"sha256": version.checkpoint_sha256, "bytes": version.checkpoint_bytes}
    verdict = VerdictView.of(version.metrics, dim=version.dim)
    return vars(version) | {"lineage": version, "checkpoint": checkpoint, "verdict": verdict}
