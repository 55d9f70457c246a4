"""A bucket of object storage: S3, Google Cloud Storage or Azure, and what compatible servers offer.

Errors carry no text of the client: it may hold signed addresses.
"""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import obstore
from obstore.exceptions import (
    BaseError,
    InvalidPathError,
    PermissionDeniedError,
    UnauthenticatedError,
)
from obstore.store import from_url

from models_store.errors import BlobDiskError, BlobMissingError, StorageFullError
from models_store.files.store_address import CREDENTIAL_PREFIXES, StoreAddress

_FILE = "_FILE"
# Their values are files for the client itself, which reads them again when they change.
_OWN_FILES = frozenset(
    {
        "AWS_WEB_IDENTITY_TOKEN_FILE",
        "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
        "AWS_SHARED_CREDENTIALS_FILE",
        "AWS_CONFIG_FILE",
        "AZURE_FEDERATED_TOKEN_FILE",
    }
)
_STATUS = re.compile(r"(?:status|HTTP error)[^0-9]{0,20}([45][0-9]{2})")
_REFUSED = ("401", "403")
_NOT_ENOUGH_ROOM = "507"
_PART_BYTES = 8 * 2**20
_MOST_PARTS = 5_000
_CONNECT, _TIMEOUT = timedelta(seconds=5), timedelta(seconds=30)
_RETRIES, _RETRY = 3, timedelta(seconds=15)

Found = tuple[str, int, float]


class Bucket:
    """Objects below one prefix. Errors are those of `Blobs`."""

    def __init__(self, address: StoreAddress) -> None:
        self._store = _client(address)

    def put(self, key: str, file: Path, size: int) -> None:
        """Write an object, in parts if it is large."""
        part = max(_PART_BYTES, size // _MOST_PARTS + 1)
        with _translated(key):
            obstore.put(self._store, key, file, chunk_size=part, max_concurrency=4)

    def size(self, key: str) -> int:
        """Return the size of an object."""
        with _translated(key):
            return int(obstore.head(self._store, key)["size"])

    def stream(self, key: str, start: int, stop: int) -> Iterator[bytes]:
        """Yield some bytes of an object; each piece is a request, which is tried again."""
        while start < stop:
            with _translated(key):
                length = min(_PART_BYTES, stop - start)
                piece = bytes(obstore.get_range(self._store, key, start=start, length=length))
            if not piece:
                raise BlobDiskError(key, "ends too early")
            start += len(piece)
            yield piece

    def found(self, prefix: str | None) -> Iterator[Found]:
        """Yield name, size and time of change of the objects below a prefix."""
        with _translated(prefix or ""):
            for page in obstore.list(self._store, prefix):
                for one in page:
                    if prefix is None or one["path"].startswith(f"{prefix}/"):
                        yield one["path"], one["size"], one["last_modified"].timestamp()

    def delete(self, keys: list[str]) -> None:
        """Delete objects; one that is not there is no error."""
        for key in keys:
            try:
                with _translated(key):
                    obstore.delete(self._store, key)
            except BlobMissingError:
                continue


def _client(address: StoreAddress) -> Any:  # noqa: ANN401 - one of three classes of the client
    config = _secrets_of_files()
    endpoint = address.endpoint
    if endpoint is not None:
        config["base_url" if address.url.startswith("gs://") else "endpoint"] = endpoint
    if address.url.startswith("s3://"):
        config.setdefault("checksum_algorithm", "SHA256")
        if not os.environ.get("AWS_REGION") and not os.environ.get("AWS_DEFAULT_REGION"):
            config["region"] = "us-east-1"
    with _translated("store"):
        make: Any = from_url  # its types tell the three providers apart
        return make(
            address.url,
            config=config,
            client_options={
                "allow_http": (endpoint or "").startswith("http://"),
                "connect_timeout": _CONNECT,
                "timeout": _TIMEOUT,
            },
            retry_config={"max_retries": _RETRIES, "retry_timeout": _RETRY},
        )


def _secrets_of_files() -> dict[str, str]:
    """Return credentials from the files that variables such as AWS_SECRET_ACCESS_KEY_FILE name."""
    found = {}
    for name, value in os.environ.items():
        own = name in _OWN_FILES or not name.startswith(CREDENTIAL_PREFIXES)
        if own or not name.endswith(_FILE) or not value:
            continue
        try:
            text = Path(value).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError):
            raise BlobDiskError("store", f"cannot be used: {name} cannot be read") from None
        found[name.removesuffix(_FILE).lower()] = text
    return found


@contextmanager
def _translated(key: str) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise BlobMissingError(key) from None
    except InvalidPathError:
        raise ValueError("this is no key of the blob store") from None
    except (BaseError, ValueError) as error:
        status = _STATUS.search(str(error))
        if status is not None and status[1] == _NOT_ENOUGH_ROOM:
            raise StorageFullError from None
        raise BlobDiskError(key, f"cannot be used: {_cause(error, status)}") from None


def _cause(error: Exception, status: "re.Match[str] | None") -> str:
    """Return why a request failed, in words without addresses."""
    if isinstance(error, PermissionDeniedError | UnauthenticatedError) or (
        status is not None and status[1] in _REFUSED
    ):
        return "the store refuses the credentials"
    if status is not None:
        return f"the store answered {status[1]}"
    return "the store does not answer, or needs other credentials or another endpoint"
