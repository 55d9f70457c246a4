"""Bodies of the Open Inference Protocol."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Datatype = Literal[
    "BOOL",
    "UINT8",
    "UINT16",
    "UINT32",
    "UINT64",
    "INT8",
    "INT16",
    "INT32",
    "INT64",
    "FP16",
    "FP32",
    "FP64",
    "BYTES",
]
MAX_VALUES = 8 * 2**20
"""Most numbers of a request, and of a response: both are in memory as a whole."""

Parameter = (
    bool
    | Annotated[int, Field(ge=-(2**63), le=2**63 - 1)]
    | Annotated[float, Field(ge=-1e300, le=1e300)]
    | str
)
Parameters = Annotated[
    dict[str, Parameter],
    Field(max_length=100, description="Parameters of the protocol; unknown ones are ignored."),
]
_MAX_TENSORS = 10_000
_MAX_ID = 1024


class ServerMetadata(BaseModel):
    """Server and the extensions of the protocol that it knows."""

    name: str
    version: str
    extensions: list[str]


class Live(BaseModel):
    """Liveness of the server."""

    live: bool


class Ready(BaseModel):
    """Readiness of the server."""

    ready: bool


class ModelReady(BaseModel):
    """Readiness of a model."""

    name: str
    ready: bool


class TensorMetadata(BaseModel):
    """Tensor that a model takes or gives; a size of -1 is any size."""

    name: str
    datatype: Datatype
    shape: list[int]


class ModelMetadata(BaseModel):
    """Model, its versions, and the tensors of one of its functions."""

    name: str
    versions: list[str]
    platform: str
    inputs: list[TensorMetadata]
    outputs: list[TensorMetadata]


class InputTensor(BaseModel):
    """Tensor of a request."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(max_length=1000)
    shape: list[Annotated[int, Field(ge=0, le=2**53)]] = Field(min_length=1, max_length=8)
    datatype: Datatype
    parameters: Parameters | None = None
    data: list[Any] | None = Field(
        default=None,
        max_length=MAX_VALUES,
        description="Values row by row, flat or nested; left out where `binary_data_size` in"
        " `parameters` says how many bytes of the tensor follow the JSON.",
    )

    @property
    def binary_bytes(self) -> int | None:
        """Bytes of the tensor after the JSON; None: its values are in the JSON."""
        size = (self.parameters or {}).get("binary_data_size")
        return size if isinstance(size, int) and not isinstance(size, bool) else None


class RequestedOutput(BaseModel):
    """Tensor that the response must have."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(max_length=1000)
    parameters: Parameters | None = Field(
        default=None, description="`binary_data`: true for its values as bytes after the JSON."
    )


class InferRequest(BaseModel):
    """Inference request."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: str | None = Field(
        default=None, max_length=_MAX_ID, description="Id that the response repeats."
    )
    parameters: Parameters | None = Field(
        default=None,
        description="`binary_data_output`: true for all outputs as bytes after the JSON; `timeout`:"
        " longest wait for the computation to begin, in microseconds.",
    )
    inputs: list[InputTensor] = Field(min_length=1, max_length=_MAX_TENSORS)
    outputs: list[RequestedOutput] | None = Field(
        default=None, max_length=_MAX_TENSORS, description="Outputs to return; null: all."
    )


class OutputTensor(BaseModel):
    """Tensor of a response; null in `data` is a number that is not finite."""

    name: str
    shape: list[int]
    datatype: Datatype
    parameters: dict[str, Parameter] | None = None
    data: list[float | str | None] | None = None


class InferResponse(BaseModel):
    """Inference response."""

    model_name: str
    model_version: str
    id: str | None = None
    outputs: list[OutputTensor]
