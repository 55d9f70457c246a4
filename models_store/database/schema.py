"""Tables of the database. Times come from the database's clock; every row belongs to a project."""

from datetime import datetime

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    UniqueConstraint,
)
from sqlalchemy.orm import Mapped, mapped_column

from models_store.database.base import (
    Base,
    Counter,
    Described,
    JsonObject,
    large_column,
    separate_column,
    where,
)
from models_store.database.clock import db_now

METADATA = Base.metadata
"""All tables."""


class DatasetRow(Described, Base):
    """An uploaded table whose bytes are durable in the blob store."""

    __tablename__ = "dataset"
    __table_args__ = (
        Index(None, "project", "position"),
        Index(None, "project", "sha256"),
        Index(None, "project", "source_sha256"),
        Index("ix_dataset_stored", "project", "stored_bytes"),
    )

    # Listings go by position: it has no ties, which a clock has.
    position: Mapped[int] = mapped_column(Counter, primary_key=True)
    id: Mapped[str] = mapped_column(unique=True)
    project: Mapped[str]
    name: Mapped[str | None]
    rows: Mapped[int] = mapped_column(BigInteger)
    dtype: Mapped[str]
    columns: Mapped[list[JsonObject]] = large_column()
    warnings: Mapped[list[JsonObject]] = large_column()
    source_format: Mapped[str]
    source_sha256: Mapped[str]
    key: Mapped[str]
    sha256: Mapped[str]
    bytes: Mapped[int] = mapped_column(BigInteger)
    # Key, hash and size of the file of the cells that are no numbers, if there are any.
    cells: Mapped[JsonObject | None]
    # Options that the file was read with; null of a dataset from before there were types.
    options: Mapped[JsonObject | None] = large_column()
    created_at: Mapped[datetime] = mapped_column(default=db_now())
    # Number of the columns, which a listing shows without reading them.
    width: Mapped[int]
    # Of its files: the table, and the cells that are no numbers.
    stored_bytes: Mapped[int] = mapped_column(BigInteger)


class JobRow(Described, Base):
    """A job; the only truth about it. A message in the queue only says to look here."""

    __tablename__ = "job"
    __table_args__ = (
        Index(None, "state", "queued_at", "position"),
        Index(None, "project", "position"),
        Index(None, "project", "state", "position"),
        Index("ix_job_stored", "project", "stored_bytes", **where("stored_bytes > 0")),
        Index("ix_job_files", "finished_at", **where("stored_bytes > 0")),
        Index("ix_job_ended", "finished_at", **where("finished_at IS NOT NULL")),
        Index("ix_job_parent", "state", "finished_at", **where("role = 'parent'")),
        Index("ix_job_child", "parent_id", "state", **where("role = 'child'")),
        CheckConstraint(
            "state IN ('queued', 'running', 'succeeded', 'failed', 'cancelled')", name="state"
        ),
        CheckConstraint("role IN ('parent', 'child')", name="role"),
    )

    position: Mapped[int] = mapped_column(Counter, primary_key=True)
    id: Mapped[str] = mapped_column(unique=True)
    project: Mapped[str]
    kind: Mapped[str]
    state: Mapped[str]
    # The fencing token: a worker's writes count only while its attempt is the present one.
    attempt: Mapped[int] = mapped_column(default=0)
    worker: Mapped[str | None]
    lease_expires_at: Mapped[datetime | None]
    # Time that attempts before the present one ran for, since the job was submitted or resumed.
    run_seconds: Mapped[float] = mapped_column(default=0.0)
    # Attempts, or steps of a parent, that failed since the last progress, oldest first.
    failures: Mapped[list[JsonObject]] = mapped_column(default=list)
    # No worker claims it earlier.
    not_before: Mapped[datetime | None]
    cancel_requested: Mapped[bool] = mapped_column(default=False)
    model_name: Mapped[str]
    model_version: Mapped[int | None]
    dataset_id: Mapped[str | None]
    request: Mapped[JsonObject] = large_column()
    progress: Mapped[JsonObject | None]
    metrics: Mapped[JsonObject | None]
    checkpoints: Mapped[list[JsonObject]] = mapped_column(default=list)
    # The file that a bulk job made.
    result: Mapped[JsonObject | None]
    # The least likely rows of what a scoring job scored; null of one from before they were kept.
    unusual: Mapped[JsonObject | None] = separate_column()
    # Code and sentence of the reason why it failed.
    error: Mapped[JsonObject | None]
    last_event: Mapped[int] = mapped_column(default=0)
    # Id and trace context of the HTTP request that it came with.
    origin: Mapped[JsonObject]
    created_at: Mapped[datetime] = mapped_column(default=db_now())
    queued_at: Mapped[datetime] = mapped_column(default=db_now())
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
    # Of the files that it names: checkpoints, a result, or what it has made for its parent.
    stored_bytes: Mapped[int] = mapped_column(BigInteger, default=0)
    # A parent is work that its children do; null for a job of its own.
    role: Mapped[str | None]
    # Not a foreign key: a parent and its children are deleted together.
    parent_id: Mapped[str | None]
    # Of a child: its stage and its number in the plan of its parent.
    place: Mapped[JsonObject | None]
    # Of a child that has succeeded: what its parent makes a version or a file of.
    product: Mapped[JsonObject | None] = large_column()
    # Higher ones come first; null for 0, as of jobs from before there were priorities.
    priority: Mapped[int | None]
    # `preferred` or `required`; null if the job does not need one.
    accelerator: Mapped[str | None]
    # The least memory of a worker that it fits on; null: not known.
    memory_bytes: Mapped[int | None] = mapped_column(BigInteger)
    # About how long it takes; null if that is not known.
    estimate_s: Mapped[float | None]


class JobDatasetRow(Base):
    """A dataset that a job reads: it cannot be deleted before the job has ended.

    No foreign key: a deleted dataset leaves its id in the history of what was made from it.
    """

    __tablename__ = "job_dataset"

    job_id: Mapped[str] = mapped_column(ForeignKey("job.id"), primary_key=True)
    dataset_id: Mapped[str] = mapped_column(primary_key=True, index=True)
    project: Mapped[str]
    # True: the dataset has another table since the job ended, which cannot be resumed with it.
    retyped: Mapped[bool] = mapped_column(default=False)


class JobEventRow(Base):
    """Event of a job, numbered from 1 without gaps."""

    __tablename__ = "job_event"
    __mapper_args__ = {"eager_defaults": False}  # noqa: RUF012 - SQLAlchemy reads it from the class

    job_id: Mapped[str] = mapped_column(ForeignKey("job.id"), primary_key=True)
    seq: Mapped[int] = mapped_column(primary_key=True)
    project: Mapped[str]
    event: Mapped[str]
    data: Mapped[JsonObject]
    created_at: Mapped[datetime] = mapped_column(default=db_now())


class WorkerRow(Base):
    """A worker's last sign of life; ``unfit`` says why it takes no jobs."""

    __tablename__ = "worker"

    name: Mapped[str] = mapped_column(primary_key=True)
    seen_at: Mapped[datetime]
    unfit: Mapped[str | None]
    # True if its trainers compute on an accelerator; null if it is unknown.
    accelerator: Mapped[bool | None]
    # Memory of each of its trainers; null: not known.
    memory_bytes: Mapped[int | None] = mapped_column(BigInteger)


class StoreRow(Base):
    """The blob store that belongs to this database; there is one row at the most."""

    __tablename__ = "store"
    __table_args__ = (CheckConstraint("position = 1", name="single"),)

    position: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    identity: Mapped[str]
    # End of the last back-up that lacked nothing; null: there was none.
    backed_up_at: Mapped[datetime | None]


class IdempotencyRow(Base):
    """Resource that an idempotency key refers to, until it expires.

    A job or a dataset by its id, an imported version by the key of its weights.
    """

    __tablename__ = "idempotency"
    __table_args__ = (Index("ix_idempotency_resource", "project", "resource_id"),)

    project: Mapped[str] = mapped_column(primary_key=True)
    key: Mapped[str] = mapped_column(primary_key=True)
    fingerprint: Mapped[str]
    resource_id: Mapped[str]
    expires_at: Mapped[datetime] = mapped_column(index=True)


class ModelRow(Described, Base):
    """A name under which versions are counted; to callers it exists while it has a version."""

    __tablename__ = "model"
    __table_args__ = (UniqueConstraint("project", "name"), Index(None, "project", "id"))

    id: Mapped[int] = mapped_column(Counter, primary_key=True)
    project: Mapped[str]
    name: Mapped[str]
    # Counted here, under this row's lock; never goes back, so that no number comes twice.
    versions_made: Mapped[int] = mapped_column(default=0)
    # Newest of those that were not deleted; 0: none is left.
    latest_version: Mapped[int] = mapped_column(default=0)
    # Never goes back, so that an alias made anew does not repeat an old ETag.
    alias_revision: Mapped[int] = mapped_column(default=0)
    created_at: Mapped[datetime] = mapped_column(default=db_now())


class ModelVersionRow(Described, Base):
    """A trained flow; never changed after it is written."""

    __tablename__ = "model_version"
    __table_args__ = (
        UniqueConstraint("model_id", "version"),
        Index("ix_model_version_stored", "project", "checkpoint_bytes"),
    )

    id: Mapped[int] = mapped_column(Counter, primary_key=True)
    project: Mapped[str]
    model_id: Mapped[int] = mapped_column(Counter, ForeignKey("model.id"))
    version: Mapped[int]
    # Null in versions that were imported, as is the seed.
    job_id: Mapped[str | None] = mapped_column(ForeignKey("job.id"), unique=True)
    family: Mapped[str]
    dim: Mapped[int]
    columns: Mapped[list[str]] = large_column()
    # Null in versions from before there were contexts.
    context_columns: Mapped[list[str] | None] = large_column()
    # Of the columns, then of those of the context; null if all are plain numbers.
    types: Mapped[list[JsonObject] | None] = large_column()
    flow: Mapped[JsonObject] = large_column()
    preprocessing: Mapped[JsonObject] = large_column()
    parameters: Mapped[int] = mapped_column(BigInteger)
    metrics: Mapped[JsonObject]
    dataset_id: Mapped[str | None]
    dataset_sha256: Mapped[str | None]
    target: Mapped[JsonObject | None] = large_column()
    # Quantiles of the log densities of rows that it was not trained on; null where there are none.
    held_out: Mapped[JsonObject | None] = large_column()
    # The least likely rows of its table; null where there is none, or it was made before they were kept.
    unusual: Mapped[JsonObject | None] = separate_column()
    seed: Mapped[int | None] = mapped_column(BigInteger)
    code_version: Mapped[str]
    checkpoint_key: Mapped[str]
    checkpoint_sha256: Mapped[str]
    checkpoint_bytes: Mapped[int] = mapped_column(BigInteger)
    created_at: Mapped[datetime] = mapped_column(default=db_now())


class ModelAliasRow(Base):
    """A movable name for one version of a model."""

    __tablename__ = "model_alias"
    __table_args__ = (
        ForeignKeyConstraint(
            ["model_id", "version"],
            ["model_version.model_id", "model_version.version"],
        ),
    )

    model_id: Mapped[int] = mapped_column(Counter, ForeignKey("model.id"), primary_key=True)
    name: Mapped[str] = mapped_column(primary_key=True)
    project: Mapped[str]
    version: Mapped[int]
    revision: Mapped[int]
    updated_at: Mapped[datetime] = mapped_column(default=db_now(), onupdate=db_now())


class AliasChangeRow(Base):
    """A move or a deletion of an alias."""

    __tablename__ = "alias_change"
    __table_args__ = (Index(None, "model_id", "position"),)

    position: Mapped[int] = mapped_column(Counter, primary_key=True)
    project: Mapped[str]
    model_id: Mapped[int] = mapped_column(Counter, ForeignKey("model.id"))
    alias: Mapped[str]
    # Null where the alias was deleted. The version may have been deleted since.
    version: Mapped[int | None]
    reason: Mapped[str | None]
    created_at: Mapped[datetime] = mapped_column(default=db_now())


class MonitoredRow(Base):
    """Counts of the rows that a version scored in one hour, and nothing of the rows themselves."""

    __tablename__ = "monitored"
    __table_args__ = (
        ForeignKeyConstraint(
            ["model_id", "version"],
            ["model_version.model_id", "model_version.version"],
        ),
    )

    model_id: Mapped[int] = mapped_column(Counter, primary_key=True)
    version: Mapped[int] = mapped_column(primary_key=True)
    # Since 1970, in UTC.
    hour: Mapped[int] = mapped_column(primary_key=True, index=True)
    project: Mapped[str]
    counts: Mapped[JsonObject]
    updated_at: Mapped[datetime] = mapped_column(default=db_now(), onupdate=db_now())
    # Time at which webhooks were told that the rows of this day had drifted.
    announced_at: Mapped[datetime | None]


class ReviewRow(Base):
    """What a person found about an unusual row, which is known by its cells."""

    __tablename__ = "review"
    __table_args__ = (CheckConstraint("review IN ('confirmed', 'not_unusual')", name="review"),)

    model_id: Mapped[int] = mapped_column(Counter, ForeignKey("model.id"), primary_key=True)
    # SHA-256 of the cells of the model's columns.
    digest: Mapped[str] = mapped_column(primary_key=True)
    project: Mapped[str]
    review: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(default=db_now(), onupdate=db_now())


class WebhookRow(Base):
    """A URL that is notified of a project's events."""

    __tablename__ = "webhook"
    __table_args__ = (Index(None, "project", "position"),)

    position: Mapped[int] = mapped_column(Counter, primary_key=True)
    id: Mapped[str] = mapped_column(unique=True)
    project: Mapped[str]
    url: Mapped[str]
    events: Mapped[list[str]]
    description: Mapped[str | None]
    # As it is, not hashed: it signs.
    secret: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(default=db_now())
    disabled_at: Mapped[datetime | None]


class WebhookDeliveryRow(Base):
    """An event that a webhook is notified of, until it is delivered or given up, and a week longer."""

    __tablename__ = "webhook_delivery"
    __table_args__ = (
        # Rows may have 200 KB: to count and to choose among those that wait reads the index alone.
        Index(
            "ix_webhook_delivery_of_webhook",
            "webhook_id",
            "position",
            "ended_at",
            "due_at",
        ),
        Index("ix_webhook_delivery_due", "due_at", **where("ended_at IS NULL")),
        Index("ix_webhook_delivery_ended", "ended_at", **where("ended_at IS NOT NULL")),
    )

    position: Mapped[int] = mapped_column(Counter, primary_key=True)
    id: Mapped[str] = mapped_column(unique=True)
    webhook_id: Mapped[str] = mapped_column(ForeignKey("webhook.id"))
    project: Mapped[str]
    event: Mapped[str]
    data: Mapped[JsonObject]
    attempts: Mapped[int] = mapped_column(default=0)
    # Of the next attempt; while one is under way, of the one that follows if nothing is heard of it.
    due_at: Mapped[datetime] = mapped_column(default=db_now())
    ended_at: Mapped[datetime | None]
    delivered: Mapped[bool] = mapped_column(default=False)
    status: Mapped[int | None]
    error: Mapped[str | None]
    created_at: Mapped[datetime] = mapped_column(default=db_now())


class AuditRow(Base):
    """A request that changed something, written with its first change."""

    __tablename__ = "audit"
    __table_args__ = (Index(None, "project", "position"),)

    position: Mapped[int] = mapped_column(Counter, primary_key=True)
    time: Mapped[datetime] = mapped_column(default=db_now())
    project: Mapped[str]
    key_id: Mapped[str | None]
    action: Mapped[str]
    resource: Mapped[str]
    request_id: Mapped[str]


class ApiKeyRow(Base):
    """A key that lets its bearer into one project; kept when it is revoked, as a record."""

    __tablename__ = "api_key"
    __table_args__ = (
        Index("ix_api_key_project", "project", "position"),
        CheckConstraint("scope IN ('read', 'write', 'admin')", name="scope"),
    )

    position: Mapped[int] = mapped_column(Counter, primary_key=True)
    id: Mapped[str] = mapped_column(unique=True)
    project: Mapped[str]
    scope: Mapped[str]
    # Of the secret, which is random: a plain hash cannot be guessed back.
    secret_sha256: Mapped[str]
    # Requests a second; null for the service's setting.
    rate: Mapped[float | None]
    label: Mapped[str | None]
    # To a minute, not to the request: it is written now and then.
    last_used_at: Mapped[datetime | None]
    created_at: Mapped[datetime] = mapped_column(default=db_now())
    expires_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]


class ProjectRow(Base):
    """A project, whose row is locked by what may exist only so often in it.

    Kept beside the jobs, so that one that is resumed or tried again uses a turn, too, and none is
    won back by a job that is deleted.
    """

    __tablename__ = "project"

    name: Mapped[str] = mapped_column(primary_key=True)
    # Time at which a worker last took a job of it, or one of its jobs last gave way; null: never.
    turn_at: Mapped[datetime | None]
    # Its own limits; null: those of the settings.
    max_bytes: Mapped[int | None] = mapped_column(BigInteger)
    max_queued_jobs: Mapped[int | None]


class ComputedRow(Base):
    """Rows that requests of a project have had computed on one day."""

    __tablename__ = "computed"

    project: Mapped[str] = mapped_column(primary_key=True)
    # As of `date.toordinal`, in UTC.
    day: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    rows: Mapped[int] = mapped_column(BigInteger)
