"""What can go wrong between a caller and the service."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


class ClientError(Exception):
    """Base of all errors that this package raises on purpose."""


class TransportError(ClientError):
    """There is no whole answer. Whether the service did what it was asked to is not known."""

    def __init__(self, url: str, reason: str) -> None:
        super().__init__(f"{url}: {reason}")
        self.url = url
        self.reason = reason


class UnreachableError(TransportError):
    """Nothing answers at the address; nothing was asked for."""


class TimedOutError(TransportError):
    """The service takes too long."""


class UnexpectedAnswerError(ClientError):
    """The answer is not one of this service, or of a version that this client does not know."""


class FileFormatError(ClientError, ValueError):
    """The end of a file's name tells no format that the service knows."""


@dataclass(frozen=True)
class FieldProblem:
    """Where in a request something is wrong, and what.

    Args:
        detail: what it must be.
        pointer: JSON pointer into the body.
        parameter: instead of a pointer, the name of a path, query or header parameter.
    """

    detail: str
    pointer: str | None = None
    parameter: str | None = None

    @property
    def field(self) -> str:
        """The place in words: `optimisation.batch_size`; empty for the body as a whole."""
        if self.parameter is not None:
            return self.parameter
        parts = (self.pointer or "").split("/")[1:]
        return ".".join(part.replace("~1", "/").replace("~0", "~") for part in parts)


@dataclass(frozen=True)
class Problem:
    """An answer of `application/problem+json` (RFC 9457).

    Args:
        status: of the HTTP answer.
        type: stable, for programs: `/problems/dimension-mismatch`.
        title: what kind of problem it is.
        detail: what happened this time.
        errors: the fields that are wrong.
        members: the further members of this type of problem, such as a limit.
        request_id: finds the request in the service's log.
        retry_after_s: when the service suggests another try.
    """

    status: int
    type: str = "about:blank"
    title: str = ""
    detail: str = ""
    errors: Sequence[FieldProblem] = ()
    members: Mapping[str, object] | None = None
    request_id: str | None = None
    retry_after_s: float | None = None


class ApiError(ClientError):
    """The service refused a request, and says why.

    Attributes:
        problem: all that it says.
    """

    def __init__(self, problem: Problem) -> None:
        where = "; ".join(
            f"{error.field}: {error.detail}" if error.field else error.detail
            for error in problem.errors
            if error.detail != problem.detail
        )
        text = " ".join(part for part in (problem.detail, where) if part)
        super().__init__(f"{problem.title} ({problem.status}): {text}")
        self.problem = problem

    @property
    def status(self) -> int:
        """The status of the HTTP answer."""
        return self.problem.status

    @property
    def type(self) -> str:
        """The type of the problem, such as `/problems/not-found`."""
        return self.problem.type

    @property
    def title(self) -> str:
        """What kind of problem it is."""
        return self.problem.title

    @property
    def detail(self) -> str:
        """What happened this time."""
        return self.problem.detail

    @property
    def errors(self) -> Sequence[FieldProblem]:
        """The fields that are wrong."""
        return self.problem.errors

    @property
    def request_id(self) -> str | None:
        """Finds the request in the service's log."""
        return self.problem.request_id
