"""Requests and responses as data, the same for both clients."""

import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Generic, TypeVar
from urllib.parse import quote

import orjson

from densityd.client.errors import UnexpectedAnswerError

JSON = "application/json"
NPY = "application/x-npy"
ARROW = "application/vnd.apache.arrow.stream"
EVENTS = "text/event-stream"

LONG_S = 900.0
"""Read timeout for responses that begin late: parsing an upload, scoring a file."""

_Result = TypeVar("_Result")


class Retry(Enum):
    """The failures after which a request may be sent again without being carried out twice."""

    ALWAYS = "after any failure"
    REFUSED = "when it never arrived, or the service said that it did nothing"


@dataclass(frozen=True)
class Body:
    """The body of a request.

    Args:
        chunks: Returns a new iterator at each call, so that the body can be sent again.
        size: Bytes in total; None if that is only known once all are sent.
        media_type: Value of `Content-Type`.
    """

    chunks: Callable[[], Iterator[bytes]]
    size: int | None
    media_type: str

    @classmethod
    def of(cls, data: bytes, media_type: str) -> "Body":
        """Return a body that is in memory."""
        return cls(lambda: iter((data,)), len(data), media_type)


@dataclass(frozen=True)
class Response:
    """A response whose body has been read."""

    status: int
    headers: Mapping[str, str]
    content: bytes


@dataclass(frozen=True)
class Call(Generic[_Result]):
    """A request, and the function that reads its response.

    Args:
        path: Path below the service's URL, already quoted.
        parse: Makes the result from the response; a streamed response is not parsed.
        params: Parameters of the query; those that are None are left out.
        headers: Headers beside those of every request.
        body: Body of the request; None for no body.
        retry: Failures after which the request may be sent again.
        read_timeout_s: Longest silence of the service in seconds; None for the client's own.
        retry_s: Seconds from the first failure to the last attempt; None for the longest silence.
    """

    method: str
    path: str
    parse: Callable[[Response], _Result]
    params: Mapping[str, str | int | Sequence[str] | None] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    body: Body | None = None
    retry: Retry = Retry.ALWAYS
    read_timeout_s: float | None = None
    retry_s: float | None = None

    @property
    def query(self) -> dict[str, str | Sequence[str]]:
        """The parameters that are set."""
        return {
            name: str(value) if isinstance(value, str | int) else value
            for name, value in self.params.items()
            if value is not None
        }


def parse_json(content: bytes) -> dict[str, object]:
    """Return the JSON object in a response.

    Raises:
        UnexpectedAnswerError: The content is something else.
    """
    try:
        value = orjson.loads(content)
    except orjson.JSONDecodeError as error:
        raise UnexpectedAnswerError("the response is not JSON; is this a densityd?") from error
    if not isinstance(value, dict):
        raise UnexpectedAnswerError("the response is not a JSON object; is this a densityd?")
    return value


def encode_json(value: Mapping[str, object]) -> Body:
    """Return a JSON body; NumPy numbers and arrays are encoded, NaN and infinity become null.

    Raises:
        TypeError: A value has no JSON form.
    """
    return Body.of(orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY), JSON)


def build_path(base: str, *names: str | int) -> str:
    """Return a path below another, with its names quoted."""
    return "/".join((base, *(quote(str(name), safe="") for name in names)))


def read_content(response: Response) -> bytes:
    """Return the content of a response."""
    return response.content


def build_change(
    path: str,
    parse: Callable[[Response], _Result],
    change: Mapping[str, object],
    etag: str | None = None,
) -> Call[_Result]:
    """Return the call that changes a resource.

    Args:
        etag: Etag that the resource must still have; None to change it in any case.
    """
    return Call(
        "PATCH",
        path,
        parse,
        headers={} if etag is None else {"If-Match": etag},
        body=encode_json(change),
        # To a second attempt the change by the first would look like somebody else's.
        retry=Retry.ALWAYS if etag is None else Retry.REFUSED,
    )


def build_deletion(base: str, *names: str | int) -> Call[None]:
    """Return the call that deletes what is below a path."""
    return Call("DELETE", build_path(base, *names), ignore, retry=Retry.REFUSED)


def ignore(_response: Response) -> None:
    """Ignore the response."""


def new_key() -> str:
    """Return a unique string, for `Idempotency-Key` and `X-Request-ID`."""
    return uuid.uuid4().hex
