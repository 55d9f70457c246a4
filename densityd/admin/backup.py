"""``densityd backup`` and ``densityd restore``: copies of rows and files that fit together."""

from pathlib import Path
from typing import Annotated

import typer

from densityd.admin.copying import echo_copied, told
from densityd.admin.installation import failing, open_installation, read_settings
from densityd.admin.migrate import migrated_database
from models_store.files.private_files import create_private_files

Folder = Annotated[
    Path, typer.Argument(metavar="FOLDER", file_okay=False, help="Folder of the back-up.")
]


def backup(folder: Folder) -> None:
    """Copy all rows and the files that they name into a folder, while the service runs.

    Files that an earlier back-up left in the folder are kept where they are the same, and deleted
    at the end where no row names them any more. The audit trail is not copied. The exit status is
    1 if a file that a row names is missing or damaged in the store; the rest is copied.

    Examples: densityd backup /mnt/backup/densityd;
    DENSITYD_DATABASE_URL=... DENSITYD_STORE_URL=s3://bucket densityd backup /mnt/backup/densityd
    """
    from models_store.copies.backup import back_up  # noqa: PLC0415 - help is printed without it

    create_private_files()
    with failing(), open_installation(read_settings()) as (database, blobs):
        copied = back_up(database, blobs, folder, tell=told())
    echo_copied(copied, f"Copied to {folder}")


def restore(folder: Folder) -> None:
    """Copy a back-up into the database and the store of the settings, which must be empty.

    The database is migrated first, and may be of another kind than the one that was copied, as may
    the store. An interrupted command continues when it is run again.

    Examples: densityd restore /mnt/backup/densityd;
    DENSITYD_DATABASE_URL=... DENSITYD_STORE_URL=s3://bucket densityd restore /mnt/backup/densityd
    """
    from models_store.copies.backup import read_manifest, restore as run  # noqa: PLC0415
    from models_store.files.blobs import Blobs  # noqa: PLC0415

    settings = read_settings()
    create_private_files()
    with failing():
        read_manifest(folder)
        database = migrated_database(settings)
        try:
            copied = run(folder, database, Blobs(settings.store_address), tell=told())
        finally:
            database.dispose()
    echo_copied(copied, f"Restored {folder}")
