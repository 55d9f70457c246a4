"""When to try again, and how long to wait before."""

import random
from dataclasses import dataclass
from http import HTTPStatus

from densityd.client.call import Retry
from densityd.client.errors import ApiError, ClientError, TransportError, UnreachableError

_PASSING = (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE)


@dataclass(frozen=True)
class Retries:
    """How a client tries again.

    Pauses double from `first_pause_s` on, each cut by a random part of up to a half, so that
    clients that failed together do not come back together. `Retry-After` is obeyed where it is
    longer, up to `longest_pause_s`; a service that asks for more is not waited for.

    Args:
        attempts: how often a request is sent at most; 1: never again.
        first_pause_s: before the second time.
        longest_pause_s: before any time.
    """

    attempts: int = 5
    first_pause_s: float = 0.25
    longest_pause_s: float = 30.0

    def pause_s(self, error: ClientError, *, sent: int, retry: Retry) -> float | None:
        """Seconds to wait before the next try; None: there is none, the error stands.

        Args:
            error: how the last try ended.
            sent: how many tries there were.
            retry: what the request allows.
        """
        if sent >= self.attempts or not _may_pass(error, retry):
            return None
        backoff_s = min(self.longest_pause_s, self.first_pause_s * 2.0 ** (sent - 1))
        backoff_s *= random.uniform(0.5, 1.0)  # noqa: S311 - nothing secret
        asked_s = error.problem.retry_after_s if isinstance(error, ApiError) else None
        if asked_s is None:
            return backoff_s
        return None if asked_s > self.longest_pause_s else asked_s + backoff_s


def _may_pass(error: ClientError, retry: Retry) -> bool:
    if isinstance(error, UnreachableError):
        return True
    if isinstance(error, TransportError):
        return retry is Retry.ALWAYS
    return isinstance(error, ApiError) and error.status in _PASSING
