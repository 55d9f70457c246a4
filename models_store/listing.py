"""Lists of resources: pages, newest or oldest first, with an opaque cursor for the next page, and filters."""

import base64
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from operator import ge, gt, le, lt
from typing import Any, Generic, Literal, TypeVar

from sqlalchemy import BigInteger, ColumnElement, Select, func, literal
from sqlalchemy.orm import InstrumentedAttribute, Session

from models_store.errors import ConflictError

S = TypeVar("S")
T = TypeVar("T")
R = TypeVar("R")

_END = 2**63  # of what a column of keys holds
Comparison = Literal["gte", "gt", "lte", "lt"]

_COMPARE: Mapping[Comparison, Callable[[Any, datetime], ColumnElement[bool]]] = {
    "gte": ge,
    "gt": gt,
    "lte": le,
    "lt": lt,
}


@dataclass(frozen=True, kw_only=True)
class Page(Generic[T]):
    """Some items, and the cursor of the next page if there is one.

    Attributes:
        cursors: Cursor that continues after each item.
    """

    items: list[T]
    next_cursor: str | None
    cursors: list[str] = field(default_factory=list, repr=False, compare=False)

    def map(self, convert: Callable[[T], S]) -> "Page[S]":
        """Return the same page of converted items."""
        return self.of([convert(item) for item in self.items])

    def of(self, items: list[S]) -> "Page[S]":
        """Return the same page of other items, one for each."""
        return Page(items=items, next_cursor=self.next_cursor, cursors=self.cursors)

    def first(self, count: int) -> "Page[T]":
        """Return a page that ends after this many items, at least 1; the next one continues there."""
        if count >= len(self.items):
            return self
        cursors = self.cursors[:count]
        return Page(items=self.items[:count], next_cursor=cursors[-1], cursors=cursors)


@dataclass(frozen=True, kw_only=True)
class Listing:
    """Rows that are listed in pages.

    Attributes:
        name: Name of the listing, so that a cursor of another one is refused.
        key: Unique number of a row.
        oldest_first: True if the lowest keys come first.
    """

    name: str
    key: InstrumentedAttribute[int]
    oldest_first: bool = False

    @property
    def cursors(self) -> str:
        """Name of the cursors, which hold for one order."""
        return f"{self.name}.asc" if self.oldest_first else self.name


def page_of(
    session: Session, query: Select[R], listing: Listing, *, cursor: str | None, limit: int
) -> Page[R]:
    """Return one page of a query, in the order of the listing.

    Args:
        query: selects one kind of row.
        cursor: End of the previous page; None for the first page.
        limit: the most items, at least 1.

    Raises:
        ConflictError: the cursor is not one of this listing.
    """
    name, key = listing.cursors, listing.key.expression
    if cursor is not None:
        position = literal(decode_cursor(name, cursor), BigInteger)
        query = query.where(key > position if listing.oldest_first else key < position)
    order = key.asc() if listing.oldest_first else key.desc()
    # One more than asked for tells whether there is another page.
    rows = session.scalars(query.order_by(order).limit(limit + 1)).all()
    cursors = [encode_cursor(name, getattr(row, listing.key.key)) for row in rows[:limit]]
    next_cursor = cursors[-1] if len(rows) > limit else None
    return Page(items=list(rows[:limit]), next_cursor=next_cursor, cursors=cursors)


def encode_cursor(listing: str, position: int) -> str:
    """Return the cursor that continues a listing below a position."""
    return base64.urlsafe_b64encode(f"{listing}:{position}".encode()).decode().rstrip("=")


def decode_cursor(listing: str, cursor: str) -> int:
    """Return the position that a cursor of this listing stands for.

    Raises:
        ConflictError: it was not made by ``encode_cursor`` for this listing.
    """
    try:
        plain = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode()
        name, position = plain.split(":")
        if name == listing and 0 < int(position) < _END:
            return int(position)
    except ValueError:
        pass  # the error below says so
    raise ConflictError("The cursor is not one that this listing gave.", slug="cursor")


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
