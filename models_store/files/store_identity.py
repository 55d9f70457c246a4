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
from models_store.files.blobs import STORE_ID, Blobs, check_identity

log = logging.getLogger(__name__)

_SINGLE = 1


_IDENTITY = select(StoreRow.identity).where(StoreRow.marked.is_(True))


def known_identity(database: Database) -> str | None:
    """Return the identity of the store that belongs to a database; None: it has none yet.

    Raises:
        DatabaseError: the database cannot be used.
    """
    with database.read() as session:
        return session.connection().scalar(_IDENTITY)


def adopt(database: Database, blobs: Blobs, *, looked_at: bool = False) -> None:
    """Tie a database to its store at the first start; check that they belong together at others.

    A database without rows of its own does not take the store of another one: to either, the files of
    the other are such as no row names, which `densityd doctor --delete` deletes.

    Args:
        database: Database at the revision of this code.
        blobs: Store of the settings.
        looked_at: True if the files of the store were found to be those of a copy that goes on.

    Raises:
        WrongStoreError: they do not belong together.
        StorageFullError: the store has no space left for the file that says so.
        BlobError: the disk failed.
        DatabaseError: the database cannot be used.
    """
    identity = known_identity(database)
    if identity is not None:
        check_identity(blobs, identity)
        return
    found = blobs.identity()
    if found is not None and not looked_at:
        _check_own(database, blobs, found)
    identity = database.transact(_intend, found)
    if found is None:
        _check_files(database, blobs)
        blobs.mark(identity)
    database.transact(_confirm)
    log.info("the database belongs to store %s in %s", identity, blobs.name)


def _intend(session: Session, found: str | None) -> str:
    """Return the identity that will be: that of the store, or one that all processes agree on."""
    new = {"identity": found or secrets.token_hex(16), "marked": False}
    session.execute(
        insert_into(dialect_of(session), StoreRow)
        .values(position=_SINGLE, **new)
        .on_conflict_do_nothing()
    )
    row = session.scalars(select(StoreRow).with_for_update()).one()
    if found is not None and not row.marked:
        row.identity = found
    return row.identity


def _confirm(session: Session) -> None:
    session.scalars(select(StoreRow).with_for_update()).one().marked = True


def _check_files(database: Database, blobs: Blobs) -> None:
    """Refuse a store without an identity that lacks what the newest rows name.

    Raises:
        WrongStoreError: none of their files is there.
    """
    keys = _newest_keys(database)
    if keys and not any(_is_there(blobs, key) for key in keys):
        raise WrongStoreError(
            f"{blobs.name} holds nothing of what the database names: the store is not mounted"
            " there, or is another one."
        )


def _check_own(database: Database, blobs: Blobs, found: str) -> None:
    """Refuse a store of which a database without rows knows nothing.

    Raises:
        WrongStoreError: it is of another database.
    """
    with database.read() as session:
        intended = session.scalar(select(StoreRow.identity))
    if found != intended and not _newest_keys(database):
        raise WrongStoreError(
            f"{blobs.name} is the store of another database: use another folder or prefix, or remove its"
            f" file {STORE_ID} if that database is no more."
        )


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
