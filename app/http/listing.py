"""Pages of listings, bounded in items by the caller and in bytes by the service."""

from collections.abc import Callable
from typing import Annotated, TypeVar

from fastapi import Depends, Query, Request
from pydantic import BaseModel

from app.http.head import is_head
from models_store.database.paging import Page

MAX_PAGE_BYTES = 256 * 1024
"""Bytes of the items of a page as JSON; the first item is always there."""

_DEFAULT_LIMIT = 50
_Item = TypeVar("_Item")
_View = TypeVar("_View", bound=BaseModel)


class Paging:
    """Requested page of a listing.

    Attributes:
        limit: Most items; one for HEAD, whose caller sees none.
        cursor: End of the page before.
    """

    def __init__(
        self,
        request: Request,
        limit: Annotated[
            int,
            Query(
                ge=1,
                le=200,
                description="Largest number of items on the page. A page may have fewer, because its bytes"
                " are limited too.",
            ),
        ] = _DEFAULT_LIMIT,
        cursor: Annotated[
            str | None, Query(max_length=200, description="`next_cursor` of the previous page.")
        ] = None,
    ) -> None:
        self.limit = 1 if is_head(request) else limit
        self.cursor = cursor


PagingDep = Annotated[Paging, Depends()]


def bounded(page: Page[_Item], view: Callable[[_Item], _View]) -> Page[_View]:
    """Return the views of a page, cut before they exceed the bytes of a page.

    Args:
        page: Items as they were read.
        view: Function that makes the view of an item.
    """
    views: list[_View] = []
    size = 0
    for item in page.items:
        made = view(item)
        size += len(made.model_dump_json().encode())
        if views and size > MAX_PAGE_BYTES:
            break
        views.append(made)
    return page.first(len(views)).of(views)
