"""Errors of the client."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


class ClientError(Exception):
    """The base of all errors of this package."""


class TransportError(ClientError):
    """There is no complete response; the service may or may not have carried out the request."""

    def __init__(self, url: str, reason: str) -> None:
        super().__init__(f"{url}: {reason}")
        self.url = url
        self.reason = reason


class UnreachableError(TransportError):
    """No connection can be made; the request was not sent."""


class TimedOutError(TransportError):
    """The service takes too long to respond."""


class UnexpectedAnswerError(ClientError):
    """The response is not of this service, or of a version that this client does not know."""


class FileFormatError(ClientError, ValueError):
    """The suffix of a file's name is of no known format."""


@dataclass(frozen=True)
class FieldProblem:
    """An error in one field of a request.

    Args:
        detail: Requirement that the field does not meet.
        pointer: JSON pointer into the body.
        parameter: Name of a path, query or header parameter, instead of a pointer.
        column: Name of a column of a table, instead of a pointer.
    """

    detail: str
    pointer: str | None = None
    parameter: str | None = None
    column: str | None = None

    @property
    def field(self) -> str:
        """The name of the field, such as `optimisation.batch_size`; empty for the whole body."""
        named = self.parameter if self.column is None else self.column
        if named is not None:
            return named
        parts = (self.pointer or "").split("/")[1:]
        return ".".join(part.replace("~1", "/").replace("~0", "~") for part in parts)


class ApiError(ClientError):
    """The service refused a request, by a response of `application/problem+json` (RFC 9457).

    Attributes:
        type: Stable identifier for programs, such as `/problems/dimension-mismatch`.
        title: Name of the type of problem.
        detail: Description of this occurrence.
        members: Further members of this type of problem, such as a limit.
        request_id: Id of the request in the service's log.
        retry_after_s: Seconds after which the service suggests another attempt.
    """

    def __init__(  # noqa: PLR0913 - the members of a problem
        self,
        status: int,
        *,
        type: str = "about:blank",  # noqa: A002 - the word for it
        title: str = "",
        detail: str = "",
        errors: Sequence[FieldProblem] = (),
        members: Mapping[str, object] | None = None,
        request_id: str | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        self.status = status
        self.type = type
        self.title = title
        self.detail = detail
        self.errors = errors
        self.members = members or {}
        self.request_id = request_id
        self.retry_after_s = retry_after_s
        fields = "; ".join(
            f"{error.field}: {error.detail}" if error.field else error.detail
            for error in errors
            if error.detail != detail and f"`{error.field}`" not in detail
        )
        text = " ".join(part for part in (detail, fields, "; ".join(self.named)) if part)
        super().__init__(f"{title} ({status}): {text}")

    @property
    def named(self) -> Sequence[str]:
        """The names that further members list, such as `missing: weight, age`."""
        return [
            f"{name}: {', '.join(map(str, value))}"
            for name, value in self.members.items()
            if isinstance(value, list) and value
        ]


class RowsWarning(UserWarning):
    """Part of a file of rows that the service took for no row, or read otherwise than it may be meant."""
