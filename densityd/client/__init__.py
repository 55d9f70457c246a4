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
    JobFilters,
    Output,
    PictureFormat,
    PlotKind,
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
from densityd.client.scores import Context, Drawing, Scores, Transformed
from densityd.client.settings import Settings
from densityd.client.sync.client import Client
from densityd.client.waiting import JobFailedError, WaitTimeoutError

__all__ = [
    "Alias",
    "ApiError",
    "AsyncClient",
    "Client",
    "ClientError",
    "Context",
    "Dataset",
    "DatasetSummary",
    "Drawing",
    "Event",
    "EventPage",
    "FieldProblem",
    "FileFormatError",
    "Job",
    "JobFailedError",
    "JobFilters",
    "JobResult",
    "JobSummary",
    "Model",
    "Output",
    "PictureFormat",
    "PlotKind",
    "Problem",
    "Retries",
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
