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
        """Name the object.

        Args:
            kind: Kind of object, such as ``dataset``, ``job``, ``model``, ``version`` or ``alias``.
            identity: Id or name in the request.
            hint: Sentence that says how such objects are named.
        """
        self.kind = kind
        self.identity = identity
        named = f": {identity}" if _PLAIN.fullmatch(identity) else ""
        super().__init__(f"No such {kind}{named}.{hint and f' {hint}'}")


class ConflictError(StoreError):
    """Present state of an object that forbids the request."""

    slug: Slug = "conflict"


class DatasetInUseError(ConflictError):
    """Deletion of a dataset that a job needs which has not ended."""

    slug: Slug = "dataset-in-use"

    def __init__(self, dataset_id: str, *, job_id: str) -> None:
        self.dataset_id = dataset_id
        self.job_id = job_id
        super().__init__(f"Dataset {dataset_id} is used by job {job_id}, which has not ended.")


class VersionInUseError(ConflictError):
    """Deletion of a version, or of a model, that an alias or a job needs which has not ended."""

    slug: Slug = "version-in-use"

    def __init__(self, ref: str, *, alias: str | None = None, job_id: str | None = None) -> None:
        """Name what needs it.

        Args:
            ref: Reference to the version, such as ``shuttle:2``.
            alias: Alias that points at it.
            job_id: Job that uses it, if no alias does.
        """
        self.ref = ref
        self.alias = alias
        self.job_id = job_id
        needed = f"Job {job_id}, which has not ended, uses version {ref}; cancel it first."
        if alias:
            needed = f"Alias {alias} points at version {ref}; move or delete the alias first."
        super().__init__(needed)


class JobInUseError(ConflictError):
    """Deletion of a job whose version or whose parent still exists."""

    slug: Slug = "job-in-use"

    def __init__(
        self, job_id: str, *, ref: str | None = None, parent_id: str | None = None
    ) -> None:
        self.job_id = job_id
        self.ref = ref
        text = f"Job {job_id} made version {ref}, which still exists; delete that first."
        if parent_id is not None:
            text = f"Job {job_id} belongs to job {parent_id}; delete that one."
        super().__init__(text)


class JobUnfinishedError(ConflictError):
    """Deletion of a job that has not ended."""

    slug: Slug = "job-unfinished"

    def __init__(self, job_id: str, *, state: str) -> None:
        self.job_id = job_id
        self.state = state
        super().__init__(f"Job {job_id} is {state}; cancel it first.")


class JobFinalError(ConflictError):
    """Cancellation of a job that has succeeded or failed."""

    slug: Slug = "job-final"

    def __init__(self, job_id: str, *, state: str) -> None:
        self.job_id = job_id
        self.state = state
        super().__init__(f"Job {job_id} has ended: its state is {state}.")


class JobNotResumableError(ConflictError):
    """Resumption of a job that is neither cancelled nor failed, or whose dataset has other types now."""

    slug: Slug = "job-not-resumable"

    def __init__(
        self, job_id: str, *, state: str, parent_id: str | None = None, retyped: bool = False
    ) -> None:
        self.job_id = job_id
        self.state = state
        text = f"Job {job_id} is {state}; only a cancelled or failed job can be resumed."
        if parent_id is not None:
            text = f"Job {job_id} belongs to job {parent_id}; resume that one."
        elif retyped:
            text = f"The types of a dataset of job {job_id} were changed since; start a new job."
        super().__init__(text)


class ResultDeletedError(StoreError):
    """Result of a job that was deleted."""

    slug: Slug = "result-deleted"

    def __init__(self, job_id: str) -> None:
        self.job_id = job_id
        super().__init__(
            f"The result of job {job_id} was deleted. The same request makes it again."
        )


class ResultNotReadyError(ConflictError):
    """Result of a job that has not succeeded yet."""

    slug: Slug = "result-not-ready"

    def __init__(self, job_id: str, *, state: str) -> None:
        self.job_id = job_id
        self.state = state
        super().__init__(f"Job {job_id} is {state} and has no result.")


class PreconditionError(StoreError):
    """State of a resource that does not meet the caller's condition."""

    slug: Slug = "precondition"

    def __init__(self, state: str) -> None:
        super().__init__(f"{state}; the request's condition does not hold.")


class IdempotencyReusedError(StoreError):
    """Idempotency key that was used with another request."""

    slug: Slug = "idempotency-key-reused"

    def __init__(self, key: str) -> None:
        self.key = key
        super().__init__(
            "This idempotency key was used with another request: send a new key with a new request."
        )


class RequestError(StoreError):
    """Well-formed request that cannot work on the data it names."""

    def __init__(
        self, slug: Slug, detail: str, *, pointer: str, position: int | None = None
    ) -> None:
        """Name the problem and its place.

        Args:
            slug: Slug of the problem, such as ``unknown-column``.
            detail: Sentence for the caller.
            pointer: JSON pointer of the field in the request.
            position: Place of a wrong character in that field, counted from 1.
        """
        self.slug = slug
        self.detail = detail
        self.pointer = pointer
        self.position = position
        super().__init__(detail)


class LimitError(StoreError):
    """Request that would pass a configured limit."""

    def __init__(self, slug: Slug, detail: str) -> None:
        """Name the limit.

        Args:
            slug: Slug of the problem, such as ``limit-queued-jobs``.
            detail: Sentence for the caller.
        """
        self.slug = slug
        self.detail = detail
        super().__init__(detail)


class CursorError(StoreError):
    """Page cursor that this service did not make."""

    slug: Slug = "cursor"

    def __init__(self) -> None:
        super().__init__("The cursor is not one that this listing gave.")


class FencedError(StoreError):
    """Write by an attempt that no longer holds its job: nothing was written, the worker must stop."""

    def __init__(self, job_id: str, *, attempt: int) -> None:
        self.job_id = job_id
        self.attempt = attempt
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
        self.found = found
        self.expected = expected
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
        self.key = key
        super().__init__(f"Stored file {key} {detail}.")


class OnnxUnsupportedError(StoreError):
    """Version whose log density has no form in ONNX."""

    slug: Slug = "onnx-unsupported"

    def __init__(self, ref: str, family: str, reason: str) -> None:
        """Say why.

        Args:
            ref: Reference to the version, such as ``shuttle:2``.
            family: Family of its flow.
            reason: Clause that begins with "its".
        """
        self.ref = ref
        self.family = family
        super().__init__(
            f"The density of {ref}, of family {family}, has no form in ONNX: {reason}."
        )


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
