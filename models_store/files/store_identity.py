"""Keeps a database and a blob store together: each knows the identity of the store.

The store says it in a file, so a folder on which nothing is mounted, or another store, is told
from the right one before anything is looked for in it.
"""

import logging
import secrets

from sqlalchemy import select
from sqlalchemy.orm import Session

from models_store.database.database import Database
from models_store.database.dialects import dialect_of, insert_into
from models_store.database.schema import DatasetRow, ModelVersionRow, StoreRow
from models_store.errors import BlobError, WrongStoreError
from models_store.files.blobs import STORE_ID, Blobs

log = logging.getLogger(__name__)

_SINGLE = 1


def known_identity(database: Database) -> str | None:
    """Return the identity of the store that belongs to a database; None: it has none yet."""
    with database.read() as session:
        return session.scalar(select(StoreRow.identity))


def adopt(database: Database, blobs: Blobs, *, of_copy: bool = False) -> None:
    """Tie a database to its store at the first start; check that they belong together at others.

    A database without rows of its own does not take a store that has files: to either, the files of
    the other are such as no row names, which `densityd doctor --delete` deletes.

    Args:
        database: Database at the revision of this code.
        of_copy: True if the files of the store were found to be those of a copy that goes on.

    Raises:
        WrongStoreError: They do not belong together.
        StorageFullError: The store has no space left for the file that says so.
        BlobError: The store cannot be used.
    """
    identity = known_identity(database)
    if identity is not None:
        blobs.check_identity(identity)
        return
    found = blobs.identity()
    keys = _newest_keys(database)
    if found is None and keys and not any(_is_there(blobs, key) for key in keys):
        raise WrongStoreError(
            f"{blobs.name} holds nothing of what the database names: the store is not mounted"
            " there, or is another one."
        )
    if found is not None and not (keys or of_copy) and next(blobs.files(), None) is not None:
        raise WrongStoreError(
            f"{blobs.name} is the store of another database: use another folder or prefix, or remove its"
            f" file {STORE_ID} if that database is no more."
        )
    identity = database.transact(_tie, blobs, found)
    log.info("the database belongs to store %s in %s", identity, blobs.name)


def _tie(session: Session, blobs: Blobs, found: str | None) -> str:
    """Write the identity into the database, and into a store that has none; return it.

    Of two processes that start at once the second waits here, and takes what the first has written.
    """
    new = insert_into(dialect_of(session), StoreRow)
    values = {"position": _SINGLE, "identity": found or secrets.token_hex(16)}
    session.execute(new.values(values).on_conflict_do_nothing())
    identity = session.scalars(select(StoreRow.identity)).one()
    if found is None:
        blobs.mark(identity)
    return identity


def _newest_keys(database: Database) -> list[str]:
    """Return the keys of files that the newest rows name."""
    with database.read() as session:
        newest = (
            select(DatasetRow.key).order_by(DatasetRow.position.desc()).limit(1),
            select(ModelVersionRow.checkpoint_key).order_by(ModelVersionRow.id.desc()).limit(1),
        )
        return [key for query in newest if (key := session.scalar(query)) is not None]


def _is_there(blobs: Blobs, key: str) -> bool:
    try:
        blobs.size(key)
    except BlobError:
        return False
    return True
