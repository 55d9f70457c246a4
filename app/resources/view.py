"""Base of the responses that show a record as it is."""

from typing import Self

from pydantic import BaseModel


class View(BaseModel):
    """Response whose fields are attributes of a record."""

    @classmethod
    def of(cls, record: object) -> Self:
        """Return the view of a record."""
        return cls.model_validate(record, from_attributes=True)
