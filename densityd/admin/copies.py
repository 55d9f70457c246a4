"""``densityd migrate``, ``backup`` and ``restore``: the schema, and copies of rows and files."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from densityd.admin.installation import (
    failing,
    migrated_database,
    open_installation,
    read_settings,
)
from densityd.terminal import FAILED, note
from models_store.files.private_files import create_private_files
from models_store.settings import StoreSettings

if TYPE_CHECKING:
    from models_store.copies import Copied

Folder = Annotated[
    Path, typer.Argument(metavar="FOLDER", file_okay=False, help="Folder of the back-up.")
]
_EVERY_S = 2.0
_GIB = 2**30


def migrate() -> None:
    """Migrate the database to this version's schema; safe to run twice, even at the same time.

    `densityd up` does so at each start. Rows and files move to another database or store by
    `densityd backup` with the old settings and `densityd restore` with the new ones.

    Example: DENSITYD_DATABASE_URL=postgresql+psycopg://user:secret@host/densityd densityd migrate
    """
    from models_store.files.blobs import Blobs  # noqa: PLC0415
    from models_store.files.store_identity import adopt  # noqa: PLC0415 - help is printed without it
    from models_store.keys import make_first_key  # noqa: PLC0415

    settings = read_settings(StoreSettings)
    with failing():
        database = migrated_database(settings)
        try:
            typer.echo(f"The database is at revision {database.revision()}.")
            adopt(database, Blobs(settings.store_address))
            if settings.first_key_file is not None:
                make_first_key(database, settings.first_key_file)
        finally:
            database.dispose()


def backup(folder: Folder) -> None:
    """Copy all rows and the files that they name into a folder, while the service runs.

    Files that an earlier back-up left in the folder are kept where they are the same, and deleted
    at the end where no row names them any more. The exit status is 1 if a file that a row names is
    missing or damaged in the store; the rest is copied.

    Examples: densityd backup /mnt/backup/densityd;
    DENSITYD_DATABASE_URL=... DENSITYD_STORE_URL=s3://bucket densityd backup /mnt/backup/densityd
    """
    from models_store.copies import back_up  # noqa: PLC0415 - help is printed without it

    create_private_files()
    settings = read_settings(StoreSettings)
    with failing(), open_installation(settings) as (database, blobs):
        copied = back_up(database, blobs, folder, tell=_telling())
    _echo_copied(copied, f"Copied to {folder}")


def restore(folder: Folder) -> None:
    """Copy a back-up into the database and the store of the settings, which must be empty.

    The database is migrated first, and may be of another kind than the one that was copied, as may
    the store. FOLDER may also be the data directory of a stopped service. An interrupted command
    continues when it is run again.

    Examples: densityd restore /mnt/backup/densityd;
    DENSITYD_DATABASE_URL=... DENSITYD_STORE_URL=s3://bucket densityd restore /mnt/backup/densityd
    """
    from models_store.copies import restore as run  # noqa: PLC0415
    from models_store.files.blobs import Blobs  # noqa: PLC0415

    settings = read_settings(StoreSettings)
    with failing():
        database = migrated_database(settings)
        try:
            copied = run(folder, database, Blobs(settings.store_address), tell=_telling())
        finally:
            database.dispose()
    _echo_copied(copied, f"Restored {folder}")


def _telling() -> Callable[[int, int, int], None]:
    """Return a function that prints the progress of a copy every two seconds."""
    last = time.monotonic()

    def tell(files: int, total: int, size: int) -> None:
        nonlocal last
        if time.monotonic() - last >= _EVERY_S:
            last = time.monotonic()
            note(f"{files:,} of {total:,} files, {size / _GIB:.2f} GiB")

    return tell


def _echo_copied(copied: "Copied", done: str) -> None:
    """Print what was copied, and the files that could not be.

    Raises:
        typer.Exit: Some could not be.
    """
    rows = sum(copied.rows.values())
    typer.echo(f"{done}: {rows:,} rows, {copied.files:,} files, {copied.bytes / _GIB:.2f} GiB.")
    for bad in copied.unusable:
        note(f"not copied: {bad.file.owner}: {bad.error}")
    if copied.unusable:
        note(f"{len(copied.unusable)} files that rows name are missing or damaged in the source.")
        raise typer.Exit(FAILED)
