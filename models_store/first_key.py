"""The first API key, from a file."""

import logging
from pathlib import Path

from models_store.database.database import Database
from models_store.errors import FirstKeyError
from models_store.keys import Keys

log = logging.getLogger(__name__)


def make_first_key(database: Database, file: Path) -> None:
    """Make the key in a file, if no key was ever made.

    Args:
        database: Database at the revision of this code.
        file: File with the token of the key.

    Raises:
        FirstKeyError: The file cannot be read, or has no key.
        DatabaseError: The database cannot be used.
    """
    try:
        made = Keys(database).make_first(file.read_text(encoding="utf-8").strip())
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not text"
        raise FirstKeyError(f"{file} cannot be read: {reason}") from None
    except ValueError as error:
        raise FirstKeyError(f"{file}: {error}") from None
    if made:
        log.info("made the first API key, from %s", file)
