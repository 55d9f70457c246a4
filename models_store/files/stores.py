"""The blob store that an address names: a folder, or a bucket of object storage."""

from pathlib import Path

from models_store.files.blobs import Blobs
from models_store.files.local_blobs import LocalBlobs
from models_store.files.store_address import StoreAddress


def open_blobs(address: StoreAddress) -> Blobs:
    """Return the store of an address; nothing is written yet."""
    if not address.is_remote:
        return LocalBlobs(Path(address.url), leave_bytes=address.leave_bytes)
    from models_store.files.object_blobs import ObjectBlobs  # noqa: PLC0415 - folders need none of it

    return ObjectBlobs(address)
