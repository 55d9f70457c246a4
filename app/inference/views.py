"""Bodies of the Open Inference Protocol."""

from sys import float_info
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from models_store.schema_of import SchemaOf

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
MAX_VALUES = 4 * 2**20
"""Most numbers of a request, which is in memory as a whole, and of a response."""

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
_Value = bool | Annotated[float, Field(ge=-float_info.max, le=float_info.max)] | str | None
TensorValue = _Value | Annotated[list[_Value], Field(max_length=MAX_VALUES)]
"""Value of a tensor, or all values of a row."""

MAX_TENSORS = 10_000
"""Most tensors of a request."""
_MAX_ID = 1024


class ServerMetadata(BaseModel):
    """Server and the extensions of the protocol that it knows."""

    name: str = Field(description="Name of the server.")
    version: str = Field(description="Version of densityd.")
    extensions: list[str] = Field(description="Names of the extensions.")


class Live(BaseModel):
    """Liveness of the server."""

    live: bool = Field(description="True if the server answers.")


class Ready(BaseModel):
    """Readiness of the server."""

    ready: bool = Field(description="True if the server can compute.")


class ModelReady(BaseModel):
    """Readiness of a model."""

    name: str = Field(description="Name of the model.")
    ready: bool = Field(description="True if the model can compute.")


class TensorMetadata(BaseModel):
    """Tensor that a model takes or returns; a size of -1 is any size."""

    name: str = Field(description="Name of the tensor.")
    datatype: Datatype = Field(description="Data type of the values.")
    shape: list[int] = Field(description="Size of each dimension; -1 is any size.")


class ModelMetadata(BaseModel):
    """Model, its versions, and the tensors of one of its functions."""

    name: str = Field(description="Name of the model.")
    versions: list[str] = Field(description="Numbers of the versions, in texts.")
    platform: str = Field(description="Kind of the model.")
    inputs: list[TensorMetadata] = Field(description="Tensors that the function takes.")
    outputs: list[TensorMetadata] = Field(description="Tensors that the function gives.")


class InputTensor(BaseModel):
    """Tensor of a request."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(max_length=1000, description="Name of the input.")
    shape: list[Annotated[int, Field(ge=0, le=2**53)]] = Field(
        min_length=1, max_length=8, description="Size of each dimension."
    )
    datatype: Datatype = Field(description="Data type of the values.")
    parameters: Parameters | None = Field(
        default=None,
        description="`binary_data_size`: number of bytes of the tensor after the JSON.",
    )
    data: list[Annotated[Any, SchemaOf(TensorValue)]] | None = Field(
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

    name: str = Field(max_length=1000, description="Name of the output.")
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
    inputs: list[InputTensor] = Field(
        min_length=1, max_length=MAX_TENSORS, description="Tensors of the request."
    )
    outputs: list[RequestedOutput] | None = Field(
        default=None, max_length=MAX_TENSORS, description="Outputs to return; null for all."
    )


class OutputTensor(BaseModel):
    """Tensor of a response; null in `data` is a number that is not finite."""

    name: str = Field(description="Name of the output.")
    shape: list[int] = Field(description="Size of each dimension.")
    datatype: Datatype = Field(description="Data type of the values.")
    parameters: dict[str, Parameter] | None = Field(
        default=None,
        description="`binary_data_size`: number of bytes of the tensor after the JSON.",
    )
    data: list[float | str | None] | None = Field(
        default=None,
        description="Values row by row, flat; absent if they follow the JSON as bytes.",
    )


class InferResponse(BaseModel):
    """Inference response."""

    model_name: str = Field(description="Name of the model.")
    model_version: str = Field(description="Number of the version that computed, as a text.")
    id: str | None = Field(default=None, description="Id of the request.")
    outputs: list[OutputTensor] = Field(description="Tensors of the response.")
