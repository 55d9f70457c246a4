"""The processes of a whole service, each of which can be killed, frozen and started again."""

import os
import signal
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import httpx

from densityd.service import private_redis
from models_store.database.database import Database, migrate
from models_store.errors import DatabaseError
from models_store.files.blobs import Blobs
from models_store.jobs.live_workers import Workers
from models_store.settings import StoreSettings
from tests.jobs.workers.place import fork_servers_of, trainers_of
from tests.support.bucket_servers import S3Server
from tests.support.servers import PostgresServer, free_port, tied
from tests.support.waiting import wait_until

LEASE_S = 3.0
MAX_QUEUED = 6

_DENSITYD = (sys.executable, "-P", "-c", "from densityd.cli import main; main()")
_BUCKET = "s3://densityd/chaos"
# Parts of 5,000 rows, so that a small job is split; a checkpoint an epoch.
_VARIABLES = {
    "DENSITYD_MAX_QUEUED_JOBS": str(MAX_QUEUED),
    "DENSITYD_WORKER_CONCURRENCY": "2",
    "DENSITYD_TEST_BULK_PART_ROWS": "5000",
    "DENSITYD_TEST_LEASE_S": str(LEASE_S),
    "DENSITYD_TEST_CHECKPOINT_INTERVAL_S": "0",
    "DENSITYD_TEST_TRAINER_NICE": "0",
}


class Process:
    """One process of the service, whose log is `NAME.log`."""

    def __init__(self, name: str, *command: str, folder: Path, variables: dict[str, str]) -> None:
        self.name = name
        self._command = command
        self._variables = variables
        self.log = folder / f"{name}.log"
        self.start()

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    def start(self) -> None:
        """Start it; it dies with this process. For the main thread."""
        self.started_at = datetime.now(UTC)
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603 - our own commands
                tied(*self._command), env=os.environ | self._variables, stdout=log, stderr=log
            )

    def end(self, number: signal.Signals) -> None:
        """End it by a signal."""
        self._process.send_signal(number)
        self._process.wait(300)


class Service:
    """API, two workers, Redis, a database and a store, as they are deployed.

    Args:
        folder: of all data and logs; a short path, for the socket of Redis.
        postgres: the database; None for SQLite in the folder.
        bucket: Store of the files; None for a folder.
    """

    def __init__(
        self, folder: Path, postgres: PostgresServer | None, bucket: S3Server | None
    ) -> None:
        self.postgres, self.bucket = postgres, bucket
        self.settings = settings = StoreSettings(
            data_dir=folder,
            database_url=None if postgres is None else postgres.create("densityd"),
            store_url=None if bucket is None else _BUCKET,
            store_endpoint=None if bucket is None else bucket.endpoint,
        )
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        variables = _VARIABLES | {
            "DENSITYD_DATA_DIR": str(folder),
            "DENSITYD_PORT": str(port),
            "DENSITYD_BROKER_URL": settings.resolved_broker_url,
            "DENSITYD_DATABASE_URL": settings.resolved_database_url,
        }
        if bucket is not None:
            bucket.wait_ready(Blobs(settings.store_address))
            variables["DENSITYD_STORE_URL"] = _BUCKET
            variables["DENSITYD_STORE_ENDPOINT"] = bucket.endpoint
        migrate(settings.resolved_database_url)
        redis = private_redis.build_command(settings.redis_socket)
        self.redis = Process("redis", *redis, folder=folder, variables={})
        self.api = Process("api", *_DENSITYD, "api", folder=folder, variables=variables)
        self.workers = [
            Process(
                name,
                *(*_DENSITYD, "worker"),
                folder=folder,
                variables=variables | {"DENSITYD_WORKER_NAME": name},
            )
            for name in ("worker-a", "worker-b")
        ]

    @property
    def trainers(self) -> list[int]:
        """The process ids of the trainers."""
        return [pid for worker in self.workers for pid in trainers_of(worker.pid)]

    @property
    def fork_servers(self) -> list[int]:
        """The process ids of what forks the trainers."""
        return [pid for worker in self.workers for pid in fork_servers_of(worker.pid)]

    @property
    def api_ready(self) -> bool:
        """Whether the API serves."""
        try:
            return httpx.get(f"{self.url}/readyz", timeout=2).status_code == httpx.codes.OK
        except httpx.HTTPError:
            return False

    @property
    def working(self) -> list[Process]:
        """The workers that have begun to work; one killed while it starts, again and again, cannot."""
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

    def wait_ready(self) -> None:
        """Wait until the API serves."""
        wait_until(lambda: self.api_ready, "the API did not become ready")

    def close(self) -> None:
        """End every process."""
        for process in (*self.workers, self.api, self.redis):
            process.end(signal.SIGKILL)
