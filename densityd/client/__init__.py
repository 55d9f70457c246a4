"""A client for densityd: the same service from Python, with NumPy arrays and Arrow tables.

It depends on none of the service's own packages.
"""

from densityd.client.aio.client import AsyncClient
from densityd.client.call import new_key
from densityd.client.errors import (
    ApiError,
    ClientError,
    FieldProblem,
    FileFormatError,
    Problem,
    TimedOutError,
    TransportError,
    UnexpectedAnswerError,
    UnreachableError,
)
from densityd.client.options import (
    ColumnType,
    Extra,
    FileOptions,
    JobFilters,
    Output,
    PictureFormat,
    PlotKind,
    RowOptions,
    SamplingOptions,
    ScoringOptions,
    Space,
    Split,
    TrainingOptions,
    UploadOptions,
    VariationalOptions,
)
from densityd.client.records import (
    Alias,
    Dataset,
    DatasetSummary,
    Event,
    EventPage,
    Job,
    JobResult,
    JobSummary,
    Model,
    Version,
    VersionSummary,
)
from densityd.client.retrying import Retries
from densityd.client.scores import Context, Drawing, Explained, Parts, Scores, Transformed
from densityd.client.settings import Settings
from densityd.client.sync.client import Client
from densityd.client.waiting import JobFailedError, WaitTimeoutError
from densityd.client.wire.frames import ArrowFrame, Rows

__all__ = [
    "Alias",
    "ApiError",
    "ArrowFrame",
    "AsyncClient",
    "Client",
    "ClientError",
    "ColumnType",
    "Context",
    "Dataset",
    "DatasetSummary",
    "Drawing",
    "Event",
    "EventPage",
    "Explained",
    "Extra",
    "FieldProblem",
    "FileFormatError",
    "FileOptions",
    "Job",
    "JobFailedError",
    "JobFilters",
    "JobResult",
    "JobSummary",
    "Model",
    "Output",
    "Parts",
    "PictureFormat",
    "PlotKind",
    "Problem",
    "Retries",
    "RowOptions",
    "Rows",
    "SamplingOptions",
    "Scores",
    "ScoringOptions",
    "Settings",
    "Space",
    "Split",
    "TimedOutError",
    "TrainingOptions",
    "Transformed",
    "TransportError",
    "UnexpectedAnswerError",
    "UnreachableError",
    "UploadOptions",
    "VariationalOptions",
    "Version",
    "VersionSummary",
    "WaitTimeoutError",
    "new_key",
]
