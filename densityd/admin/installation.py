"""The database and the store of the settings, for commands that work on both."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

from pydantic import ValidationError

from densityd.errors import StartError
from densityd.terminal import FAILED, WRONG_USAGE, fail, note
from models_store.files.private_files import close_to_others, create_private_files
from models_store.settings import StoreSettings, first_error

if TYPE_CHECKING:
    from models_store.database.database import Database
    from models_store.files.blobs import Blobs

_Settings = TypeVar("_Settings", bound=StoreSettings)


def override(**values: object) -> None:
    """Set environment variables from options, for this process and its children."""
    for name, value in values.items():
        if value is not None:
            os.environ[f"DENSITYD_{name}"] = str(value)


def read_settings(kind: type[_Settings]) -> _Settings:
    """Return the settings of the environment; a bad one ends the command."""
    try:
        return kind()
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
    from models_store.files.blobs import Blobs  # noqa: PLC0415
    from models_store.files.store_identity import known_identity  # noqa: PLC0415

    database = Database(settings.resolved_database_url)
    blobs = Blobs(settings.store_address)
    try:
        database.check_revision()
        identity = known_identity(database)
        if identity is not None:
            blobs.check_identity(identity)
        yield database, blobs
    finally:
        database.dispose()


def migrated_database(settings: StoreSettings) -> "Database":
    """Open the database of the settings after migrating it, and making a file if there is none.

    Raises:
        DatabaseError: It cannot be used.
        OSError: The data directory cannot be written.
    """
    from models_store.database.database import Database, migrate  # noqa: PLC0415 - as above

    create_private_files()
    if settings.database_url is None:
        settings.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        if (warning := close_to_others(settings.data_dir)) is not None:
            note(f"densityd: {warning}")
    migrate(settings.resolved_database_url)
    return Database(settings.resolved_database_url)
