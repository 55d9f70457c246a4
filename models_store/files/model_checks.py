"""Checks of the files of models to the last weight, which build their flows and compute with them."""

import json
from pathlib import Path
from typing import Any

import torch
from pydantic import TypeAdapter, ValidationError
from safetensors import SafetensorError
from torch import Tensor

from flows import Flow, FlowError, FlowSpec, spec_to_dict
from flows.mixed.companion import Companion
from flows.mixed.encoding import TableEncoding
from models_store.errors import ModelFileError, RequestError
from models_store.files.checkpoints import build_model, read_tensors
from models_store.files.model_files import check_header
from models_store.files.model_header import ModelHeader, read_description
from models_store.requests.flow_limits import Described, TrainingLimits, check_flow
from models_store.requests.training import Flow as AnyFlow, Strict
from tabular.columns import MAX_LIST_BYTES, Column, list_bytes
from tabular.dates import check_format
from tabular.numbers import MAX_DECIMALS
from tabular.source import mend_names

_TYPES = TypeAdapter(list[Column])


class _Described(Strict):
    """A spec as a training request would have it, held to the same schema."""

    flow: AnyFlow


def read_model_file(path: Path, *, limits: TrainingLimits, max_columns: int) -> dict[str, Any]:
    """Return the fields of a version that a file tells; its flow is built and computes, which takes memory.

    Raises:
        ModelFileError: it is no such file, a column has no name that an upload could give it, or the weights
            are not those of its flow.
        RequestError: the flow is not allowed.
    """
    check_header(path)
    try:
        header = _header(read_description(path))
        spec = _spec(header)
        model = _describe(header, spec, limits=limits, max_columns=max_columns)
        tensors, _ = read_tensors(path)
    except (SafetensorError, OSError) as error:
        raise ModelFileError("The file is not a whole safetensors file.") from error
    _check_weights(_flow(spec, header, tensors), tensors)
    return model


def _describe(
    header: ModelHeader, spec: FlowSpec, *, limits: TrainingLimits, max_columns: int
) -> dict[str, Any]:
    """Return what a file says of itself, if that is allowed, without a look at its weights."""
    if header.dim + len(header.context_columns) > max_columns:
        raise RequestError(
            "limit-columns", f"A model may have {max_columns} columns.", pointer="/columns"
        )
    described = Described(spec, header.dim, len(header.context_columns), pointer=None)
    return {
        "family": spec.family,
        "dim": header.dim,
        "columns": header.columns,
        "context_columns": header.context_columns,
        "types": _types(header),
        "flow": spec_to_dict(spec),
        "preprocessing": header.preprocessing,
        "parameters": check_flow(described, limits=limits).parameters,
        "dataset_id": None,
    }


def _header(text: str) -> ModelHeader:
    try:
        header = ModelHeader.model_validate_json(text, strict=True)
    except ValidationError as error:
        raise ModelFileError(
            "The file does not describe a flow under the key `densityd` of its header."
        ) from error
    names = [*header.columns, *header.context_columns]
    for name, allowed in zip(names, mend_names(names)[0], strict=True):
        if name != allowed:
            raise ModelFileError(
                f"The column name {name!r} is empty, deceptive, too long, or that of two columns."
            )
    if len(header.columns) != header.dim:
        raise ModelFileError("The columns that the file names are not those of its flow.")
    return header


def _types(header: ModelHeader) -> list[dict[str, Any]] | None:
    if header.types is None:
        return None
    try:
        found = _TYPES.validate_json(json.dumps(header.types), strict=True)
        columns = [Column.from_dict(column.to_dict()) for column in found]
    except ValidationError as error:
        raise ModelFileError("The types of the columns do not fit their schema.") from error
    if [column.name for column in columns] != [*header.columns, *header.context_columns]:
        raise ModelFileError("The types are not those of the columns that the file names.")
    if list_bytes(columns) > MAX_LIST_BYTES:
        raise ModelFileError(f"The levels of the columns take more than {MAX_LIST_BYTES} bytes.")
    for column in columns:
        _check_reading(column)
    return [column.to_dict() for column in columns]


def _check_reading(column: Column) -> None:
    """Refuse a column whose cells cannot be read or written."""
    if not 0 <= (column.decimals or 0) <= MAX_DECIMALS:
        raise ModelFileError(f"The decimals of a column are from 0 to {MAX_DECIMALS}.")
    try:
        if column.datetime_format is not None:
            check_format(column.datetime_format)
    except ValueError as error:
        raise ModelFileError("A column has a format that is none of dates.") from error


def _spec(header: ModelHeader) -> FlowSpec:
    described = json.dumps({"flow": header.spec})
    try:
        return _Described.model_validate_json(described, strict=True).flow
    except ValidationError as error:
        raise ModelFileError("The spec of the flow does not fit its schema.") from error


def _flow(spec: FlowSpec, header: ModelHeader, tensors: dict[str, Tensor]) -> Flow:
    try:
        return build_model(spec, header, tensors)
    except (FlowError, ValueError, LookupError, RuntimeError) as error:
        raise ModelFileError("The weights are not those of the flow that is described.") from error


def _without_free_bounds(numbers: Tensor) -> Tensor:
    """Return the numbers of an encoding with 0 for a bound that is none: -inf below, inf above."""
    low, high = numbers[:1], numbers[1:2]
    return torch.cat(
        [
            torch.where(low == -torch.inf, 0.0, low),
            torch.where(high == torch.inf, 0.0, high),
            numbers[2:],
        ]
    )


def _check_weights(flow: Flow, tensors: dict[str, Tensor]) -> None:
    bounded = {
        f"{name}.numbers" for name, part in flow.named_modules() if isinstance(part, TableEncoding)
    }
    own = flow.state_dict()
    for name, given in tensors.items():
        if given.dtype != own[name].dtype:
            raise ModelFileError("The weights are not of the type of the flow's.")
        if not torch.isfinite(_without_free_bounds(given) if name in bounded else given).all():
            raise ModelFileError("A weight is not finite.")
    try:
        # PyTorch's own layers look at every index; the compiled kernels would not.
        with torch.inference_mode():
            row, context = torch.zeros(1, flow.dim), None
            if flow.context_dim:
                context = torch.zeros(1, flow.context_dim)
            flow.log_prob(row, context)
            if isinstance(flow.companion, Companion):
                torch.linalg.cholesky(flow.companion.covariances)
            flow.forward(torch.zeros(1, flow.model_dim), context)
    except (FlowError, ValueError, ArithmeticError, LookupError, RuntimeError) as error:
        raise ModelFileError("The flow does not compute.") from error
