"""Pages of a listing, newest first, with an opaque cursor for the next page."""

import base64
import binascii
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from sqlalchemy import Select
from sqlalchemy.orm import InstrumentedAttribute, Session

from models_store.errors import CursorError

S = TypeVar("S")
T = TypeVar("T")
R = TypeVar("R")

_PLAIN = re.compile(r"([a-z]+):([1-9][0-9]{0,17})")


@dataclass(frozen=True, kw_only=True)
class Page(Generic[T]):
    """Some items, and the cursor of the next page if there is one."""

    items: list[T]
    next_cursor: str | None

    def map(self, convert: Callable[[T], S]) -> "Page[S]":
        """Return the same page of converted items."""
        return Page(items=[convert(item) for item in self.items], next_cursor=self.next_cursor)


def page_of(
    session: Session,
    query: Select[R],
    key: InstrumentedAttribute[int],
    *,
    listing: str,
    cursor: str | None,
    limit: int,
) -> Page[R]:
    """Return one page of a query, highest key first.

    Args:
        session: a read transaction.
        query: selects one kind of row.
        key: the row's unique number.
        listing: the listing's name, so that a cursor of another one is refused.
        cursor: where the page before ended; None for the first page.
        limit: the most items, at least 1.

    Raises:
        CursorError: the cursor is not one of this listing.
    """
    if cursor is not None:
        query = query.where(key < decode_cursor(listing, cursor))
    # One more than asked for tells whether there is another page.
    rows = session.scalars(query.order_by(key.desc()).limit(limit + 1)).all()
    items = list(rows[:limit])
    more = len(rows) > limit
    return Page(
        items=items,
        next_cursor=encode_cursor(listing, getattr(items[-1], key.key)) if more else None,
    )


def encode_cursor(listing: str, position: int) -> str:
    """Return the cursor that continues a listing below a position."""
    return base64.urlsafe_b64encode(f"{listing}:{position}".encode()).decode().rstrip("=")


def decode_cursor(listing: str, cursor: str) -> int:
    """Return the position that a cursor of this listing stands for.

    Raises:
        CursorError: it was not made by ``encode_cursor`` for this listing.
    """
    try:
        padded = cursor.encode("ascii") + b"=" * (-len(cursor) % 4)
        plain = base64.b64decode(padded, altchars=b"-_", validate=True).decode("ascii")
    except (UnicodeError, binascii.Error):
        raise CursorError from None
    match = _PLAIN.fullmatch(plain)
    if match is None or match[1] != listing or encode_cursor(listing, int(match[2])) != cursor:
        raise CursorError
    return int(match[2])
