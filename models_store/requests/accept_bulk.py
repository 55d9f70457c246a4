"""Acceptance of requests for bulk work: checks, and the name of the version."""

import secrets
from collections.abc import Mapping, Sequence
from math import ceil
from typing import Any, TypeVar

import numpy as np

from flows import EnsembleSpec, MixedSpec, spec_from_dict
from flows.specs.explained import explained
from models_store.errors import RequestError
from models_store.plans.plan import MAX_REQUESTS_BYTES
from models_store.records import Dataset, Version
from models_store.requests.bulk import (
    AcceptedBulk,
    AcceptedImputation,
    AcceptedSampling,
    AcceptedScoring,
    ContextCell,
    ImputationRequest,
    SamplingRequest,
    ScoringRequest,
)
from tabular.cells import recode
from tabular.columns import Column
from tabular.errors import TableError

Bulk = TypeVar("Bulk", bound=AcceptedBulk)

MAX_PARTS = 64
"""Most children that compute the rows of one job."""

# Rows of a part are a multiple, so that its steps are those of the whole.
_ROWS_OF_STEPS = 65_536
_PART_S = 60.0
_PRODUCTS_A_SECOND = 2.5e9  # of weights and rows, by one core
_BYTES_PER_VALUE = 8
_SCORE_COLUMNS = 2
_IMPUTED_PASSES = 128  # of the flow for a row: its draws, and what they cost besides
_PARTS = 2

NO_EXPLANATION = (
    "the model explains no column: one of mixed columns explains those of at most 64 levels, and one that"
    ' is trained with `missing: "any"` all of them'
)


def accept_scoring(
    request: ScoringRequest, version: Version, dataset: Dataset, *, max_bytes: int
) -> AcceptedScoring:
    """Check that the dataset has the version's columns.

    Args:
        version: Version that the request's `model` stands for.
        max_bytes: Most bytes of the numbers of the result.

    Raises:
        RequestError: The request cannot work or its result is too large.
    """
    columns = [*version.columns, *version.context_columns]
    known = _check_columns(dataset, version, columns)
    if request.explain and not explains(version):
        raise RequestError("explanation-unavailable", NO_EXPLANATION, pointer="/explain")
    width = _SCORE_COLUMNS + (len(known) if request.include_rows else 0)
    width += (_PARTS if request.parts else 0) + (2 * version.dim if request.explain else 0)
    _check_size(dataset.rows, width, max_bytes=max_bytes, pointer="/dataset_id")
    return AcceptedScoring(
        model=version.ref,
        dataset_id=dataset.id,
        columns=columns,
        output=request.output,
        include_rows=request.include_rows,
        parts=request.parts,
        explain=request.explain,
    )


def accept_imputation(
    request: ImputationRequest, version: Version, dataset: Dataset, *, max_bytes: int
) -> AcceptedImputation:
    """Check that the dataset has the columns that are given.

    Args:
        request: Request body.
        version: Version that the request's `model` stands for.
        dataset: Dataset that the request names.
        max_bytes: Most bytes of the numbers of the result.

    Raises:
        RequestError: The request cannot work or its result is too large.
    """
    if version.context_columns:
        raise RequestError(
            "question-unavailable", "the model has context columns", pointer="/model"
        )
    wanted = version.columns if request.given is None else request.given
    for name in wanted:
        if name not in version.columns:
            raise RequestError(
                "unknown-column", f"the model does not describe {name!r}", pointer="/given"
            )
    given = [name for name in version.columns if name in wanted]
    known = _check_columns(dataset, version, given)
    width = len({*known, *version.columns}) + (0 if request.level is None else 2 * version.dim)
    _check_size(dataset.rows, width, max_bytes=max_bytes, pointer="/dataset_id")
    return AcceptedImputation(
        model=version.ref,
        dataset_id=dataset.id,
        output=request.output,
        given=given,
        fill=request.fill,
        level=request.level,
        seed=request.seed,
    )


def _check_columns(dataset: Dataset, version: Version, columns: list[str]) -> dict[str, Column]:
    """Return the columns of a dataset by name, which has some of a version's in its types.

    Raises:
        RequestError: It lacks one, or has values of another kind there.
    """
    known = {column.name: column for column in dataset.column_types}
    missing = [name for name in columns if name not in known]
    if missing:
        raise _lacking(dataset, missing, columns)
    if version.types is not None and not version.is_plain:
        types = [fields for fields in version.types if fields["name"] in columns]
        _check_types(dataset, [known[name] for name in columns], types)
    else:
        _check_numbers([known[name] for name in columns])
    return known


def in_parts(
    accepted: Bulk,
    version: Version,
    *,
    rows: int,
    part_rows: int | None,
) -> Bulk | None:
    """Return the request of a job whose rows children compute; None: it has too few, or too long a request.

    Args:
        part_rows: Rows of a part; None: about a minute of one core.
    """
    if part_rows is None:
        wanted = int(_PART_S / estimate_s(accepted, version, rows=1))
        part_rows = max(1, wanted // _ROWS_OF_STEPS) * _ROWS_OF_STEPS
    most = min(MAX_PARTS, MAX_REQUESTS_BYTES // len(accepted.model_dump_json()))
    if most < 2:
        return None
    if rows > most * part_rows:
        part_rows = ceil(rows / most / _ROWS_OF_STEPS) * _ROWS_OF_STEPS
    if rows <= part_rows:
        return None
    return accepted.model_copy(update={"total_rows": rows, "part_rows": part_rows})


def estimate_s(accepted: AcceptedBulk, version: Version, *, rows: int) -> float:
    """Return about how long a core takes to compute rows, in seconds."""
    scores = version.dim if isinstance(accepted, AcceptedScoring) and accepted.explain else 1
    scores = _IMPUTED_PASSES if isinstance(accepted, AcceptedImputation) else scores
    spec, context_dim = spec_from_dict(version.flow), len(version.context_columns)
    weights = max(1, spec.cost(version.dim, context_dim).parameters)
    return rows * weights * scores / _PRODUCTS_A_SECOND


def explains(version: Version) -> bool:
    """Return whether a version explains any column of its rows."""
    spec = spec_from_dict(version.flow)
    mixed = spec.mixed if isinstance(spec, EnsembleSpec) else spec
    return isinstance(mixed, MixedSpec) and any(explained(mixed.layout(version.dim)))


def _lacking(dataset: Dataset, missing: list[str], columns: list[str]) -> RequestError:
    ignored = {column["name"] for column in dataset.columns} & set(missing)
    advice = (
        "; it is in the file, but ignored: give it a type by `PATCH` of the dataset"
        if missing[0] in ignored
        else ""
    )
    return RequestError(
        "unknown-column",
        f"dataset {dataset.id} lacks {len(missing)} of the {len(columns)} columns of the model;"
        f" the first is {missing[0]!r}{advice}",
        pointer="/dataset_id",
    )


def _check_types(
    dataset: Dataset, source: Sequence[Column], types: Sequence[Mapping[str, Any]]
) -> None:
    """Refuse columns whose values cannot be those of the model's, such as texts for numbers."""
    for column, fields in zip(source, types, strict=True):
        target = Column.from_dict(fields)
        levels = np.array(column.level_numbers if column.levels else (0.0,))
        try:
            recode(levels[:, None], [column], [target])
        except TableError as error:
            raise RequestError(
                "dataset-dtype",
                f"column {column.name!r} of dataset {dataset.id} is a {column.type}, and a {target.type}"
                " in the model, which its values are not; correct its type by `PATCH` of the dataset",
                pointer="/dataset_id",
            ) from error


def _check_numbers(source: Sequence[Column]) -> None:
    """Refuse texts and dates for a model of plain numbers."""
    for column in source:
        if not column.holds_values or column.type == "datetime":
            raise RequestError(
                "dataset-dtype",
                f"column {column.name!r} is a {column.type}; the model is one of plain numbers",
                pointer="/dataset_id",
            )


def accept_sampling(
    request: SamplingRequest,
    version: Version,
    context: list[list[ContextCell]] | None,
    *,
    max_bytes: int,
) -> AcceptedSampling:
    """Choose a seed if none was given.

    Args:
        version: Version that the request's `model` stands for.
        context: Context of the request, in the order of the version's columns.
        max_bytes: Most bytes of the numbers of the result.

    Raises:
        RequestError: The result is too large.
    """
    _check_size(request.n, version.dim, max_bytes=max_bytes, pointer="/n")
    return AcceptedSampling(
        model=version.ref,
        n=request.n,
        seed=secrets.randbits(32) if request.seed is None else request.seed,
        output=request.output,
        context=context,
    )


def _check_size(rows: int, width: int, *, max_bytes: int, pointer: str) -> None:
    size = rows * width * _BYTES_PER_VALUE
    if size > max_bytes:
        raise RequestError(
            "limit-result",
            f"the result would have {size:,} bytes of numbers; this server allows {max_bytes:,}",
            pointer=pointer,
        )
