"""``python -m densityd.service.stores``: the database brought up to date and the store tried, before a start."""

import sys
from contextlib import suppress

from app.settings import ApiSettings
from models_store.database.database import migrate
from models_store.errors import BlobError, StorageFullError, StoreError
from models_store.files.blobs import Blobs
from models_store.files.private_files import create_private_files


def _prepare(settings: ApiSettings) -> None:
    create_private_files()
    migrate(settings.resolved_database_url)
    blobs = Blobs(settings.store_address)
    # On a full disk the API starts all the same, so that something can be deleted.
    with suppress(StorageFullError):
        blobs.ping()
    if settings.store_url is None or blobs.is_remote:
        # No other process writes here, so all staged files were left by a crash.
        blobs.sweep_staging(older_than_s=0)


if __name__ == "__main__":
    settings = ApiSettings()
    try:
        _prepare(settings)
    except BlobError:
        sys.exit(f"the blob store {settings.store_address.url} cannot be written.")
    except StoreError as error:
        sys.exit(str(error))
