"""Every read and write of weights: safetensors, described by JSON in the file's own header.

There is no pickle on any path. A file is read only after its bytes were hashed and found to be
those that its row in the database names; safetensors alone would load a flipped bit silently.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from flows import (
    Denoise,
    FitState,
    Flow,
    FlowError,
    FlowSpec,
    MixedColumn,
    build,
    count_parameters,
    spec_from_dict,
    spec_to_dict,
)
from flows.mixed.companion import Companion
from flows.mixed.companion_fitting import layout_of
from models_store.errors import (
    BlobCorruptError,
    BlobDiskError,
    CheckpointMismatchError,
    StorageFullError,
)
from models_store.files.blobs import Blobs, StoredBlob
from models_store.files.model_header import (
    METADATA_KEY,
    ModelHeader,
    preprocessing_spec,
)
from models_store.requests.training import Preprocessing

_STEPS, _WIDTHS = "preprocessing.steps", "preprocessing.widths"
_EXTENT, _MAPS = "preprocessing.extent", "preprocessing.denoise.plain"
_CONTEXT_MEAN = "context.standardise.mean"
_COMPANION = "companion.log_weights"  # of models from before companions there is none
_NO_SPACE = "os error 28"


class _StateHeader(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal[1, 2] = 2
    kind: Literal["state"] = "state"
    meta: dict[str, Any]


def save_model(  # noqa: PLR0913  where to, the flow, and what it is made of
    blobs: Blobs,
    key: str,
    flow: Flow,
    *,
    spec: FlowSpec,
    columns: Sequence[str],
    context_columns: Sequence[str] = (),
    types: Sequence[Mapping[str, Any]] | None = None,
    preprocessing: Mapping[str, Any],
) -> StoredBlob:
    """Store a trained flow durably, with all that building it again takes.

    Args:
        key: under which name.
        flow: built from `spec`.
        spec: Spec of `flow`.
        columns: names of the columns that it models, in order.
        context_columns: names of those that it is conditioned on.
        types: Types of both, in this order; None: all are plain numbers.
        preprocessing: the accepted request's; tells whether the flow standardises.
    """
    header = ModelHeader(
        spec=spec_to_dict(spec),
        dim=len(columns),
        columns=list(columns),
        context_columns=list(context_columns),
        types=None if types is None else [dict(column) for column in types],
        preprocessing=dict(preprocessing),
    )
    # Without types a file is one that earlier releases read, too.
    absent = {"types"} if types is None else None
    return _save(blobs, key, flow.state_dict(), header.model_dump(exclude=absent))


def load_model(
    blobs: Blobs,
    key: str,
    sha256: str,
    *,
    spec: Mapping[str, Any] | None = None,
    columns: Sequence[str] | None = None,
) -> Flow:
    """Load a flow, ready for use, in evaluation mode.

    Args:
        sha256: the hash of its bytes that the database holds.
        spec: Spec that the database has; None: any.
        columns: Columns that the database has; None: any.

    Raises:
        BlobMissingError: there is no such file.
        BlobCorruptError: its bytes are not those that were stored.
        CheckpointMismatchError: it is not of `spec` and `columns`.
    """
    tensors, text = _read(blobs, key, sha256)
    try:
        header = ModelHeader.model_validate_json(text)
        own = spec_from_dict(header.spec)
        if spec is not None and own != spec_from_dict(dict(spec)):
            raise CheckpointMismatchError(key)
        if columns is not None and header.columns != list(columns):
            raise CheckpointMismatchError(key)
        if len(header.columns) != header.dim:
            raise CheckpointMismatchError(key)
        return build_model(own, header, tensors)
    except (FlowError, ValueError, LookupError, RuntimeError) as error:
        raise CheckpointMismatchError(key) from error


def read_tensors(path: Path) -> tuple[dict[str, Tensor], str]:
    """Read the tensors of a file, and its description, as `read_description`."""
    with safe_open(path, framework="pt") as file:
        text = (file.metadata() or {}).get(METADATA_KEY, "")
        # Copies: the file may go while its tensors live.
        return {name: file.get_tensor(name).clone() for name in file.keys()}, text  # noqa: SIM118


def save_state(blobs: Blobs, key: str, state: FitState) -> StoredBlob:
    """Store the state of a training durably."""
    header = _StateHeader(meta=dict(state.meta))
    return _save(blobs, key, state.tensors, header.model_dump())


def load_state(blobs: Blobs, key: str, sha256: str) -> FitState:
    """Load the state of a training, equal to the saved one bit for bit; raises as `load_model`."""
    tensors, text = _read(blobs, key, sha256)
    try:
        header = _StateHeader.model_validate_json(text)
    except ValidationError as error:
        raise CheckpointMismatchError(key) from error
    return FitState(tensors=tensors, meta=header.meta)


def build_model(spec: FlowSpec, header: ModelHeader, tensors: Mapping[str, Tensor]) -> Flow:
    """Return the flow that a file describes, with its weights, ready for use.

    Raises:
        FlowError, ValueError, LookupError, RuntimeError: the weights are not those of such a flow.
    """
    dim, context_dim = header.dim, len(header.context_columns)
    if count_parameters(spec, dim, context_dim) > sum(
        tensor.numel() for tensor in tensors.values()
    ):
        raise ValueError("the file has fewer weights than its flow")  # before they take memory
    chosen = Preprocessing.model_validate(header.preprocessing)
    flow = build(
        spec,
        dim,
        standardise=_no_moments(dim) if header.preprocessing["standardise"] else None,
        preprocessing=preprocessing_spec(chosen),
        columns=_columns_of(tensors, dim),
        context_dim=context_dim,
        standardise_context=_no_moments(context_dim) if _CONTEXT_MEAN in tensors else None,
        seed=0,
    )
    # Earlier releases had no maps of values that repeat off any grid and are many.
    flow.preprocessing.denoise = Denoise(*tensors[_MAPS].shape) if _MAPS in tensors else None
    if _COMPANION in tensors:
        flow.companion = Companion(layout_of(flow), len(tensors[_COMPANION]))
        # Answers of a companion from before they were calibrated stay as they are.
        usual = {f"companion.{name}": value for name, value in flow.companion.calibration().items()}
        tensors = {**usual, **tensors}
    flow.load_state_dict(tensors)
    if flow.preprocessing.denoise is not None:
        flow.preprocessing.denoise.check(dim)
    return flow.eval()


def _columns_of(tensors: Mapping[str, Tensor], dim: int) -> list[MixedColumn] | None:
    """Return the noise of the columns that a file holds, of this release or an earlier one; None if it holds none."""
    if not {_STEPS, _EXTENT, _MAPS} & tensors.keys():
        return None
    steps = tensors.get(_STEPS, torch.zeros(dim))
    pairs = zip(steps.tolist(), tensors.get(_WIDTHS, steps).tolist(), strict=True)
    return [MixedColumn(step=step, noise=width) for step, width in pairs]


def _no_moments(dim: int) -> tuple[Tensor, Tensor]:
    return torch.zeros(dim), torch.ones(dim)


def _save(
    blobs: Blobs, key: str, tensors: Mapping[str, Tensor], header: dict[str, Any]
) -> StoredBlob:
    metadata = {METADATA_KEY: json.dumps(header, allow_nan=False)}
    with blobs.staged(".safetensors") as path:
        try:
            save_file({name: _own(value) for name, value in tensors.items()}, path, metadata)
        except SafetensorError as error:
            if _NO_SPACE in str(error):
                raise StorageFullError from error
            raise BlobDiskError(key, "cannot be written") from error
        return blobs.commit(path, key)


def _own(tensor: Tensor) -> Tensor:
    """Return a tensor on the CPU in memory of its own, as safetensors requires."""
    tensor = tensor.detach().cpu().contiguous()
    alone = tensor.untyped_storage().nbytes() == tensor.nbytes
    return tensor if alone else tensor.clone()


def _read(blobs: Blobs, key: str, sha256: str) -> tuple[dict[str, Tensor], str]:
    path: Path = blobs.verify(key, sha256)
    try:
        return read_tensors(path)
    except (SafetensorError, OSError) as error:
        raise BlobCorruptError(key) from error
