"""Acceptance of requests for bulk work: checks, and the name of the version."""

import secrets

from models_store.errors import RequestError
from models_store.records import Dataset, Version
from models_store.requests.bulk import (
    AcceptedSampling,
    AcceptedScoring,
    ContextCell,
    SamplingRequest,
    ScoringRequest,
)

_BYTES_PER_VALUE = 8
_SCORE_COLUMNS = 2


def accept_scoring(
    request: ScoringRequest, version: Version, dataset: Dataset, *, max_bytes: int
) -> AcceptedScoring:
    """Check that the dataset has the version's columns.

    Args:
        request: Request body.
        version: Version that the request's `model` stands for.
        dataset: Dataset that the request names.
        max_bytes: Most bytes of the numbers of the result.

    Raises:
        RequestError: The request cannot work or its result is too large.
    """
    columns = [*version.columns, *version.context_columns]
    known = [column["name"] for column in dataset.stored_columns]
    missing = [name for name in columns if name not in set(known)]
    if missing:
        raise RequestError(
            "unknown-column",
            f"dataset {dataset.id} lacks {len(missing)} of the {len(columns)} columns of the model;"
            f" the first is {missing[0]!r}",
            pointer="/dataset_id",
        )
    width = _SCORE_COLUMNS + (len(known) if request.include_rows else 0)
    _check_size(dataset.rows, width, max_bytes=max_bytes, pointer="/dataset_id")
    return AcceptedScoring(
        model=version.ref,
        dataset_id=dataset.id,
        columns=columns,
        output=request.output,
        include_rows=request.include_rows,
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
        request: Request body.
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
