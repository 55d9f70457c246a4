"""Errors of rows and bytes; each carries data and the slug of its problem, and words its message."""

import re

from tabular.slugs import Slug

_PLAIN = re.compile(r"[A-Za-z0-9._:@-]{1,140}")


class StoreError(Exception):
    """Base of every error of this package.

    Attributes:
        slug: Problem that is reported to a caller.
    """

    slug: Slug = "internal"


class NotFoundError(StoreError):
    """Object that the project does not have; those of other projects are not found either."""

    slug: Slug = "not-found"

    def __init__(self, kind: str, identity: str, *, hint: str = "") -> None:
        """Name the object: its kind, such as ``dataset``, and its id or name; a hint says how such are named."""
        named = f": {identity}" if _PLAIN.fullmatch(identity) else ""
        super().__init__(f"No such {kind}{named}.{hint and f' {hint}'}")


class ConflictError(StoreError):
    """Present state of an object, or of the caller's key or cursor, that forbids the request."""

    def __init__(self, detail: str, *, slug: Slug = "conflict") -> None:
        self.slug = slug
        super().__init__(detail)


class RequestError(StoreError):
    """Well-formed request that cannot work on the data it names."""

    def __init__(self, slug: Slug, detail: str, pointer: str, position: int | None = None) -> None:
        """Name the problem, the JSON pointer of the field, and the place of a wrong character in it, from 1."""
        self.slug = slug
        self.detail = detail
        self.pointer = pointer
        self.position = position
        super().__init__(
            slug, detail, pointer, position
        )  # all that a copy in another process is made of

    def __str__(self) -> str:
        return self.detail


class LimitError(StoreError):
    """Request that would pass a configured limit."""

    def __init__(self, slug: Slug, detail: str) -> None:
        self.slug = slug
        self.detail = detail
        super().__init__(detail)


class FencedError(StoreError):
    """Write by an attempt that no longer holds its job: nothing was written, the worker must stop."""

    def __init__(self, job_id: str, *, attempt: int) -> None:
        super().__init__(f"Attempt {attempt} of job {job_id} no longer holds the job.")


class CancelledInsteadError(FencedError):
    """Result that came after a cancel request: the job is cancelled and has no version."""


class DatabaseError(StoreError):
    """Failure of the database."""

    slug: Slug = "db-unavailable"


class DatabaseBusyError(DatabaseError):
    """Database that was busy for too long; the same request may succeed in a moment."""

    slug: Slug = "db-busy"

    def __init__(self) -> None:
        super().__init__("The database is busy.")


class DatabaseUnavailableError(DatabaseError):
    """Database that cannot be reached, read or written."""

    def __init__(self, detail: str = "The database cannot be reached.") -> None:
        self.detail = detail
        super().__init__(detail)


class LimitsIgnoredError(DatabaseError):
    """Connection without the time limits that it asked for, which a pooler has kept from the server."""

    def __init__(self) -> None:
        super().__init__(
            "The database's time limits are not in effect, as behind a pooler that ignores the options of a"
            " connection: add pgbouncer=true to the URL."
        )


class SchemaMismatchError(DatabaseError):
    """Database whose schema is older than this version needs."""

    def __init__(self, *, found: str | None, expected: str, has_steps: bool = True) -> None:
        state, advice = f"is at schema revision {found}", ": `densityd migrate` brings it there"
        if found is None:
            state = "has no schema yet"
            advice = (
                ": `densityd migrate` makes it, unless DENSITYD_DATA_DIR or DENSITYD_DATABASE_URL should"
                " name another database"
            )
        elif not has_steps:
            advice = ", to which it has no steps from there: migrate it first with the version that made it"
        super().__init__(f"The database {state}; this version needs revision {expected}{advice}.")


class StorageFullError(StoreError):
    """Disk without space for files or rows."""

    slug: Slug = "storage-full"

    def __init__(self, detail: str = "The storage is full.") -> None:
        super().__init__(detail)


class DiskKeptError(StorageFullError):
    """Disk of which the service keeps the rest free."""

    def __init__(self, leave_bytes: int) -> None:
        super().__init__(
            f"Less than {leave_bytes:,} bytes of the disk of the service are free, which it keeps; make room on"
            " the disk, whoever filled it."
        )


class BlobError(StoreError):
    """Stored file that cannot be used."""

    slug: Slug = "storage-unavailable"

    def __init__(self, key: str, detail: str) -> None:
        super().__init__(f"Stored file {key} {detail}.")


class ModelFileError(StoreError):
    """File of a caller that is not a model, or not one that can be used."""

    slug: Slug = "checkpoint-invalid"


class BlobDiskError(BlobError):
    """Failure of the disk; nothing is known of the file itself."""


class FirstKeyError(StoreError):
    """File of the first API key that cannot be used."""

    def __init__(self, detail: str) -> None:
        super().__init__(f"DENSITYD_FIRST_KEY_FILE: {detail}.")


class WrongStoreError(StoreError):
    """Blob store that does not belong to the database."""

    slug: Slug = "storage-unavailable"

    def __init__(self, detail: str) -> None:
        self.detail = detail
        super().__init__(detail)


class BlobMissingError(BlobError):
    """Stored file that is missing."""

    slug: Slug = "artifact-missing"

    def __init__(self, key: str) -> None:
        super().__init__(key, "is missing")


class CheckpointMismatchError(BlobError):
    """Stored file that is whole, but belongs to another object."""

    slug: Slug = "artifact-mismatch"

    def __init__(self, key: str) -> None:
        super().__init__(key, "belongs to something else")


class BlobCorruptError(BlobError):
    """Stored file that does not match its hash."""

    slug: Slug = "artifact-corrupt"

    def __init__(self, key: str) -> None:
        super().__init__(key, "does not match its hash")
