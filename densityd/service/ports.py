"""The port and the URL of the API, and what is printed once it is ready."""

import http.client
import json
import socket
from contextlib import closing
from pathlib import Path

from densityd.errors import StartError

_TIMEOUT_S = 2.0
_SILENT = "It does not respond yet."


def free_port(host: str, port: int) -> int:
    """Check that `port` is free, and return it; 0 picks one.

    Raises:
        StartError: The port is taken, or the address is not one of this machine.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
            return int(probe.getsockname()[1])
    except OSError as error:
        reason = error.strerror or str(error)
        raise StartError(
            f"cannot listen on {host} port {port}: {reason}; choose another with --port or --host."
        ) from error


def build_url(host: str, port: int) -> str:
    """Return the URL of the API for a person on this machine."""
    reachable = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}.get(host, host)  # noqa: S104
    return f"http://[{reachable}]:{port}" if ":" in reachable else f"http://{reachable}:{port}"


def why_unready(url: str) -> str | None:
    """Return why the API is not ready, in sentences; None if it is."""
    try:
        status, content = _get(url, "/readyz")
        if status == http.client.OK:
            return None
        checks = json.loads(content)["checks"].values()
        return " ".join(check["detail"] for check in checks if not check["ok"])
    except (OSError, http.client.HTTPException, ValueError, LookupError, TypeError):
        return _SILENT


def wants_key(url: str) -> bool:
    """Return whether the API refuses callers without a key; False if it does not respond."""
    try:
        return _get(url, "/v1/me")[0] == http.client.UNAUTHORIZED
    except (OSError, http.client.HTTPException):
        return False


def _get(url: str, path: str) -> tuple[int, bytes]:
    """Return the status and the content of a response."""
    with closing(
        http.client.HTTPConnection(url.removeprefix("http://"), timeout=_TIMEOUT_S)
    ) as connection:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read()


_TEXT = """\
densityd is ready.

  Open in the browser    {url}
  Or in a terminal       densityd demo{address}
  Data and logs          {data_dir}
  Stop                   Ctrl-C
{key}"""
_KEY = """
The service wants an API key: `densityd keys create --scope write` makes one. The page asks for it,
and commands read it from DENSITYD_API_KEY.
"""
_USUAL = "http://127.0.0.1:8000"


def format_banner(url: str, *, data_dir: Path, with_key: bool) -> str:
    """Return the text for a service at `url`, which may want a key."""
    address = "" if url == _USUAL else f" --url {url}"
    key = _KEY if with_key else ""
    return _TEXT.format(url=url, address=address, data_dir=data_dir, key=key)
