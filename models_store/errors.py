"""What can go wrong with rows and bytes; each error carries data and words its own message."""


class StoreError(Exception):
    """Base of every error of this package."""


class NotFoundError(StoreError):
    """The project holds no such thing; another project's things are not found either."""

    def __init__(self, kind: str, identity: str) -> None:
        """Say what was looked for.

        Args:
            kind: what it is, such as ``dataset``, ``job``, ``model``, ``version`` or ``alias``.
            identity: the id or name that was asked for.
        """
        self.kind = kind
        self.identity = identity
        super().__init__(f"No such {kind}.")


class ConflictError(StoreError):
    """The thing exists, but its present state forbids the request."""


class DatasetInUseError(ConflictError):
    """A dataset cannot go while a job that is not final needs it."""

    def __init__(self, dataset_id: str, *, job_id: str) -> None:
        self.dataset_id = dataset_id
        self.job_id = job_id
        super().__init__(f"Dataset {dataset_id} is used by job {job_id}, which has not ended.")


class JobFinalError(ConflictError):
    """A job that has ended in another way cannot be cancelled."""

    def __init__(self, job_id: str, *, state: str) -> None:
        self.job_id = job_id
        self.state = state
        super().__init__(f"Job {job_id} has ended: it is {state}.")


class JobNotResumableError(ConflictError):
    """Only a cancelled or failed job can be resumed."""

    def __init__(self, job_id: str, *, state: str) -> None:
        self.job_id = job_id
        self.state = state
        super().__init__(f"Job {job_id} is {state}; only a cancelled or failed job can be resumed.")


class ResultDeletedError(StoreError):
    """The file that a job made was deleted."""

    def __init__(self, job_id: str) -> None:
        self.job_id = job_id
        super().__init__("The result was deleted. The same request makes it again.")


class ResultNotReadyError(ConflictError):
    """The job has not made its file."""

    def __init__(self, job_id: str, *, state: str) -> None:
        self.job_id = job_id
        self.state = state
        super().__init__(f"The job is {state}.")


class PreconditionError(StoreError):
    """The alias is not in the state that the caller made a condition."""

    def __init__(self, alias: str, *, found: int | None) -> None:
        self.alias = alias
        self.found = found
        at = "does not exist" if found is None else f"is at revision {found}"
        super().__init__(f"Alias {alias} {at}; the request's condition does not hold.")


class IdempotencyReusedError(StoreError):
    """An idempotency key came again with another request."""

    def __init__(self, key: str) -> None:
        self.key = key
        super().__init__("This idempotency key was used with another request.")


class RequestError(StoreError):
    """A request is well formed, but cannot work on the data it names."""

    def __init__(
        self, slug: str, detail: str, *, pointer: str, position: int | None = None
    ) -> None:
        """Name the problem and where it is.

        Args:
            slug: the problem's stable name, such as ``unknown-column``.
            detail: one sentence for the caller.
            pointer: JSON pointer of the field in the request.
            position: of the character of that field, counted from 1, if it is one.
        """
        self.slug = slug
        self.detail = detail
        self.pointer = pointer
        self.position = position
        super().__init__(detail)


class LimitError(StoreError):
    """A configured limit would be passed."""

    def __init__(self, slug: str, detail: str) -> None:
        """Name the limit.

        Args:
            slug: the problem's stable name, such as ``limit-queued-jobs``.
            detail: one sentence for the caller.
        """
        self.slug = slug
        self.detail = detail
        super().__init__(detail)


class CursorError(StoreError):
    """A page cursor that this service did not make."""

    def __init__(self) -> None:
        super().__init__("The cursor is not one that this listing gave.")


class FencedError(StoreError):
    """The job is no longer this attempt's: nothing was written, and the worker must stop."""

    def __init__(self, job_id: str, *, attempt: int) -> None:
        self.job_id = job_id
        self.attempt = attempt
        super().__init__(f"Attempt {attempt} of job {job_id} no longer holds the job.")


class CancelledInsteadError(FencedError):
    """A cancel request came before the result: the job is cancelled now and has no version."""


class DatabaseError(StoreError):
    """The database cannot serve the request."""


class DatabaseBusyError(DatabaseError):
    """Others held the database for too long; the same request may succeed in a moment."""

    def __init__(self) -> None:
        super().__init__("The database is busy.")


class DatabaseUnavailableError(DatabaseError):
    """The database cannot be reached, read or written."""

    def __init__(self, detail: str = "The database cannot be reached.") -> None:
        self.detail = detail
        super().__init__(detail)


class SchemaMismatchError(DatabaseError):
    """The database was made by another version of the code."""

    def __init__(self, *, found: str | None, expected: str) -> None:
        self.found = found
        self.expected = expected
        state = f"is at schema revision {found}" if found else "has no schema yet"
        super().__init__(f"The database {state}; this version needs revision {expected}.")


class StorageFullError(StoreError):
    """No space is left for files or rows."""

    def __init__(self) -> None:
        super().__init__("The storage is full.")


class BlobError(StoreError):
    """A stored file cannot be used."""

    def __init__(self, key: str, detail: str) -> None:
        self.key = key
        super().__init__(f"Stored file {key} {detail}.")


class ModelFileError(StoreError):
    """A file that a caller brought is not a model, or not one that can be used."""


class BlobDiskError(BlobError):
    """The disk failed; nothing is known of the file itself."""


class WrongStoreError(StoreError):
    """The blob store is not the one that belongs to the database."""

    def __init__(self, detail: str) -> None:
        self.detail = detail
        super().__init__(detail)


class BlobMissingError(BlobError):
    """A stored file is gone."""

    def __init__(self, key: str) -> None:
        super().__init__(key, "is missing")


class CheckpointMismatchError(BlobError):
    """A stored file that is whole, but not of the thing that was asked for."""

    def __init__(self, key: str) -> None:
        super().__init__(key, "belongs to something else")


class BlobCorruptError(BlobError):
    """A stored file does not hold what was stored."""

    def __init__(self, key: str) -> None:
        super().__init__(key, "does not match its hash")
