"""Base of all responses, pages of lists, and what records have beside the members of their schema."""

from typing import Any, Generic, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from densityd.client.call import Response, parse_json
from densityd.client.errors import UnexpectedAnswerError

_Item = TypeVar("_Item")


class Record(BaseModel):
    """The base of all responses; members that a newer service adds are kept."""

    model_config = ConfigDict(extra="allow", frozen=True, protected_namespaces=(), defer_build=True)

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


class DatasetRecord(Record):
    """A dataset; `replayed` if an earlier upload with the same key made it."""

    replayed: bool = Field(default=False, exclude=True)


class UnusualRecord(Record):
    """Unusual rows of a table."""

    columns: list[str]
    rows: list[Any]

    def to_columns(self) -> dict[str, list[Any]]:
        """Return the rows as columns by name, for a data frame: rank, reasons, review, then the cells."""
        told = {
            "row": [row.row for row in self.rows],
            "rank": [row.rank for row in self.rows],
            "reasons": ["; ".join(reason.text for reason in row.reasons) for row in self.rows],
            "review": [row.review for row in self.rows],
        }
        cells = {name: [row.cells[name] for row in self.rows] for name in self.columns}
        return {**told, **{name: cells[name] for name in cells if name not in told}}


class ReasonRecord(Record):
    """Cell that makes a row unlikely."""

    column: str
    value: Any
    usual: Any
    levels: Any

    @property
    def usual_text(self) -> str:
        """What is usual there: `900 to 1400`, or `red or missing`."""
        if self.usual is not None:
            return f"{self.usual.low} to {self.usual.high}"
        told = ["missing" if one is None else str(one) for one in self.levels or ()]
        return " or ".join(told) or "other values"

    @property
    def text(self) -> str:
        """The cell and what is usual there: `Total ($) 11205: usual here 900 to 1400`."""
        value = "missing" if self.value is None else self.value
        return f"{self.column} {value}: usual here {self.usual_text}"


class JobRecord(Record):
    """A job, whole or in a list."""

    state: str
    model: Any

    @property
    def final(self) -> bool:
        """True once the job has ended; a failed or cancelled one can be resumed."""
        return self.state in ("succeeded", "failed", "cancelled")

    @property
    def ref(self) -> str | None:
        """The reference of its model, `name:version`; None until there is one."""
        version = self.model.version
        return None if version is None else f"{self.model.name}:{version}"


class VersionRecord(Record):
    """A version of a model, whole or in a list."""

    name: str
    version: int

    @property
    def ref(self) -> str:
        """The reference that always means this version, `name:version`."""
        return f"{self.name}:{self.version}"


class AliasRecord(Record):
    """An alias; `etag` makes a later move conditional."""

    name: str
    alias: str
    etag: str | None = None

    @property
    def ref(self) -> str:
        """The reference that follows the alias, `name@alias`."""
        return f"{self.name}@{self.alias}"
