"""Filters that all listings share: tags, beginnings of names, times of creation, and the order."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from operator import ge, gt, le, lt
from typing import Any, Literal, TypeVar

from sqlalchemy import ColumnElement, Select, func

from models_store.listings.paging import Listing

R = TypeVar("R")
Comparison = Literal["gte", "gt", "lte", "lt"]

_COMPARE: Mapping[Comparison, Callable[[Any, datetime], ColumnElement[bool]]] = {
    "gte": ge,
    "gt": gt,
    "lte": le,
    "lt": lt,
}


@dataclass(frozen=True, kw_only=True)
class Filters:
    """Rows of a listing that a caller asks for, and their order.

    Attributes:
        tags: Names of tags that a row must have, each with its value; None for any value.
        name_prefix: Beginning of the names, for rows that have some.
        created_at: Bounds on the time of creation.
        oldest_first: True if the oldest rows come first.
    """

    tags: tuple[tuple[str, str | None], ...] = ()
    name_prefix: str | None = None
    created_at: Mapping[Comparison, datetime] = field(default_factory=dict)
    oldest_first: bool = False

    def apply(self, query: Select[R], listing: Listing) -> tuple[Select[R], Listing]:
        """Return a query with these filters, and its listing in their order."""
        row: Any = listing.key.class_
        for name, value in self.tags:
            tag = row.tags[name].as_string()
            query = query.where(tag.is_not(None) if value is None else tag == value)
        if self.name_prefix:
            query = query.where(func.substr(row.name, 1, len(self.name_prefix)) == self.name_prefix)
        for comparison, moment in self.created_at.items():
            query = query.where(_COMPARE[comparison](row.created_at, moment))
        return query, replace(listing, oldest_first=self.oldest_first)


ALL = Filters()
"""No filter; the newest rows come first."""
