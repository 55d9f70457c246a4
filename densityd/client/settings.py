"""The settings of a client."""

import ipaddress
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from densityd.client.call import JSON, Call, new_key
from densityd.client.errors import TimedOutError, TransportError, UnreachableError
from densityd.client.retrying import Attempts, Retries

if TYPE_CHECKING:
    import httpx

DEFAULT_URL = "http://127.0.0.1:8000"
_CONNECT_TIMEOUT_S = 5.0


@dataclass(frozen=True)
class Settings:
    """The settings of a client.

    Args:
        url: URL of the service; None for the one in `DENSITYD_URL`, or http://127.0.0.1:8000.
        api_key: API key, sent as a bearer token; None for the one in `DENSITYD_API_KEY`, if any.
        timeout_s: Longest silence of the service during a request, in seconds; as long after the first
            failure a request is sent again.
        retries: Policy by which failed requests are sent again.
        rows_per_request: Most rows of one request; None for about two megabytes, and half a million rows
            of a file.
        request_ids: Makes the `X-Request-ID` of each request, which the service logs.

    Raises:
        ValueError: The URL is not one of a service.
    """

    url: str | None = None
    api_key: str | None = field(default=None, repr=False)
    timeout_s: float = 60.0
    retries: Retries = field(default_factory=Retries)
    rows_per_request: int | None = None
    request_ids: Callable[[], str] = new_key

    def __post_init__(self) -> None:
        import httpx  # noqa: PLC0415 - it takes a while; whoever makes a client needs it

        url = self.url or os.environ.get("DENSITYD_URL") or DEFAULT_URL
        try:
            parsed = httpx.URL(url)
        except httpx.InvalidURL as error:
            raise ValueError(f"{url} is not a URL: {error}") from error
        if parsed.scheme not in ("http", "https") or not parsed.host:
            raise ValueError(f"{url} is not a URL of a service, such as {DEFAULT_URL}")
        object.__setattr__(self, "url", str(parsed).rstrip("/"))
        key = self.api_key or os.environ.get("DENSITYD_API_KEY") or None
        object.__setattr__(self, "api_key", key)

    @property
    def address(self) -> str:
        """The URL of the service."""
        return str(self.url)

    def http_options(self) -> dict[str, Any]:
        """Return the arguments of httpx's client."""
        import httpx  # noqa: PLC0415 - as above

        headers = {"Accept": JSON, "User-Agent": "densityd-client"}
        if self.api_key is not None:
            headers["Authorization"] = f"Bearer {self.api_key}"
        return {
            "base_url": self.address,
            "headers": headers,
            "timeout": self._timeout(self.timeout_s),
            # No proxy for this machine itself, whatever the environment says.
            "trust_env": not _is_loopback(httpx.URL(self.address).host),
        }

    def request_options(self, call: Call[Any], request_id: str) -> dict[str, Any]:
        """Return the arguments of httpx's request, without its body."""
        headers = {**call.headers, "X-Request-ID": request_id}
        if call.body is not None:
            headers["Content-Type"] = call.body.media_type
            if call.body.size is not None:
                headers["Content-Length"] = str(call.body.size)
        return {
            "method": call.method,
            "url": call.path,
            "params": call.query,
            "headers": headers,
            "timeout": self._timeout(self._silence_s(call)),
        }

    def attempts(self, call: Call[Any]) -> Attempts:
        """Return the attempts at a request, of which none was made yet."""
        longest_s = self._silence_s(call) if call.retry_s is None else call.retry_s
        return Attempts(self.retries, call.retry, longest_s=longest_s)

    def wrap_error(self, error: "httpx.RequestError") -> TransportError:
        """Return the error to raise for a failure of the connection."""
        import httpx  # noqa: PLC0415 - as above

        reason = str(error) or type(error).__name__
        if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout | httpx.PoolTimeout):
            return UnreachableError(self.address, f"cannot connect: {reason}")
        if isinstance(error, httpx.TimeoutException):
            return TimedOutError(self.address, "the service takes too long to respond")
        return TransportError(self.address, f"the connection broke: {reason}")

    def _silence_s(self, call: Call[Any]) -> float:
        return max(self.timeout_s, call.read_timeout_s or 0.0)

    def _timeout(self, timeout_s: float) -> "httpx.Timeout":
        import httpx  # noqa: PLC0415 - as above

        return httpx.Timeout(timeout_s, connect=min(_CONNECT_TIMEOUT_S, timeout_s))


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
