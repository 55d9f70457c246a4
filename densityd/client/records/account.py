"""The caller: its keys, limits and usage; the version of the service."""

from datetime import datetime

from densityd.client.records.record import Record


class Key(Record):
    """An API key; it has its token only when it is new."""

    id: str
    project: str
    label: str | None
    scope: str
    state: str
    rate: float | None
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None
    token: str | None = None


class KeyList(Record):
    """The keys of the project."""

    items: list[Key]


class Limits(Record):
    """The limits of a caller; None: there is none."""

    requests_per_second: float | None
    open_requests: int
    event_streams: int
    uploads: int
    queued_jobs: int
    stored_bytes: int


class Me(Record):
    """The caller as the service sees it."""

    project: str
    scope: str
    key: Key | None
    limits: Limits


class ComputedRows(Record):
    """The rows that requests had scored, mapped or sampled."""

    today: int
    last_30_days: int


class Quota(Record):
    """The use of something that has a limit."""

    used: int
    limit: int


class Usage(Record):
    """The stored things of the project, and its use of the service."""

    project: str
    stored_bytes: Quota
    queued_jobs: Quota
    datasets: int
    models: int
    versions: int
    jobs: dict[str, int]
    computed_rows: ComputedRows


class ServiceVersion(Record):
    """The version of the service, and of its API."""

    version: str
    api: str
