"""Request and response models of keys, usage and version."""

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from models_store.database.computed import ProjectUsage
from models_store.keys import ApiKey, NewKey, Scope

_KEY_EXAMPLE: dict[str, Any] = {
    "id": "key_0f3c5f4e7d0c4d5b9b8f1e2a3c4d5e6f",
    "project": "default",
    "label": "nightly scoring",
    "scope": "read",
    "state": "usable",
    "rate": None,
    "created_at": "2026-11-24T15:27:00Z",
    "expires_at": None,
    "revoked_at": None,
    "last_used_at": "2026-11-24T15:28:00Z",
}


class VersionInfo(BaseModel):
    """Version of the service."""

    version: str = Field(description="Version of densityd.")
    api: Literal["v1"] = Field(description="Version of the API, the beginning of its paths.")


class KeyView(BaseModel):
    """API key without its secret."""

    model_config = ConfigDict(json_schema_extra={"examples": [_KEY_EXAMPLE]})

    id: str
    project: str
    label: str | None = Field(description="Text for people.")
    scope: Scope
    state: Literal["usable", "expired", "revoked"]
    rate: float | None = Field(
        description="Requests per second; null: the service's usual rate, or no limit."
    )
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None = Field(
        description="Time of a recent request, to a minute; null: there was none."
    )

    @classmethod
    def of(cls, key: ApiKey) -> "KeyView":
        """Return the view of a key."""
        return KeyView.model_validate(vars(key) | {"state": key.state})


class NewKeyView(KeyView):
    """New API key with its token, which is shown once."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{**_KEY_EXAMPLE, "token": f"{_KEY_EXAMPLE['id']}.0f3c..."}]}
    )

    token: str = Field(description="Text to send as `Authorization: Bearer`; not shown again.")

    @classmethod
    def whole(cls, new: NewKey) -> "NewKeyView":
        """Return the view of a new key."""
        key = new.key
        return cls.model_validate(vars(key) | {"state": key.state, "token": new.token})


class KeyList(BaseModel):
    """All keys of the project, oldest first, with those that are expired or revoked."""

    items: list[KeyView]


class KeyRequest(BaseModel):
    """New key."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    scope: Scope = Field(default=Scope.READ, description="Scope of the key.")
    label: Annotated[str | None, StringConstraints(max_length=200, pattern=r"^[^\x00]*$")] = Field(
        default=None, description="Text for people."
    )
    expires_days: float | None = Field(
        default=None, ge=0.001, le=36_500, description="Days until the key expires; null: never."
    )
    rate: float | None = Field(
        default=None,
        ge=0.001,
        le=1_000_000,
        description="Most requests per second; null: that of the key that makes it.",
    )


class RotationRequest(BaseModel):
    """Replacement of a key by a new one."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    grace_s: int = Field(
        default=0,
        ge=0,
        le=7 * 24 * 3600,
        description="Seconds for which the old key is still valid.",
    )


class LimitsView(BaseModel):
    """Limits of the caller; null: there is none."""

    requests_per_second: float | None
    open_requests: int
    event_streams: int
    uploads: int
    queued_jobs: int
    stored_bytes: int


class MeView(BaseModel):
    """Caller of the request."""

    project: str
    scope: Scope
    key: KeyView | None = Field(description="Key of the request; null: the service has none.")
    limits: LimitsView


class ComputedRowsView(BaseModel):
    """Rows that requests had scored, mapped or sampled; those of jobs are not counted."""

    today: int = Field(description="Rows of this day, in UTC.")
    last_30_days: int


class QuotaView(BaseModel):
    """Use of something that has a limit."""

    used: int
    limit: int


class UsageView(BaseModel):
    """Stored things of the project, and its use of the service, a quarter of a minute late."""

    project: str
    stored_bytes: QuotaView = Field(
        description="Bytes of files and rows, with what unfinished jobs may come to store."
    )
    queued_jobs: QuotaView
    datasets: int
    models: int
    versions: int
    jobs: dict[str, int] = Field(description="Number of jobs by their state.")
    computed_rows: ComputedRowsView

    @classmethod
    def of(
        cls, project: str, usage: ProjectUsage, *, max_bytes: int, max_queued: int
    ) -> "UsageView":
        """Return the view of a project's usage."""
        return cls(
            project=project,
            stored_bytes=QuotaView(used=usage.stored_bytes, limit=max_bytes),
            queued_jobs=QuotaView(used=usage.jobs.get("queued", 0), limit=max_queued),
            datasets=usage.datasets,
            models=usage.models,
            versions=usage.versions,
            jobs=usage.jobs,
            computed_rows=ComputedRowsView(
                today=usage.rows_today, last_30_days=usage.rows_recently
            ),
        )
