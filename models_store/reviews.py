"""What people found about unusual rows of a model, by the digests of their cells."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from typing import Literal

import orjson
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from models_store.database.database import Rows, reading, writing
from models_store.database.schema import ReviewRow
from models_store.errors import LimitError, NotFoundError
from models_store.records import Record
from models_store.rows.versions import find_model
from tabular.typed_rows import JsonCell

Finding = Literal["confirmed", "not_unusual"]
"""Finding about a row: it is wrong or worth attention, or it is as it should be."""

MAX_REVIEWS = 10_000
"""Reviews of one model."""


@dataclass(frozen=True, kw_only=True)
class Review(Record):
    """Review of a row."""

    digest: str
    review: Finding
    created_at: datetime


def digest_of(cells: Mapping[str, JsonCell]) -> str:
    """Return the digest of a row: of the cells of a model's columns by their names, in any order."""
    plain = {
        name: cell if isinstance(cell, str | bool) or cell is None else float(cell)
        for name, cell in cells.items()
    }
    return sha256(orjson.dumps(plain, option=orjson.OPT_SORT_KEYS)).hexdigest()


class Reviews(Rows):
    """Reviews of the models of all projects.

    A review belongs to the model, so that later versions and scorings show it.
    """

    @reading
    def of(
        self, session: Session, project: str, name: str, digests: Collection[str]
    ) -> dict[str, Finding]:
        """Return the findings of those of some rows that have one, by their digests.

        Raises:
            NotFoundError: The project has no such model.
        """
        model = find_model(session, project, name)
        query = select(ReviewRow).where(
            ReviewRow.model_id == model.id, ReviewRow.digest.in_(digests)
        )
        reviews = map(Review.of_row, session.scalars(query))
        return {one.digest: one.review for one in reviews}

    @writing
    def set(
        self, session: Session, project: str, name: str, digest: str, review: Finding
    ) -> Review:
        """Record what was found about a row, in place of what was before.

        Raises:
            NotFoundError: The project has no such model.
            LimitError: `limit-reviews`: the model has 10,000 others.
        """
        model = find_model(session, project, name, lock=True)
        row = session.get(ReviewRow, (model.id, digest))
        if row is None:
            count = select(func.count()).where(ReviewRow.model_id == model.id)
            if (session.scalar(count) or 0) >= MAX_REVIEWS:
                told = f"The model has {MAX_REVIEWS:,} reviews already; delete some of them."
                raise LimitError("limit-reviews", told)
            row = ReviewRow(model_id=model.id, digest=digest, project=project)
            session.add(row)
        row.review = review
        session.flush()
        return Review.of_row(row)

    @writing
    def delete(self, session: Session, project: str, name: str, digest: str) -> None:
        """Forget what was found about a row.

        Raises:
            NotFoundError: The project has no such model, or it has no such review.
        """
        model = find_model(session, project, name, lock=True)
        row = session.get(ReviewRow, (model.id, digest))
        if row is None:
            raise NotFoundError("review", digest)
        session.delete(row)
