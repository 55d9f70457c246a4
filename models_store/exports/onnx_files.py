"""ONNX files of log densities, written in a process of the pool with limits."""

import json
from importlib.util import find_spec
from pathlib import Path

from flows import spec_from_dict
from models_store.errors import ConflictError, RequestError
from models_store.files.disks import disk_errors
from models_store.files.model_header import ModelHeader
from models_store.records import Version
from tabular import processes
from tabular.errors import SandboxLimitError


def write_onnx_file(
    checkpoint: Path, version: Version, target: Path, *, memory_bytes: int, timeout_s: float
) -> None:
    """Write the log density of a version as an ONNX file, in a process of the pool. Blocks: call it in a thread.

    Args:
        checkpoint: File of the weights, whose hash was verified.
        version: Version that it belongs to.
        memory_bytes: Most private memory that the process may have.
        timeout_s: Most seconds that it may take, by the clock.

    Raises:
        ConflictError: The density has no form in ONNX, or the package of ONNX is not installed.
        RequestError: Writing takes too much memory or time.
        StorageFullError, BlobDiskError: The file cannot be written.
        RuntimeError: The process failed for a reason of its own.
    """
    if find_spec("onnx") is None:
        raise ConflictError(
            "This service is installed without ONNX. Whoever runs it adds it by"
            " `pip install 'densityd[onnx]'`; else export the version as safetensors.",
            slug="onnx-not-installed",
        )
    try:
        with disk_errors(target.name):
            unsupported = processes.run(
                _write,
                checkpoint,
                target,
                _metadata(version),
                memory_bytes=memory_bytes,
                timeout_s=timeout_s,
            )
    except SandboxLimitError as error:
        raise RequestError(
            "limit-memory",
            f"writing the model as ONNX took more than the {memory_bytes / 2**20:,.0f} MiB or"
            f" {timeout_s:g} s that this server allows; export it as safetensors",
            pointer="",
        ) from error
    if unsupported is not None:
        raise ConflictError(
            f"The density of {version.ref}, of family {version.family}, has no form in ONNX: {unsupported}.",
            slug="onnx-unsupported",
        )


def _metadata(version: Version) -> dict[str, str]:
    """Return the texts that the file carries; lists are JSON."""
    texts = {
        "model": version.name,
        "version": str(version.version),
        "family": version.family,
        "units": "nats",
        "columns": json.dumps(version.columns),
        "context_columns": json.dumps(version.context_columns),
        "checkpoint_sha256": version.checkpoint_sha256,
        "code_version": version.code_version,
    }
    return texts if version.types is None else texts | {"types": json.dumps(version.types)}


def _write(checkpoint: Path, target: Path, metadata: dict[str, str]) -> str | None:
    """Write the file; return why there is none."""
    # PyTorch and ONNX, in the process alone.
    from flows.onnx.export import onnx_model  # noqa: PLC0415
    from flows.onnx.recording import OnnxError  # noqa: PLC0415
    from models_store.files.checkpoints import build_model, read_tensors  # noqa: PLC0415

    try:
        tensors, text = read_tensors(checkpoint)
        header = ModelHeader.model_validate_json(text)
        flow = build_model(spec_from_dict(header.spec), header, tensors)
        target.write_bytes(onnx_model(flow, metadata))
    except OnnxError as error:
        return str(error)
    except RuntimeError as error:
        # PyTorch tells of refused memory by a RuntimeError.
        if processes.lacks_memory(str(error)):
            raise MemoryError from error
        raise
    return None
