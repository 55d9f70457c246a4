"""Repeated requests: which failures allow one, and the pause before it."""

import math
import random
import time
from dataclasses import dataclass
from http import HTTPStatus

from densityd.client.call import Retry
from densityd.client.errors import ApiError, ClientError, TransportError, UnreachableError

_TEMPORARY = (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE)
# Of a proxy that got no response: the service may have acted.
_NO_RESPONSE = (HTTPStatus.BAD_GATEWAY, HTTPStatus.GATEWAY_TIMEOUT)


@dataclass(frozen=True)
class Retries:
    """The policy by which a client sends failed requests again.

    Pauses double from `first_pause_s` on, each shortened at random by up to a half, so that
    clients that failed together do not return together: 16 to 32 seconds in all by default, which outlast
    an ordinary restart of the service. The seconds of `Retry-After` are added; if they exceed
    `longest_pause_s` the request is not sent again.

    Args:
        attempts: Most times that a request is sent; 1 for never again.
        first_pause_s: Seconds before the second attempt.
        longest_pause_s: Most seconds before any attempt.
        longest_s: Seconds from the first failure to the last attempt; None for the client's `timeout_s`.
    """

    attempts: int = 8
    first_pause_s: float = 0.25
    longest_pause_s: float = 30.0
    longest_s: float | None = None

    def pause_s(
        self, error: ClientError, *, sent: int, retry: Retry, left_s: float = math.inf
    ) -> float | None:
        """Return the seconds before the next attempt; None if there is none.

        Args:
            retry: Failures after which the request may be sent again.
            left_s: Seconds within which the next attempt must begin.
        """
        if sent >= self.attempts or not _is_temporary(error, retry):
            return None
        backoff_s = min(self.longest_pause_s, self.first_pause_s * 2.0 ** (sent - 1))
        backoff_s *= random.uniform(0.5, 1.0)  # noqa: S311 - nothing secret
        asked_s = error.retry_after_s if isinstance(error, ApiError) else None
        asked_s = asked_s or 0.0
        pause_s = asked_s + backoff_s
        return None if asked_s > self.longest_pause_s or pause_s > left_s else pause_s


class Attempts:
    """Attempts at one request.

    Args:
        retries: Policy by which it is sent again.
        retry: Failures after which it may be sent again.
        longest_s: Seconds from the first failure to the last attempt, unless the policy says so.
    """

    def __init__(self, retries: Retries, retry: Retry, *, longest_s: float) -> None:
        self._retries = retries
        self._retry = retry
        self._longest_s = longest_s if retries.longest_s is None else retries.longest_s
        self._sent = 0
        self._failed_at = 0.0

    def pause_s(self, error: ClientError) -> float | None:
        """Return the seconds before the next attempt; None if there is none."""
        now = time.monotonic()
        if not self._sent:
            self._failed_at = now
        self._sent += 1
        left_s = self._failed_at + self._longest_s - now
        return self._retries.pause_s(error, sent=self._sent, retry=self._retry, left_s=left_s)


def _is_temporary(error: ClientError, retry: Retry) -> bool:
    if isinstance(error, UnreachableError):
        return True
    if isinstance(error, TransportError):
        return retry is Retry.ALWAYS
    return isinstance(error, ApiError) and (
        error.status in _TEMPORARY or (error.status in _NO_RESPONSE and retry is Retry.ALWAYS)
    )
