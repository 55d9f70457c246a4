"""A real server of object storage for the tests: SeaweedFS (S3)."""

import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from models_store.errors import BlobError
from models_store.files.blobs import Blobs
from models_store.files.store_address import StoreAddress
from tests.support.servers import Guarded, free_port

_IDENTITY = """{"identities": [{"name": "densityd",
 "credentials": [{"accessKey": "densityd", "secretKey": "not-in-any-log"}],
 "actions": ["Admin", "Read", "Write", "List"]}]}"""
_START_S = 180.0


@dataclass
class S3Server:
    """SeaweedFS with an S3 gateway, in a folder of its own; it can be killed and started again."""

    folder: Path = field(default_factory=lambda: Path(tempfile.mkdtemp(prefix="s3-")))

    def __post_init__(self) -> None:
        (self.folder / "s3.json").write_text(_IDENTITY)
        (self.folder / "data").mkdir()
        ports = [free_port() for _ in range(8)]
        names = ("master.port", "volume.port", "filer.port", "s3.port")
        grpc = ("master.port.grpc", "volume.port.grpc", "filer.port.grpc", "s3.port.grpc")
        self.port = ports[3]
        self.endpoint = f"http://127.0.0.1:{self.port}"
        self._command = [
            str(Path(sys.executable).parent / "weed"),
            "server",
            f"-dir={self.folder / 'data'}",
            "-ip=127.0.0.1",
            "-ip.bind=127.0.0.1",
            "-s3",
            f"-s3.config={self.folder / 's3.json'}",
            "-s3.port.iceberg=0",
            "-s3.port.lance=0",
            "-s3.autoCreateBucket=true",
            "-master.telemetry=false",
            "-master.volumeSizeLimitMB=64",
            "-volume.max=30",
            *(f"-{name}={port}" for name, port in zip((*names, *grpc), ports, strict=True)),
        ]
        self.start()

    @property
    def pid(self) -> int:
        """Id of the server's process."""
        return self._process.pid

    @property
    def environment(self) -> Mapping[str, str]:
        """Variables with the credentials."""
        return {"AWS_ACCESS_KEY_ID": "densityd", "AWS_SECRET_ACCESS_KEY": "not-in-any-log"}

    def address(self, cache: Path, *, prefix: str = "a/prefix", most: int = 2**30) -> StoreAddress:
        """The address of a prefix in a bucket, which is made when it is first written to."""
        return StoreAddress(
            url=f"s3://densityd/{prefix}",
            endpoint=self.endpoint,
            cache_dir=str(cache),
            cache_bytes=most,
        )

    def start(self) -> None:
        """Start the server, and wait until it keeps what it is given."""
        self._process = Guarded(self._command, end=signal.SIGTERM, log=self.folder / "log")
        self._process.wait_until(
            lambda: httpx.get(self.endpoint, timeout=20), errors=httpx.TransportError
        )

    def wait_ready(self, blobs: Blobs) -> None:
        """Wait until a bucket takes writes."""
        deadline = time.monotonic() + _START_S
        while True:
            try:
                blobs.ping()
            except BlobError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.1)
            else:
                return

    def kill(self) -> None:
        """Kill the server."""
        self._process.kill()

    def close(self) -> None:
        """End the server for good; asked to end, it would take ten seconds."""
        self._process.kill()
        shutil.rmtree(self.folder)
