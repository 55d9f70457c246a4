"""Request and response models of keys, usage and version."""

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from app.resources.listing import NEXT_CURSOR
from app.resources.view import View
from models_store.computed import ProjectUsage
from models_store.keys import NewKey, Scope
from models_store.projects import Project

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


class KeyView(View):
    """API key without its secret."""

    model_config = ConfigDict(json_schema_extra={"examples": [_KEY_EXAMPLE]})

    id: str = Field(description="Id of the key.")
    project: str = Field(description="Project that the key belongs to.")
    label: str | None = Field(
        description="Free text that says what the key is for; null if there is none."
    )
    scope: Scope = Field(
        description="`read` reads and scores, `write` also uploads, trains and deletes, `admin` also"
        " manages keys."
    )
    state: Literal["usable", "expired", "revoked"] = Field(
        description="`usable`, or the reason why requests with the key are refused."
    )
    rate: float | None = Field(
        description="Requests per second; null for the service's default rate, or no limit."
    )
    created_at: datetime = Field(description="Time at which the key was created.")
    expires_at: datetime | None = Field(
        description="Time at which the key expires; null if it does not."
    )
    revoked_at: datetime | None = Field(
        description="Time at which the key was revoked; null if it was not."
    )
    last_used_at: datetime | None = Field(
        description="Time of the last request, to within a minute; null if there was none."
    )


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

    items: list[KeyView] = Field(description="Keys of the project.")


class KeyRequest(BaseModel):
    """New key."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    scope: Scope = Field(
        default=Scope.READ,
        description="`read` reads and scores, `write` also uploads, trains and"
        " deletes, `admin` also manages keys.",
    )
    label: Annotated[str | None, StringConstraints(max_length=200, pattern=r"^[^\x00]*$")] = Field(
        default=None, description="Free text that says what the key is for."
    )
    expires_days: float | None = Field(
        default=None,
        ge=0.001,
        le=36_500,
        description="Days until the key expires; null if it never expires.",
    )
    rate: float | None = Field(
        default=None,
        ge=0.001,
        le=1_000_000,
        description="Maximum number of requests per second; null for that of the key that creates"
        " it.",
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
    """Limits of the caller; null where there is none."""

    requests_per_second: float | None = Field(description="Maximum number of requests per second.")
    open_requests: int = Field(description="Maximum number of simultaneous requests.")
    event_streams: int = Field(description="Maximum number of simultaneous event streams.")
    uploads: int = Field(description="Maximum number of simultaneous uploads.")
    queued_jobs: int = Field(description="Maximum number of waiting jobs of the project.")
    stored_bytes: int = Field(description="Maximum number of bytes that the project may store.")


class MeView(BaseModel):
    """Caller of the request."""

    project: str = Field(description="Project of the caller.")
    scope: Scope = Field(description="Scope of the caller.")
    person: str | None = Field(
        description="`oidc:NAME` or `proxy:NAME` of somebody who signed in; null for a key."
    )
    key: KeyView | None = Field(
        description="Key of the request; null if the service has no keys, or of somebody who signed in."
    )
    limits: LimitsView = Field(description="Limits of the caller.")


class ComputedRowsView(BaseModel):
    """Rows scored, mapped or sampled for requests; those of jobs are not counted."""

    today: int = Field(description="Number of rows today, in UTC.")
    last_30_days: int = Field(description="Number of rows in the last 30 days, including today.")


class QuotaView(BaseModel):
    """Use of a limited resource."""

    used: int = Field(description="Current use.")
    limit: int = Field(description="Maximum that is allowed.")


class UsageView(BaseModel):
    """Storage and requests of the project; the numbers are up to 15 seconds old."""

    project: str = Field(description="Project of the caller.")
    stored_bytes: QuotaView = Field(
        description="Bytes of files and rows, including what unfinished jobs may store."
    )
    queued_jobs: QuotaView = Field(description="Jobs that wait for a worker, without children.")
    datasets: int = Field(description="Number of datasets.")
    models: int = Field(description="Number of models.")
    versions: int = Field(description="Number of versions of all models.")
    jobs: dict[str, int] = Field(description="Number of jobs by their state.")
    computed_rows: ComputedRowsView = Field(description="Rows computed for requests.")

    @classmethod
    def of(
        cls, project: str, usage: ProjectUsage, *, max_bytes: int, max_queued: int
    ) -> "UsageView":
        """Return the view of a project's usage."""
        return cls(
            project=project,
            stored_bytes=QuotaView(used=usage.stored_bytes, limit=max_bytes),
            queued_jobs=QuotaView(used=usage.waiting, limit=max_queued),
            datasets=usage.datasets,
            models=usage.models,
            versions=usage.versions,
            jobs=usage.jobs,
            computed_rows=ComputedRowsView(
                today=usage.rows_today, last_30_days=usage.rows_recently
            ),
        )


class ProjectRequest(BaseModel):
    """Limits of a project."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    max_bytes: int | None = Field(
        default=None,
        ge=0,
        le=2**60,
        description="Maximum number of bytes of its files; null for that of the service.",
    )
    max_queued_jobs: int | None = Field(
        default=None,
        ge=0,
        le=1_000_000,
        description="Maximum number of jobs that wait; null for that of the service.",
    )


class ProjectView(ProjectRequest):
    """Project of the service."""

    model_config = ConfigDict(extra="ignore")

    name: str = Field(description="Name of the project.")
    stored_bytes: int = Field(description="Bytes of its files.")
    keys: int = Field(description="Number of its keys, with those that are expired or revoked.")

    @classmethod
    def of(cls, project: Project) -> "ProjectView":
        """Return the view of a project."""
        return cls.model_validate(vars(project))


class ProjectList(BaseModel):
    """All projects by name: those that were made, and those that own something."""

    items: list[ProjectView] = Field(description="Projects of the service.")


class AuditRecordView(View):
    """Request that changed something."""

    time: datetime = Field(description="Time of its first change.")
    key_id: str | None = Field(
        description="Id of the key of the caller, or the person who signed in; null without keys."
    )
    action: str = Field(description="HTTP method of the request.", examples=["DELETE"])
    resource: str = Field(description="Path of the request.", examples=["/v1/models/shuttle"])
    request_id: str = Field(description="Id of the request, as in its response and in the log.")


class AuditPage(BaseModel):
    """Page of changes, newest first."""

    items: list[AuditRecordView] = Field(description="Changes of the page.")
    next_cursor: str | None = NEXT_CURSOR
