"""Stored models made ready for serving, without PyTorch where compiled loops know all of them."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from flows import CompiledFlow, FlowError, FlowSpec, flow_cost, spec_from_dict
from flows.compiled.kernel_flow import KernelFlow
from flows.engine.serving.packing import pack_layers
from flows.engine.stored import describe_stored
from models_store.errors import BlobCorruptError, CheckpointMismatchError
from models_store.files.blobs import Blobs
from models_store.files.model_header import METADATA_KEY, ModelHeader, preprocessing_spec
from models_store.requests.training import Preprocessing

if TYPE_CHECKING:
    from flows.compiled.torch_flow import TorchFlow

_TRANSFORM, _STANDARDISE = "transform.", "preprocessing.standardise."
_File = Any  # of safetensors, which types nothing of it
_KNOWN = (_TRANSFORM, "preprocessing.", "companion.")


def load_compiled(
    blobs: Blobs,
    key: str,
    sha256: str,
    *,
    spec: Mapping[str, Any],
    columns: Sequence[str],
    conditionals: bool = False,
) -> CompiledFlow:
    """Load a model, ready for use on a processor.

    Args:
        sha256: Hash of its bytes that the database holds.
        spec: Spec that the database has.
        columns: Columns that the database has.
        conditionals: True for a flow that keeps what densities of single columns need.

    Raises:
        BlobMissingError: There is no such file.
        BlobCorruptError: Its bytes are not those that were stored.
        CheckpointMismatchError: It is not of `spec` and `columns`.
    """
    path = blobs.verify(key, sha256)
    try:
        # It stays open, as it was verified, for what is built when it is first asked for.
        file: _File = safe_open(path, framework="np")
        header = ModelHeader.model_validate_json((file.metadata() or {}).get(METADATA_KEY, ""))
        own = spec_from_dict(header.spec)
        if own != spec_from_dict(dict(spec)) or header.columns != list(columns):
            raise CheckpointMismatchError(key)
        build = partial(_torch_flow, own, header, file, conditionals=conditionals)
        found = None if conditionals else _kernel_flow(own, header, file, build)
        return found or build()
    except (SafetensorError, OSError) as error:
        raise BlobCorruptError(key) from error
    except (FlowError, ValueError, LookupError, RuntimeError) as error:
        raise CheckpointMismatchError(key) from error


def _torch_flow(
    spec: FlowSpec, header: ModelHeader, file: _File, *, conditionals: bool
) -> "TorchFlow":
    # They load PyTorch, which a process does without until a model needs it.
    import torch  # noqa: PLC0415

    from flows import compile_flow  # noqa: PLC0415
    from models_store.files.checkpoints import build_model  # noqa: PLC0415

    tensors = {name: torch.from_numpy(numbers) for name, numbers in _arrays(file).items()}
    return compile_flow(build_model(spec, header, tensors), conditionals=conditionals)


def _arrays(file: _File) -> dict[str, NDArray[Any]]:
    return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


def _kernel_flow(
    spec: FlowSpec, header: ModelHeader, file: _File, build: "Callable[[], TorchFlow]"
) -> KernelFlow | None:
    """Return the flow of a file; None if it has a part that compiled loops do not know.

    Raises:
        FlowError, ValueError, LookupError: The numbers are not those of such a flow.
    """
    chosen = preprocessing_spec(Preprocessing.model_validate(header.preprocessing))
    if header.context_columns or chosen.levels is not None or chosen.logit is not None:
        return None
    stored = _arrays(file)
    if not all(name.startswith(_KNOWN) for name in stored):
        return None
    layers = {
        name.removeprefix(_TRANSFORM): numbers
        for name, numbers in stored.items()
        if name.startswith(_TRANSFORM)
    }
    engine = pack_layers(describe_stored(spec, header.dim, layers))
    if engine is None:
        return None
    moments = np.outer([0.0, 1.0], np.ones(header.dim))
    if header.preprocessing["standardise"]:
        moments = np.stack([stored[f"{_STANDARDISE}mean"], stored[f"{_STANDARDISE}std"]])
    return KernelFlow(engine, moments, cost=flow_cost(spec, header.dim), build=build)
