"""The processes of a whole service, each of which can be killed, frozen and started again."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import httpx

from densityd.service import private_redis
from models_store.database.database import Database, migrate
from models_store.errors import DatabaseError
from models_store.files.blobs import Blobs
from models_store.jobs.live_workers import Workers
from models_store.settings import StoreSettings
from tests.bucket_servers import S3Server
from tests.chaos.caller import PART_ROWS
from tests.chaos.network import Network
from tests.ports import free_port
from tests.servers import PostgresServer, tied
from tests.workers.place import fork_servers_of, trainers_of

LEASE_S = 3.0
SLOTS = 4
"""Number of jobs that run at a time."""

_DENSITYD = (sys.executable, "-P", "-c", "from densityd.cli import main; main()")
_START_S = 300.0
_BUCKET = "s3://densityd/chaos"


class Part:
    """One process of the service."""

    def __init__(self, name: str, command: list[str], *, folder: Path, **variables: str) -> None:
        self.name = name
        self._command = command
        self._variables = variables
        self._log = folder / f"{name}.log"
        self.start()

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether the process is there."""
        return self._process.poll() is None

    def start(self) -> None:
        """Start it; it dies with this process. For the main thread."""
        with self._log.open("ab") as log:
            self.started_at = datetime.now(UTC)
            self._process = subprocess.Popen(  # noqa: S603 - our own commands
                tied(*self._command), env=os.environ | self._variables, stdout=log, stderr=log
            )

    def kill(self) -> None:
        """End it at once and start it again."""
        self._process.kill()
        self._process.wait()
        self.start()

    def deploy(self) -> float:
        """End it as a deploy does and start it again; the seconds to its end."""
        began = time.monotonic()
        self._process.terminate()
        self._process.wait(_START_S)
        took_s = time.monotonic() - began
        self.start()
        return took_s

    def freeze(self, seconds: float) -> None:
        """Stop it in mid-step, and let it continue as if nothing had been."""
        os.kill(self.pid, signal.SIGSTOP)
        time.sleep(seconds)
        os.kill(self.pid, signal.SIGCONT)

    def close(self) -> None:
        """End it for good."""
        self._process.kill()
        self._process.wait()


class Service:
    """API, two workers, Redis and a database, as they are deployed.

    Args:
        folder: of all data and logs; a short path, for the socket of Redis.
        postgres: the database; None for SQLite in the folder.
        bucket: Store of the files; None for a folder.
        max_queued: Limit of jobs that wait.
    """

    def __init__(
        self,
        folder: Path,
        postgres: PostgresServer | None,
        bucket: S3Server | None,
        *,
        max_queued: int,
    ) -> None:
        self.folder = folder
        self.postgres = postgres
        self.bucket = bucket
        self.settings = StoreSettings(
            data_dir=folder,
            database_url=None if postgres is None else postgres.create("densityd"),
            store_url=None if bucket is None else _BUCKET,
            store_endpoint=None if bucket is None else bucket.endpoint,
        )
        if bucket is not None:
            bucket.wait_ready(Blobs(self.settings.store_address))
        migrate(self.settings.resolved_database_url)
        self.port = free_port()
        self._direct_url = f"http://127.0.0.1:{self.port}"
        self.network = Network()
        self.url = f"http://127.0.0.1:{self.network.link('callers to API', self.port).port}"
        variables = {
            "DENSITYD_DATA_DIR": str(folder),
            "DENSITYD_PORT": str(self.port),
            "DENSITYD_MAX_QUEUED_JOBS": str(max_queued),
            "DENSITYD_TEST_BULK_PART_ROWS": str(PART_ROWS),
            "DENSITYD_TEST_LEASE_S": str(LEASE_S),
            "DENSITYD_TEST_CHECKPOINT_INTERVAL_S": "0",
            "DENSITYD_WORKER_CONCURRENCY": str(SLOTS // 2),
            "DENSITYD_TEST_TRAINER_NICE": "0",
        }
        self.redis = Part(
            "redis", private_redis.build_command(self.settings.redis_socket), folder=folder
        )
        environment = variables | self._links("API")
        self.api = Part("api", [*_DENSITYD, "api"], folder=folder, **environment)
        environment = variables | self._links("workers")
        self.workers = [
            Part(
                name,
                [*_DENSITYD, "worker"],
                folder=folder,
                DENSITYD_WORKER_NAME=name,
                **environment,
            )
            for name in ("worker-a", "worker-b")
        ]

    def _links(self, who: str) -> dict[str, str]:
        """Give some processes connections of their own to Redis and PostgreSQL, which can fail."""
        redis = self.network.link(f"{who} to Redis", self.settings.redis_socket)
        variables = {
            "DENSITYD_BROKER_URL": f"redis://127.0.0.1:{redis.port}/0",
            "DENSITYD_DATABASE_URL": "",
        }
        if self.postgres is not None:
            socket = self.postgres.folder / ".s.PGSQL.5432"
            port = self.network.link(f"{who} to PostgreSQL", socket).port
            url = f"postgresql+psycopg://postgres@127.0.0.1:{port}/densityd"
            variables["DENSITYD_DATABASE_URL"] = url
        if self.bucket is not None:
            port = self.network.link(f"{who} to the store", self.bucket.port).port
            variables |= {
                "DENSITYD_STORE_URL": _BUCKET,
                "DENSITYD_STORE_ENDPOINT": f"http://127.0.0.1:{port}",
                "DENSITYD_TEST_STORE_CACHE_DIR": str(
                    self.folder / "caches" / who.replace(" ", "-")
                ),
            }
        return variables

    @property
    def parts(self) -> list[Part]:
        """All processes but the database and the trainers."""
        return [self.redis, self.api, *self.workers]

    @property
    def trainers(self) -> list[int]:
        """The process ids of the trainers."""
        return [pid for worker in self.workers for pid in trainers_of(worker.pid)]

    @property
    def fork_servers(self) -> list[int]:
        """The process ids of what forks the trainers."""
        return [pid for worker in self.workers for pid in fork_servers_of(worker.pid)]

    def wait_ready(self) -> None:
        """Wait until the API serves."""
        _wait(lambda: self.api_ready, "the API did not become ready")

    @property
    def api_ready(self) -> bool:
        """Whether the API serves."""
        try:
            return httpx.get(f"{self._direct_url}/readyz", timeout=2).status_code == httpx.codes.OK
        except httpx.HTTPError:
            return False

    @property
    def working(self) -> list[Part]:
        """The workers that have started to work."""
        database = Database(self.settings.resolved_database_url)
        try:
            seen_at = {worker.name: worker.seen_at for worker in Workers(database).alive()}
        except DatabaseError:
            return []
        finally:
            database.dispose()
        return [
            worker
            for worker in self.workers
            if worker.name in seen_at and seen_at[worker.name] > worker.started_at
        ]

    def close(self) -> None:
        """End every process."""
        for part in reversed(self.parts):
            part.close()
        self.network.close()


def _wait(condition: Callable[[], bool], otherwise: str) -> None:
    deadline = time.monotonic() + _START_S
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(otherwise)
        time.sleep(0.1)
