"""Pages of listings, bounded in items by the caller and in bytes by the service."""

import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Annotated, Any, Literal, TypeVar

from fastapi import Depends, Query, Request, Response
from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    Field,
    StringConstraints,
)

from app.dependencies import built
from app.root_path import rooted
from models_store.label_types import TEXT
from models_store.listing import Comparison, Filters, Page

MAX_PAGE_BYTES = 256 * 1024
"""Bytes of the items of a page as JSON; the first item is always there."""

NEXT_CURSOR = Field(description="Cursor of the next page; null if this is the last page.")
_DEFAULT_LIMIT = 50

TagFilter = Annotated[str, StringConstraints(max_length=321, pattern=r"^[^:\x00]+(:[^\x00]*)?$")]
_Item = TypeVar("_Item")
_PageView = TypeVar("_PageView", bound=BaseModel)


class Paging:
    """Requested page of a listing.

    Attributes:
        limit: Most items.
        cursor: End of the page before.
    """

    def __init__(
        self,
        request: Request,
        response: Response,
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
        self._url = request.url
        self._response = response
        self.limit = limit
        self.cursor = cursor

    def view(
        self, page: Page[_Item], view: Callable[[_Item], BaseModel], pages: type[_PageView]
    ) -> _PageView:
        """Return the view of a page; name the next one in the header `Link`.

        The page is cut before its items exceed `MAX_PAGE_BYTES`.

        Args:
            page: Items as they were read.
            pages: Class of the view of the page.
        """
        views: list[BaseModel] = []
        size = 0
        for item in page.items:
            made = view(item)
            size += len(made.model_dump_json().encode())
            if views and size > MAX_PAGE_BYTES:
                break
            views.append(made)
        shown = page.first(len(views)).of(views)
        if shown.next_cursor is not None:
            query = self._url.include_query_params(cursor=shown.next_cursor).query
            self._response.headers["Link"] = f'<{rooted(self._url.path)}?{query}>; rel="next"'
        return pages.model_validate(shown, from_attributes=True)


PagingDep = Annotated[Paging, Depends(built(Paging))]


def _utc(moment: datetime) -> datetime:
    try:
        return max(moment.astimezone(UTC), _EPOCH)
    except OverflowError:
        raise ValueError("the time is out of range") from None


def _text(moment: str) -> str:
    """Return a text that may be a time, and no time for all else: a number would be read as seconds."""
    if _DAY.fullmatch(moment):
        return f"{moment}T00:00:00Z"
    return moment if _DATE.match(moment) else ""


_DAY = re.compile(r"\d{4}-\d\d-\d\d")
_DATE = re.compile(r"\d{4}-\d\d-\d\d[Tt ]")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_Moment = Annotated[AwareDatetime, BeforeValidator(_text), AfterValidator(_utc)]


class CreatedAt:
    """Bounds on the time of creation."""

    def __init__(
        self,
        gte: Annotated[
            _Moment | None,
            Query(
                alias="created_at[gte]",
                description="Only items created at this time or later. A date is its midnight in UTC, here and below.",
            ),
        ] = None,
        gt: Annotated[
            _Moment | None,
            Query(alias="created_at[gt]", description="Only items created after this time."),
        ] = None,
        lte: Annotated[
            _Moment | None,
            Query(
                alias="created_at[lte]", description="Only items created at this time or earlier."
            ),
        ] = None,
        lt: Annotated[
            _Moment | None,
            Query(alias="created_at[lt]", description="Only items created before this time."),
        ] = None,
    ) -> None:
        given: dict[Comparison, datetime | None] = {"gte": gte, "gt": gt, "lte": lte, "lt": lt}
        self.bounds = {name: bound for name, bound in given.items() if bound is not None}


class Selection:
    """Filters that all lists have, and the order of a list."""

    def __init__(
        self,
        created_at: Annotated[CreatedAt, Depends(built(CreatedAt))],
        tag: Annotated[
            list[TagFilter] | None,
            Query(
                max_length=8,
                description="Tag that the items must have, `name` or `name:value`; several tags must all match.",
                examples=[["team:health"]],
            ),
        ] = None,
        order: Annotated[
            Literal["desc", "asc"],
            Query(description="`desc`: the newest items come first; `asc`: the oldest."),
        ] = "desc",
    ) -> None:
        self._tags = tuple(
            (name, value if colon else None)
            for name, colon, value in (one.partition(":") for one in tag or ())
        )
        self._bounds = created_at.bounds
        self._oldest_first = order == "asc"

    def filters(self, *, name_prefix: str | None = None) -> Filters:
        """Return the filters with one of the names."""
        return Filters(
            tags=self._tags,
            name_prefix=name_prefix,
            created_at=self._bounds,
            oldest_first=self._oldest_first,
        )


SelectionDep = Annotated[Selection, Depends(built(Selection))]
NamePrefix = Annotated[
    str | None,
    Query(min_length=1, max_length=128, pattern=TEXT, description="Prefix of the names."),
]
LINKED: dict[int | str, dict[str, Any]] = {
    200: {
        "headers": {
            "Link": {
                "description": 'URL of the next page, with `rel="next"`, if there is one.',
                "schema": {"type": "string"},
            }
        }
    }
}
"""OpenAPI object of the response of a list."""
