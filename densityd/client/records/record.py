"""Base of all responses, and pages of lists; fields that a newer service adds are kept."""

from typing import Any, Generic, Self, TypeVar

from pydantic import BaseModel, ConfigDict, GetPydanticSchema, ValidationError

from densityd.client.call import Response, parse_json
from densityd.client.errors import UnexpectedAnswerError

AS_CAME = GetPydanticSchema(lambda _, handler: handler(dict[str, Any]))
"""Members are kept unchanged, whatever a newer service adds to them."""

_Item = TypeVar("_Item")


class Record(BaseModel):
    """The base of all responses."""

    model_config = ConfigDict(extra="allow", frozen=True, protected_namespaces=())

    @classmethod
    def of(cls, response: Response) -> Self:
        """Read a response.

        Raises:
            UnexpectedAnswerError: The response has another form.
        """
        return cls.read(parse_json(response.content))

    @classmethod
    def read(cls, content: object) -> Self:
        """Read parsed JSON; raises as `of`."""
        try:
            return cls.model_validate(content)
        except ValidationError as error:
            name, first = cls.__name__, error.errors(include_url=False)[0]
            place = ".".join(map(str, first["loc"]))
            raise UnexpectedAnswerError(
                f"the response is not a {name}: {place}: {first['msg']}; is this a densityd?"
            ) from error


class Page(Record, Generic[_Item]):
    """A page of a list, newest first; `next_cursor` is None on the last one."""

    items: list[_Item]
    next_cursor: str | None
