"""Filters of lists, as typed dictionaries."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Literal, TypedDict


class Filters(TypedDict, total=False):
    """The filters of a list, and its order.

    Attributes:
        tags: Values of tags by name that the items have; None for any value.
        created_from: Time of creation of the first items, as an aware `datetime`.
        created_before: Time before which the items were created.
        order: `asc` for the oldest items first.
    """

    tags: Mapping[str, str | None]
    created_from: datetime
    created_before: datetime
    order: Literal["desc", "asc"]


class NamedFilters(Filters, total=False):
    """The filters of a list of things with names."""

    name_prefix: str


class DatasetFilters(NamedFilters, total=False):
    """The filters of a list of datasets; `sha256` is that of the table, or of the uploaded file."""

    sha256: str


class JobFilters(Filters, total=False):
    """The filters of a list of jobs."""

    state: Literal["queued", "running", "succeeded", "failed", "cancelled"]
    kind: str
    model_name: str
    parent_id: str


IncludedField = Literal["columns", "context_columns", "flow", "preprocessing"]
"""A field of a version that lists have only if it is asked for."""


class VersionFilters(Filters, total=False):
    """The filters of a list of versions; `include` names fields that each is to have in addition."""

    include: Sequence[IncludedField]


class UnusualFilters(TypedDict, total=False):
    """The unusual rows to list.

    Attributes:
        limit: Most rows.
        offset: Rows before the first one.
        max_rank: Largest rank of a row: what is flagged.
        dataset_id: Dataset that a scoring job of the version has scored, instead of the one of the training.
    """

    limit: int
    offset: int
    max_rank: float
    dataset_id: str


def format_filters(filters: Mapping[str, Any]) -> dict[str, Any]:
    """Return filters as parameters of a query."""
    query = dict(filters)
    tags: Mapping[str, str | None] = query.pop("tags", {})
    if tags:
        query["tag"] = [
            name if value is None else f"{name}:{value}" for name, value in tags.items()
        ]
    for name, bound in (("created_from", "gte"), ("created_before", "lt")):
        if name in query:
            query[f"created_at[{bound}]"] = query.pop(name).isoformat()
    return query
