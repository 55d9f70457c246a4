"""Comparison of two versions on the same rows: which gives them the higher density, and how surely."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter, Query
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from app.dependencies import ProjectDep, StateDep
from app.engine.engine import Terms
from app.http.examples import DATASET_ID, MODEL
from app.limits import FairRoute, in_thread
from app.models.verdict import times_likelier
from app.problems.problem import Problem, problem_responses
from app.scoring.routes import Ref
from app.state import AppState
from models_store.errors import NotFoundError
from models_store.records import Dataset, Version
from models_store.requests.training import AcceptedSplit
from models_store.splits import split_rows
from tabular.cells import recode
from tabular.errors import TableError

router = APIRouter(prefix="/v1/models", tags=["models"], route_class=FairRoute)

_MAX_ROWS, _LEAST_ROWS = 2000, 10
_EXAMPLE: dict[str, Any] = {
    "model": f"{MODEL}:2",
    "with": f"{MODEL}:1",
    "better": f"{MODEL}:2",
    "sure": True,
    "difference": 0.21,
    "standard_error": 0.04,
    "rows": 2000,
    "dataset_id": DATASET_ID,
    "unseen": True,
    "sentence": "people:2 is better: rows are on average 1.2 times likelier than by people:1.",
}

Doubles = NDArray[np.float64]


class VersionComparisonView(BaseModel):
    """Comparison of two versions on the same rows."""

    model_config = ConfigDict(json_schema_extra={"examples": [_EXAMPLE]}, populate_by_name=True)

    model: str = Field(description="First version, as `name:version`.")
    other: str = Field(alias="with", description="Version that it is compared with.")
    better: str | None = Field(description="Version that is surely better; null if neither is.")
    sure: bool = Field(description="True if the difference exceeds two standard errors.")
    difference: float = Field(
        description="Mean log density of the rows by the first version less that by the other, in nats a row."
    )
    standard_error: float = Field(
        description="Standard error of the difference, from the differences of the single rows."
    )
    rows: int = Field(description="Number of rows with a density by both.")
    dataset_id: str = Field(description="Dataset that the rows are of.")
    unseen: bool = Field(description="True if neither version was trained on the rows.")
    sentence: str = Field(description="Comparison in a sentence.")


@dataclass(frozen=True)
class _Rows:
    """Rows to compare versions on."""

    dataset: Dataset
    numbers: Sequence[int]
    unseen: bool


@router.get(
    "/{ref}/compare",
    operation_id="compare_versions",
    summary="Compare two versions",
    responses=problem_responses(
        "not-found", "compare-unavailable", "overloaded", "artifact-missing", "artifact-corrupt"
    ),
)
async def compare_versions(
    ref: Ref,
    state: StateDep,
    project: ProjectDep,
    other: Annotated[
        str,
        Query(
            alias="with",
            max_length=140,
            description="Reference to the other version, as in the path.",
            examples=[f"{MODEL}:1"],
        ),
    ],
    dataset_id: Annotated[
        str | None,
        Query(
            max_length=100,
            description="Dataset whose rows they are compared on. Default: the held-out rows of the first version"
            " that the other one was not trained on either.",
        ),
    ] = None,
) -> VersionComparisonView:
    """Say which of two versions gives the same rows the higher density, by how much, and how surely.

    At most 2,000 rows are scored by both, evenly spread. The standard error is that of the mean of the
    differences of single rows, which is far below those of two means.
    """
    one = await state.models.resolve(project, ref)
    two = await state.models.resolve(project, other)
    _check_alike(one, two)
    rows = await in_thread(_rows_of, state, one, two, dataset_id)
    scores = [await _scored(state, version, rows) for version in (one, two)]
    return _compared(one, two, rows, scores[0] - scores[1])


def _check_alike(one: Version, two: Version) -> None:
    """Refuse versions whose densities are of different things."""
    for version in (one, two):
        if version.target is not None:
            raise Problem("compare-unavailable", f"{version.ref} was fitted to a target.")
    if one.ref == two.ref:
        raise Problem("compare-unavailable", f"Both are {one.ref}; name another version in `with`.")
    kinds = [
        {column.name: (column.is_discrete, column.spikes) for column in version.column_types}
        for version in (one, two)
    ]
    if set(one.columns) != set(two.columns) or kinds[0].keys() != kinds[1].keys():
        raise Problem("compare-unavailable", f"{one.ref} and {two.ref} have other columns.")
    for name, kind in kinds[0].items():
        if kind != kinds[1][name]:
            raise Problem(
                "compare-unavailable",
                f"Column {name!r} has levels or single values with probabilities of their own in one version that it"
                " does not have in the other, so that their densities have other units.",
            )


def _rows_of(state: AppState, one: Version, two: Version, dataset_id: str | None) -> _Rows:
    """Return rows that both can be judged by; call it in a thread."""
    wanted = dataset_id or one.dataset_id
    if wanted is None:
        raise Problem("compare-unavailable", f"{one.ref} has no dataset; name one: `dataset_id`.")
    try:
        dataset = state.registry.dataset(one.project, wanted)
    except NotFoundError as error:
        if dataset_id is not None:
            raise
        told = f"Dataset {wanted} of {one.ref} is deleted; name another one: `dataset_id`."
        raise Problem("compare-unavailable", told) from error
    seen = np.zeros(dataset.rows, bool)
    for version in (one, two):
        if version.dataset_id == dataset.id:
            seen[_trained_on(state, version, dataset.rows)] = True
    unseen = np.flatnonzero(~seen)
    if len(unseen) < _LEAST_ROWS:
        raise Problem(
            "compare-unavailable",
            f"Too few rows of dataset {dataset.id} were held out of both trainings; name another one:"
            " `dataset_id`.",
        )
    numbers = unseen[:: -(-len(unseen) // _MAX_ROWS)].tolist()
    # Of another dataset nobody knows which of its rows the other version has seen.
    known = all(version.dataset_id in (dataset.id, None) for version in (one, two))
    return _Rows(dataset, numbers, unseen=known or dataset_id is not None)


def _trained_on(state: AppState, version: Version, rows: int) -> NDArray[np.integer[Any]] | slice:
    """Return the rows of its dataset that a version was trained on; all where that is not known."""
    try:
        job = state.jobs.get(version.project, version.job_id or "")
        split = AcceptedSplit.model_validate(job.request["split"])
    except (NotFoundError, KeyError):
        return slice(None)
    return split_rows(rows, split)[0]


async def _scored(state: AppState, version: Version, rows: _Rows) -> Doubles:
    def read() -> Doubles:
        dataset = rows.dataset
        file = state.blobs.open(dataset.key, dataset.sha256)
        table = np.load(file, mmap_mode="r", allow_pickle=False)
        try:
            return recode(table[rows.numbers], dataset.column_types, version.column_types)
        except (TableError, KeyError) as error:
            told = f"Dataset {dataset.id} does not have the columns of {version.ref}."
            raise Problem("compare-unavailable", told) from error

    numbers = await in_thread(read)
    scores = np.empty((len(numbers), 1))
    async with state.models.use(version) as flow:
        key = version.checkpoint_key, "log_prob", "data"
        compute = lambda some: (flow.log_prob(some),)  # noqa: E731 - one expression
        await state.engine.apply(compute, numbers, scores, key=key, terms=Terms.of(flow))
    return scores[:, 0]


def _compared(
    one: Version, two: Version, rows: _Rows, differences: Doubles
) -> VersionComparisonView:
    told = differences[np.isfinite(differences)]
    if len(told) < _LEAST_ROWS:
        raise Problem("compare-unavailable", "Too few rows have a density by both versions.")
    mean, error = float(told.mean()), float(told.std(ddof=1)) / math.sqrt(len(told))
    sure = abs(mean) > 2 * error
    better, worse = (one.ref, two.ref) if mean > 0 else (two.ref, one.ref)
    sentence = f"Neither is surely better: the difference is {mean:.2g} nats a row, with a standard error of {error:.2g}."
    if sure:
        sentence = f"{better} is better: rows are on average {times_likelier(abs(mean))} likelier than by {worse}."
    return VersionComparisonView(
        model=one.ref,
        other=two.ref,
        better=better if sure else None,
        sure=sure,
        difference=mean,
        standard_error=error,
        rows=len(told),
        dataset_id=rows.dataset.id,
        unseen=rows.unseen,
        sentence=sentence,
    )
