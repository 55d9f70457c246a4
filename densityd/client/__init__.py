"""A client for densityd: the same service from Python, with NumPy arrays and Arrow tables.

It depends on none of the service's own packages.
"""

from typing import TYPE_CHECKING, Any

from densityd.client.call import new_key as new_key
from densityd.client.errors import (
    ApiError as ApiError,
    ClientError as ClientError,
    FieldProblem as FieldProblem,
    FileFormatError as FileFormatError,
    RowsWarning as RowsWarning,
    TimedOutError as TimedOutError,
    TransportError as TransportError,
    UnexpectedAnswerError as UnexpectedAnswerError,
    UnreachableError as UnreachableError,
)
from densityd.client.filters import (
    DatasetFilters as DatasetFilters,
    Filters as Filters,
    JobFilters as JobFilters,
    NamedFilters as NamedFilters,
    UnusualFilters as UnusualFilters,
    VersionFilters as VersionFilters,
)
from densityd.client.options import (
    FlowOptions as FlowOptions,
    ImputationOptions as ImputationOptions,
    Labels as Labels,
    Optimisation as Optimisation,
    Preprocessing as Preprocessing,
    Range as Range,
    SamplingOptions as SamplingOptions,
    ScoringOptions as ScoringOptions,
    Split as Split,
    SweepOptions as SweepOptions,
    Target as Target,
    TrainingOptions as TrainingOptions,
    UploadOptions as UploadOptions,
    VariationalOptimisation as VariationalOptimisation,
    VariationalOptions as VariationalOptions,
)
from densityd.client.records import (
    Alias as Alias,
    AliasChange as AliasChange,
    AuditRecord as AuditRecord,
    Column as Column,
    ColumnPage as ColumnPage,
    Dataset as Dataset,
    DatasetSummary as DatasetSummary,
    Delivery as Delivery,
    Event as Event,
    EventPage as EventPage,
    Job as Job,
    JobResult as JobResult,
    JobSummary as JobSummary,
    Key as Key,
    Latest as Latest,
    Me as Me,
    Model as Model,
    NewKey as NewKey,
    Review as Review,
    SecretWebhook as SecretWebhook,
    TargetPreview as TargetPreview,
    Unusual as Unusual,
    UnusualRow as UnusualRow,
    Usage as Usage,
    Version as Version,
    VersionComparison as VersionComparison,
    VersionInfo as VersionInfo,
    VersionSummary as VersionSummary,
    Webhook as Webhook,
)
from densityd.client.results import (
    Conditionals as Conditionals,
    Estimates as Estimates,
    Evidence as Evidence,
    Explained as Explained,
    Parts as Parts,
    Scores as Scores,
    Transformed as Transformed,
)
from densityd.client.retrying import Retries as Retries
from densityd.client.rows import Context as Context, Extra as Extra, Space as Space
from densityd.client.settings import Settings as Settings
from densityd.client.sync.client import Client as Client
from densityd.client.sync.fitted import FittedModel as FittedModel
from densityd.client.waiting import (
    JobFailedError as JobFailedError,
    WaitTimeoutError as WaitTimeoutError,
)
from densityd.client.wire.frames import ArrowFrame as ArrowFrame, Rows as Rows

if TYPE_CHECKING:
    from densityd.client.aio.client import AsyncClient as AsyncClient
    from densityd.client.aio.fitted import AsyncFittedModel as AsyncFittedModel


def __getattr__(name: str) -> Any:  # noqa: ANN401  of a class
    """Import what awaits when it is asked for: it takes as long as all else."""
    if name in ("AsyncClient", "AsyncFittedModel"):
        from densityd.client.aio import client, fitted  # noqa: PLC0415

        return client.AsyncClient if name == "AsyncClient" else fitted.AsyncFittedModel
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
