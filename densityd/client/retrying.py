"""Repeated requests: which failures allow one, and the pause before it."""

import random
from dataclasses import dataclass
from http import HTTPStatus

from densityd.client.call import Retry
from densityd.client.errors import ApiError, ClientError, TransportError, UnreachableError

_TEMPORARY = (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE)


@dataclass(frozen=True)
class Retries:
    """The policy by which a client sends failed requests again.

    Pauses double from `first_pause_s` on, each shortened at random by up to a half, so that
    clients that failed together do not return together. The seconds of `Retry-After` are added;
    if they exceed `longest_pause_s` the request is not sent again.

    Args:
        attempts: Most times that a request is sent; 1 for never again.
        first_pause_s: Seconds before the second attempt.
        longest_pause_s: Most seconds before any attempt.
    """

    attempts: int = 5
    first_pause_s: float = 0.25
    longest_pause_s: float = 30.0

    def pause_s(self, error: ClientError, *, sent: int, retry: Retry) -> float | None:
        """Return the seconds before the next attempt; None if there is none.

        Args:
            error: Failure of the last attempt.
            sent: Number of attempts so far.
            retry: Failures after which the request may be sent again.
        """
        if sent >= self.attempts or not _is_temporary(error, retry):
            return None
        backoff_s = min(self.longest_pause_s, self.first_pause_s * 2.0 ** (sent - 1))
        backoff_s *= random.uniform(0.5, 1.0)  # noqa: S311 - nothing secret
        asked_s = error.problem.retry_after_s if isinstance(error, ApiError) else None
        if asked_s is None:
            return backoff_s
        return None if asked_s > self.longest_pause_s else asked_s + backoff_s


def _is_temporary(error: ClientError, retry: Retry) -> bool:
    if isinstance(error, UnreachableError):
        return True
    if isinstance(error, TransportError):
        return retry is Retry.ALWAYS
    return isinstance(error, ApiError) and error.status in _TEMPORARY
