"""Messages between a supervisor and its trainer: one task in, JSON lines out."""

from collections.abc import Callable
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from models_store.files.store_address import StoreAddress
from tabular.columns import Column


class _Message(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class BlobRef(_Message):
    """File of the blob store, with the hash of its content."""

    key: str
    sha256: str


class DatasetRef(BlobRef):
    """Table in a file; `types` are the types of its columns in file order.

    `kept` are the cells of its other columns, which are not modelled, None if there are none.
    """

    id: str
    types: list[dict[str, Any]]
    kept: "KeptRef | None" = None

    @property
    def columns(self) -> list[str]:
        """Names of the columns in file order."""
        return [fields["name"] for fields in self.types]

    @property
    def column_types(self) -> list[Column]:
        """Types of the columns in file order."""
        return [Column.from_dict(fields) for fields in self.types]


class KeptRef(BlobRef):
    """File of the cells that are not modelled; `types` are those of all columns of the table."""

    types: list[dict[str, Any]]


class ModelRef(BlobRef):
    """One version of a model.

    `types` are those of its columns, then of its context columns, None if all are plain numbers.
    `quantiles` of `held_out_rows` rows are those that its scores are calibrated by, None if there are none.
    """

    flow: dict[str, Any]
    columns: list[str]
    types: list[dict[str, Any]] | None = None
    quantiles: list[float] | None
    held_out_rows: int | None = None


class CheckpointRef(BlobRef):
    """State of training after `epoch` whole epochs and perhaps part of the next.

    Of bulk work: after `epoch` parts.

    Args:
        step: Number that orders the checkpoints of a job: steps of the optimiser, or rows.
        bytes: Size of the file, and of the parts that it lists; None for those of former versions.
        seconds: Time that it took to store, which only the message of a new one tells.
    """

    epoch: int
    step: int = 0
    bytes: int | None = None
    seconds: float | None = None


class _Task(_Message):
    """Task of a trainer, which has no database and reads no environment.

    Args:
        checkpoints: Checkpoints of earlier attempts, newest first.
        store_id: Identity of the store, None if it has none yet.
        traceparent: Trace context of the attempt, for the log; a trainer sends no spans itself.
        memory_bytes: Limit of the data segment; None for no limit.
        host_bytes: Memory of the machine that the trainer may take, where there is no such limit.
        long_epoch_s: Seconds without a checkpoint after which one is written within an epoch.
        tick_s: Seconds without a message after which a sign of life is sent.
    """

    job_id: str
    attempt: int
    request_id: str | None
    traceparent: str | None = None
    log_level: str
    store: StoreAddress
    store_id: str | None = None
    request: dict[str, Any]
    checkpoints: list[CheckpointRef]
    device: str
    threads: int
    nice: int
    memory_bytes: int | None
    host_bytes: int | None = None
    checkpoint_interval_s: float
    long_epoch_s: float
    tick_s: float = 0.5


class _SplitTask(_Task):
    """Task on the datasets that a split names."""

    dataset: DatasetRef
    validation_dataset: DatasetRef | None
    test_dataset: DatasetRef | None


class TrainingTask(_SplitTask):
    """Fit a flow to a dataset."""

    kind: Literal["training"] = "training"


class VariationalTask(_Task):
    """Fit a flow to a target, which reads a dataset if it is a posterior."""

    kind: Literal["variational"] = "variational"
    dataset: DatasetRef | None


class EnsembleTask(_SplitTask):
    """Choose an ensemble among flows that were trained on the rows of a dataset."""

    kind: Literal["ensemble"] = "ensemble"


class ScoringTask(_Task):
    """Score a dataset by a model, into a file.

    `reference` is the dataset that the model was trained on, None if there is none any more.
    """

    kind: Literal["scoring"] = "scoring"
    model: ModelRef
    dataset: DatasetRef
    reference: DatasetRef | None = None


class SamplingTask(_Task):
    """Draw rows from a model, into a file."""

    kind: Literal["sampling"] = "sampling"
    model: ModelRef


class ImputationTask(_Task):
    """Fill the gaps of a dataset by a model, into a file."""

    kind: Literal["imputation"] = "imputation"
    model: ModelRef
    dataset: DatasetRef


class SelfTestTask(_Task):
    """Show that this worker has what any job needs."""

    kind: Literal["selftest"] = "selftest"


ModelTask = TrainingTask | VariationalTask | EnsembleTask
BulkTask = ScoringTask | SamplingTask | ImputationTask
Task = ModelTask | BulkTask | SelfTestTask
TASK: TypeAdapter[Task] = TypeAdapter(Annotated[Task, Field(discriminator="kind")])


class Started(_Message):
    """First message: the trainer has all that any job needs, and begins with this one."""

    type: Literal["started"] = "started"


class Tick(_Message):
    """Message that the trainer is alive, with its progress."""

    type: Literal["tick"] = "tick"
    progress: dict[str, Any]


class EpochDone(_Message):
    """Message that an epoch, the iterations of a report, or a part of bulk work are done.

    `checkpoint` is on disk already, None when none was due.
    """

    type: Literal["epoch"] = "epoch"
    metrics: dict[str, Any]
    progress: dict[str, Any]
    checkpoint: CheckpointRef | None

    @property
    def computed(self) -> bool:
        """Return whether what is left has no checkpoint: the evaluation, the model or the file."""
        rows = self.progress.get("total_rows")
        last_rows = rows is not None and self.metrics.get("rows") == rows
        return last_rows or self.metrics.get("stop_reason") is not None


class Note(_Message):
    """Text that the caller should read among the job's events."""

    type: Literal["note"] = "note"
    text: str


class Trained(_Message):
    """Last message of a job that went well: the model is on disk; `version` has the members of a `NewVersion`."""

    type: Literal["trained"] = "trained"
    metrics: dict[str, Any]
    version: dict[str, Any]


class Produced(_Message):
    """Last message of bulk work that went well: the file is on disk; `result` has the members of a `JobResult`.

    `counts` are those of ranked scores, None if there are none.
    """

    type: Literal["produced"] = "produced"
    metrics: dict[str, Any]
    result: dict[str, Any]
    counts: dict[str, Any] | None = None


class Passed(_Message):
    """Last message of a self-test that went well, with the memory of the accelerator; None on a CPU."""

    type: Literal["passed"] = "passed"
    device_bytes: int | None = None


class Interrupted(_Message):
    """Last message after SIGTERM; `checkpoint` goes on at the very next batch, None: there is nothing to keep."""

    type: Literal["interrupted"] = "interrupted"
    metrics: dict[str, Any]
    progress: dict[str, Any]
    checkpoint: CheckpointRef | None


class Failed(_Message):
    """Last message of a job that cannot succeed; `detail` is None for our own faults."""

    type: Literal["failed"] = "failed"
    code: str
    detail: str | None


class Unfit(_Message):
    """Last message of a trainer that lacks what any job needs; another worker may have it."""

    type: Literal["unfit"] = "unfit"
    code: str
    detail: str


Message = (
    Started | Tick | EpochDone | Note | Trained | Produced | Passed | Interrupted | Failed | Unfit
)
MESSAGE: TypeAdapter[Message] = TypeAdapter(Annotated[Message, Field(discriminator="type")])

Send = Callable[[Message], None]
