"""A request before it is sent and its answer once it is here: data, the same for both clients."""

import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Generic, TypeVar

import orjson

from densityd.client.errors import UnexpectedAnswerError

JSON = "application/json"
NPY = "application/x-npy"
ARROW = "application/vnd.apache.arrow.stream"
EVENTS = "text/event-stream"

LONG_S = 900.0
"""For answers that only begin once much work is done: parsing an upload, scoring a file."""

_Result = TypeVar("_Result")


class Retry(Enum):
    """When a request may be sent again without being carried out twice."""

    ALWAYS = "however it failed"
    REFUSED = "when it never arrived, or the service said that it did nothing"


@dataclass(frozen=True)
class Body:
    """What a request carries.

    Args:
        pieces: begins anew each time that it is called, so that the body can be sent again.
        size: bytes of the whole; None: not known before all is sent.
        media_type: what it is.
    """

    pieces: Callable[[], Iterator[bytes]]
    size: int | None
    media_type: str

    @classmethod
    def of(cls, data: bytes, media_type: str) -> "Body":
        """A body that is in memory."""
        return cls(lambda: iter((data,)), len(data), media_type)


@dataclass(frozen=True)
class Answer:
    """What came back and was no error."""

    status: int
    headers: Mapping[str, str]
    content: bytes


@dataclass(frozen=True)
class Call(Generic[_Result]):
    """A request and how its answer is read.

    Args:
        method: of HTTP.
        path: below the service's URL, already quoted.
        parse: makes the result of the answer; streamed answers are not parsed.
        params: of the query; None leaves one out.
        headers: further ones.
        body: what it carries.
        retry: when it may be sent again.
        read_timeout_s: longest silence of the service; None for the client's own.
    """

    method: str
    path: str
    parse: Callable[[Answer], _Result]
    params: Mapping[str, str | int | None] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    body: Body | None = None
    retry: Retry = Retry.ALWAYS
    read_timeout_s: float | None = None

    @property
    def query(self) -> dict[str, str]:
        """The parameters that are set."""
        return {name: str(value) for name, value in self.params.items() if value is not None}


def json_of(content: bytes) -> dict[str, object]:
    """An object of JSON.

    Raises:
        UnexpectedAnswerError: it is something else.
    """
    try:
        value = orjson.loads(content)
    except orjson.JSONDecodeError as error:
        raise UnexpectedAnswerError("the answer is not JSON; is this a densityd?") from error
    if not isinstance(value, dict):
        raise UnexpectedAnswerError("the answer is not an object of JSON; is this a densityd?")
    return value


def json_body(value: Mapping[str, object]) -> Body:
    """A body of JSON, NumPy's numbers and arrays included; what is not finite becomes null.

    Raises:
        TypeError: there is something in it that JSON does not have.
    """
    return Body.of(orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY), JSON)


def nothing(_answer: Answer) -> None:
    """There is nothing to read in the answer."""


def new_key() -> str:
    """A string that nobody has used before, for `Idempotency-Key` and `X-Request-ID`."""
    return uuid.uuid4().hex
