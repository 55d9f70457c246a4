"""Pages of listings: bounded in items by the caller, in bytes by the service."""

from collections.abc import Callable
from typing import Annotated, TypeVar

from fastapi import Depends, Query, Request
from pydantic import BaseModel

from app.http.head import is_head
from models_store.database.paging import Page

MAX_PAGE_BYTES = 256 * 1024
"""JSON of the items of a page. The first item is there however large it is."""

_DEFAULT_LIMIT = 50
_Item = TypeVar("_Item")
_View = TypeVar("_View", bound=BaseModel)


class Paging:
    """Part of a listing that is asked for.

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
    """Return a page as callers see it, which ends before it has more bytes than a page may.

    Args:
        page: What was read.
        view: Makes the form of an item that callers see.
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
