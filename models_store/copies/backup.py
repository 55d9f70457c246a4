"""Back-ups: a folder with all rows in a SQLite file, the files that they name, and what both are.

``backup.json`` names the SQLite file and is written last, so that a back-up which was interrupted
leaves the one before it as it was.
"""

import fcntl
import hashlib
import os
import re
import secrets
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Literal
from urllib.parse import quote

from pydantic import BaseModel, ConfigDict, ValidationError

from models_store.consistency import NamedFile, all_named_files, named_files
from models_store.copies.errors import CopyError
from models_store.copies.files import FileCopier, Tell
from models_store.copies.moving import Copied, copy_checkpoints, keep_checkpoints, move
from models_store.copies.rows import copy_rows, copy_sqlite
from models_store.database.database import Database, migrate
from models_store.database.revisions import head_revision
from models_store.files.blobs import Blobs

MANIFEST = "backup.json"
_FILES = "blobs"
_OWN = re.compile(r"backup\.json(\.new)?$|blobs$|rows-")
_MARK = "backup-"
_TRIES = 10


class Manifest(BaseModel):
    """Content of ``backup.json``.

    Attributes:
        format: Version of the layout of the folder.
        made_at: Time of the rows, by the clock of the machine that made the back-up.
        code_version: Version of the code that made it.
        revision: Revision of the schema of the rows.
        rows_file: Name of the SQLite file.
        rows_sha256: Hash of the SQLite file.
        rows: Numbers of rows by table.
        files: Number of the files in the folder ``blobs``.
        bytes: Bytes of these files.
        unusable: Keys of files that rows name and that the store did not have when it was made, or
            with another content.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal[1] = 1
    made_at: datetime
    code_version: str
    revision: str
    rows_file: str
    rows_sha256: str
    rows: dict[str, int]
    files: int
    bytes: int
    unusable: list[str]


def back_up(database: Database, blobs: Blobs, folder: Path, *, tell: Tell) -> Copied:
    """Copy an installation, which may be in use, into a folder.

    Files are copied first, then the rows as they are at one moment, then the files that only these
    name; that is repeated as long as one of them was deleted meanwhile. Files that an earlier
    back-up left in the folder are hashed, and copied only if they differ.

    Args:
        database: Database at the revision of this code.
        blobs: Store of the installation.
        folder: Folder that does not exist, is empty, or has an earlier back-up, which is replaced
            at the end.
        tell: Function that is called for each file.

    Raises:
        CopyError: The folder has something else, or rows were deleted faster than files are copied.
        StorageFullError: No space is left.
        BlobError: A store cannot be used.
        DatabaseError: The database cannot be used.
        OSError: The folder cannot be written.
    """
    kept = Blobs.in_folder(folder / _FILES)
    with _own_folder(folder, kept):
        copier = FileCopier(blobs, kept, tell=tell)
        copier.copy_all(_named(database))
        for _ in range(_TRIES):
            made_at = datetime.now(UTC)
            file = folder / f"rows-{made_at:%Y%m%dT%H%M%S.%f}.sqlite3"
            moment = _copy_moment(database, file, kept, copier)
            if moment is not None:
                break
        else:
            raise CopyError("rows are deleted faster than their files are copied; try again later")
        copied, keys = moment
        manifest = Manifest(
            made_at=made_at,
            code_version=version("densityd"),
            revision=head_revision(),
            rows_file=file.name,
            rows_sha256=_hash(file),
            rows=copied.rows,
            files=copied.files,
            bytes=copied.bytes,
            unusable=[bad.file.key for bad in copied.unusable],
        )
        _write_manifest(folder, manifest)
        _delete_old(folder, kept, rows_file=file.name, keys=keys)
    return copied


def _copy_moment(
    database: Database, file: Path, kept: Blobs, copier: FileCopier
) -> tuple[Copied, set[str]] | None:
    """Copy the rows of a moment and the files that they name, and return these files' keys.

    Returns:
        None if a file was deleted, with its row, after that moment.
    """
    with _new_database(file) as copy:
        rows = copy_rows(database, copy)
        unusable = copier.copy_all(_named(copy))
        if {bad.file for bad in unusable} <= set(_named(database)):
            keep_checkpoints(copy, copy_checkpoints(copy, kept, copier))
            named = {file.key for file in all_named_files(copy, kept)}
            keys = named - {bad.file.key for bad in unusable}
            size = sum(kept.size(key) for key in keys)
            return Copied(rows=rows, files=len(keys), bytes=size, unusable=unusable), keys
    file.unlink()
    return None


def restore(folder: Path, target: Database, store: Blobs, *, tell: Tell) -> Copied:
    """Copy a back-up into an empty installation, as `move`.

    Raises:
        CopyError: The folder has no whole back-up, another one is being written to it, or as `move` says.
        SchemaMismatchError: The back-up is of a newer version.
        StoreError: As `move` says.
    """
    with _unchanged(folder):
        manifest = read_manifest(folder)
        with open_copy(folder / manifest.rows_file) as source:
            return move(source, Blobs.in_folder(folder / _FILES), target, store, tell=tell)


def read_manifest(folder: Path) -> Manifest:
    """Return what a back-up says of itself, after checking the hash of its rows.

    Raises:
        CopyError: There is no whole back-up.
    """
    try:
        manifest = Manifest.model_validate_json((folder / MANIFEST).read_bytes())
        if "/" in manifest.rows_file or manifest.rows_file.startswith("."):
            raise CopyError(f"{folder / MANIFEST} is damaged")
        found = _hash(folder / manifest.rows_file)
    except ValidationError:
        raise CopyError(f"{folder / MANIFEST} is damaged, or of a newer version") from None
    except OSError as error:
        raise CopyError(f"{folder} has no whole back-up: {error}") from None
    if found != manifest.rows_sha256:
        raise CopyError(f"{folder / manifest.rows_file} does not match its hash")
    return manifest


@contextmanager
def open_copy(file: Path) -> Iterator[Database]:
    """Open a copy of a SQLite file, at the revision of this code; the file itself stays as it is.

    Raises:
        CopyError: It cannot be read.
        SchemaMismatchError: It is of a newer version.
        DatabaseError: It cannot be used.
    """
    if not file.is_file():
        raise CopyError(f"there is no database {file}")
    with tempfile.TemporaryDirectory(prefix="densityd-rows-") as folder:
        copy = Path(folder) / "rows.sqlite3"
        copy_sqlite(file, copy)
        with _new_database(copy) as database:
            yield database


@contextmanager
def _new_database(file: Path) -> Iterator[Database]:
    url = f"sqlite:///{quote(str(file))}"
    migrate(url)
    database = Database(url)
    try:
        yield database
    finally:
        database.dispose()
        file.with_name(f"{file.name}.migrate.lock").unlink(missing_ok=True)


def _named(database: Database) -> list[NamedFile]:
    with database.read() as session:
        return named_files(session)


@contextmanager
def _own_folder(folder: Path, kept: Blobs) -> Iterator[None]:
    """Keep other back-ups out of a folder, and this one out of all that is none.

    Raises:
        CopyError: It has something else, or another process writes to it.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        other = [path.name for path in folder.iterdir() if not _OWN.match(path.name)]
        if (folder / _FILES).exists() and not (kept.identity() or "").startswith(_MARK):
            other.append(_FILES)
        if other:
            raise CopyError(f"{folder} has {other[0]}, which is of no back-up")
        kept.mark(f"{_MARK}{secrets.token_hex(8)}")
        yield
    except BlockingIOError:
        raise CopyError(f"another back-up writes to {folder}, or is restored from it") from None
    finally:
        os.close(handle)


@contextmanager
def _unchanged(folder: Path) -> Iterator[None]:
    """Keep back-ups out of a folder, whose files they would delete.

    Raises:
        CopyError: One writes to it, or there is no such folder.
    """
    try:
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise CopyError(f"{folder} has no whole back-up: {error}") from None
    try:
        with suppress(OSError):  # a file system without locks takes no back-ups
            try:
                fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                raise CopyError(
                    f"a back-up writes to {folder}; restore it once that has ended"
                ) from None
        yield
    finally:
        os.close(handle)


def _write_manifest(folder: Path, manifest: Manifest) -> None:
    """Put a new back-up in the place of the one before it."""
    partial = folder / f"{MANIFEST}.new"
    with partial.open("w", encoding="utf-8") as file:
        file.write(manifest.model_dump_json(indent=2))
        file.flush()
        os.fsync(file.fileno())
    partial.replace(folder / MANIFEST)
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _delete_old(folder: Path, kept: Blobs, *, rows_file: str, keys: set[str]) -> None:
    """Delete what is of earlier back-ups alone."""
    for path in folder.glob("rows-*"):
        if path.name != rows_file:
            path.unlink()
    for file in kept.files():
        if file.key not in keys:
            kept.delete(file.key)
    kept.sweep_staging(older_than_s=0)


def _hash(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
