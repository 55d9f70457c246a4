"""The database and the store of the settings, for commands that work on both."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from pydantic import ValidationError

from densityd.errors import StartError
from densityd.terminal.console import FAILED, WRONG_USAGE, fail
from models_store.settings import StoreSettings, first_error

if TYPE_CHECKING:
    from models_store.database.database import Database
    from models_store.files.blobs import Blobs


def read_settings() -> StoreSettings:
    """Return the settings of the environment; a bad one ends the command."""
    try:
        return StoreSettings()
    except ValidationError as error:
        fail(first_error(error), status=WRONG_USAGE)


@contextmanager
def failing() -> Iterator[None]:
    """End the command with one line for an error of the database, the store or the disk."""
    from models_store.errors import StoreError  # noqa: PLC0415 - commands print help without it

    try:
        yield
    except (StoreError, StartError) as error:
        text = str(error)
        fail(text if text.endswith(".") else f"{text}.", status=FAILED)
    except OSError as error:
        fail(f"{error.filename or 'a file'}: {error.strerror or error}.", status=FAILED)


@contextmanager
def open_installation(settings: StoreSettings) -> "Iterator[tuple[Database, Blobs]]":
    """Open the database and the store of the settings, which must belong together.

    Raises:
        SchemaMismatchError: The database is of another version.
        WrongStoreError: They do not belong together.
        StoreError: One of them cannot be used.
    """
    from models_store.database.database import Database  # noqa: PLC0415 - as above
    from models_store.files.blobs import Blobs, check_identity  # noqa: PLC0415
    from models_store.files.store_identity import known_identity  # noqa: PLC0415

    database = Database(settings.resolved_database_url)
    blobs = Blobs(settings.store_address)
    try:
        database.check_revision()
        identity = known_identity(database)
        if identity is not None:
            check_identity(blobs, identity)
        yield database, blobs
    finally:
        database.dispose()
