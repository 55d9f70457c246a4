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
# Causes by what the client says; the first that it says holds.
_CAUSES = {
    r"edirect": "answered with a redirect, as it does for a wrong region or endpoint",
    r"returned error response": "answered with an error",
    r"onnect|(?i:dns)": "cannot be reached",
    r"(?i:timed out|(?<!retry_)timeout)": "did not answer in time",
    r"redential|oken|(?i:account)": "needs credentials that are not set",
}
_NOT_ENOUGH_ROOM = "507"
_PART_BYTES = 8 * 2**20
_MOST_PARTS = 5_000
_PAGE = 1_000
_MOST_SMALL_BYTES = 4 * 2**20

Found = tuple[str, int, float]


class Bucket:
    """Objects below one prefix.

    Two clients: one for bytes, and a hasty one for what takes a moment, whose callers must not wait
    long for a server that is unavailable.

    Args:
        address: Address of the bucket.
    """

    def __init__(self, address: StoreAddress) -> None:
        self._bytes = _client(address, timeout_s=60, connect_s=5, retries=3, retry_s=60)
        self._hasty = _client(address, timeout_s=5, connect_s=3, retries=1, retry_s=5)

    def put(self, key: str, file: Path, size: int) -> None:
        """Write an object, in parts if it is large, and see it back.

        Raises:
            StorageFullError: The server has no room.
            BlobDiskError: The server failed.
        """
        part = max(_PART_BYTES, size // _MOST_PARTS + 1)
        with _translated(key):
            put = obstore.put(self._bytes, key, file, chunk_size=part, max_concurrency=4)
            seen = obstore.head(self._bytes, key)
        if seen["size"] != size or (put["e_tag"] and seen["e_tag"] not in (None, put["e_tag"])):
            raise BlobDiskError(key, "is not in the store as it was sent")

    def put_bytes(self, key: str, content: bytes) -> None:
        """Write a small object."""
        with _translated(key):
            obstore.put(self._hasty, key, content, use_multipart=False)

    def get_bytes(self, key: str) -> bytes:
        """Return a small object; one that does not end is not read into memory.

        Raises:
            BlobDiskError: It is not small, or the server failed.
        """
        content = bytearray()
        with _translated(key):
            for piece in obstore.get(self._hasty, key).stream(min_chunk_size=_MOST_SMALL_BYTES):
                content += piece
                if len(content) > _MOST_SMALL_BYTES:
                    raise BlobDiskError(key, "is larger than anything that is written there")
        return bytes(content)

    def size(self, key: str) -> int:
        """Return the size of an object."""
        with _translated(key):
            return int(obstore.head(self._hasty, key)["size"])

    def stream(self, key: str, start: int, stop: int) -> Iterator[bytes]:
        """Yield some bytes of an object; each piece is a request, which is tried again."""
        while start < stop:
            with _translated(key):
                length = min(_PART_BYTES, stop - start)
                piece = bytes(obstore.get_range(self._bytes, key, start=start, length=length))
            if not piece:
                raise BlobDiskError(key, "ends too early")
            if len(piece) > length:
                raise BlobDiskError(key, "is not sent as it was asked for")
            start += len(piece)
            yield piece

    def found(self, prefix: str | None) -> Iterator[Found]:
        """Yield name, size and time of change of the objects below a prefix, whatever else is listed.

        Raises:
            BlobDiskError: The server begins its list again, and would not end, or it failed.
        """
        first = None
        with _translated(prefix or ""):
            for page in obstore.list(self._hasty, prefix, chunk_size=_PAGE):
                for one in page:
                    if one["path"] == first:
                        raise BlobDiskError(prefix or "store", "has a list without an end")
                    first = first or one["path"]
                    if prefix is None or one["path"].startswith(f"{prefix}/"):
                        yield one["path"], one["size"], one["last_modified"].timestamp()

    def delete(self, keys: list[str]) -> None:
        """Delete objects; one that is not there is no error."""
        for key in keys:
            try:
                with _translated(key):
                    obstore.delete(self._hasty, key)
            except BlobMissingError:
                continue

    def link(self, key: str, *, valid_s: float) -> str:
        """Return an address from which anybody may read an object for a while."""
        with _translated(key):
            return str(obstore.sign(self._bytes, "GET", key, timedelta(seconds=valid_s)))


def _client(
    address: StoreAddress, *, timeout_s: float, connect_s: float, retries: int, retry_s: float
) -> Any:  # noqa: ANN401 - one of three classes of the client
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
                "connect_timeout": timedelta(seconds=connect_s),
                "timeout": timedelta(seconds=timeout_s),
            },
            retry_config={"max_retries": retries, "retry_timeout": timedelta(seconds=retry_s)},
        )


def _secrets_of_files() -> dict[str, str]:
    """Return credentials from the files that variables such as AWS_SECRET_ACCESS_KEY_FILE name.

    Raises:
        BlobDiskError: A file cannot be read.
    """
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
    except (PermissionDeniedError, UnauthenticatedError):
        raise BlobDiskError(key, "cannot be used: the store refuses the credentials") from None
    except InvalidPathError:
        raise ValueError("this is no key of the blob store") from None
    except (BaseError, ValueError) as error:
        cause = _cause(str(error))
        if cause == _NOT_ENOUGH_ROOM:
            raise StorageFullError from None
        raise BlobDiskError(key, f"cannot be used: the store {cause}") from None


def _cause(text: str) -> str:
    """Return why a request failed, in words without addresses."""
    status = _STATUS.search(text)
    if status is not None:
        return _NOT_ENOUGH_ROOM if status[1] == _NOT_ENOUGH_ROOM else f"answered {status[1]}"
    found = (cause for pattern, cause in _CAUSES.items() if re.search(pattern, text))
    return next(found, "failed")
