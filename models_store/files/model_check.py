"""The check of an imported model file, in a process of the pool with limits."""

import dataclasses
from pathlib import Path
from typing import Any

from models_store.errors import ModelFileError, RequestError
from models_store.files.model_files import ModelFile, check_header, describe, read_model_file
from models_store.requests.flow_limits import TrainingLimits
from tabular import processes
from tabular.errors import SandboxCrashError, SandboxLimitError

_SMALL_BYTES = 256 << 10


def check_model_file(
    path: Path,
    *,
    limits: TrainingLimits,
    max_columns: int,
    memory_bytes: int,
    timeout_s: float,
) -> ModelFile:
    """Check the file of a model to the last weight, in a process of the pool. Blocks: call it in a thread.

    Args:
        path: Safetensors file with the description of a flow in its header.
        limits: Limits of flows.
        max_columns: Most columns of the model, those of its context included.
        memory_bytes: Most private memory that the process may have.
        timeout_s: Most seconds that it may take, by the clock.

    Raises:
        ModelFileError: it is no such file, or its weights are not those of its flow.
        RequestError: the flow is not allowed, or its check takes too much memory or time.
        TableError: the name of a column is not allowed.
        SandboxKilledError: somebody else ended the process.
        RuntimeError: the process failed for a reason of its own.
    """
    if check_header(path) <= _SMALL_BYTES:
        # What is refused for its description alone costs no process, if that does not take long.
        describe(path, limits=limits, max_columns=max_columns)
    try:
        outcome = processes.run(
            _check, path, limits, max_columns, memory_bytes=memory_bytes, timeout_s=timeout_s
        )
    except SandboxLimitError as error:
        raise RequestError(
            "limit-memory",
            f"checking the file took more than the {memory_bytes / 2**20:,.0f} MiB or"
            f" {timeout_s:g} s that this server allows; import a smaller model",
            pointer="",
        ) from error
    except SandboxCrashError as error:
        raise ModelFileError(
            "The check crashed on the file: it is damaged, or takes more memory than is allowed."
        ) from error
    match outcome:
        case {"invalid": str(text)}:
            raise ModelFileError(text)
        case {"refused": dict(fields)}:
            raise RequestError(**fields)
        case _:
            return ModelFile(**outcome)


def _check(path: Path, limits: TrainingLimits, max_columns: int) -> dict[str, Any]:
    try:
        model = read_model_file(path, limits=limits, max_columns=max_columns)
    except RequestError as error:
        refused = {"slug": error.slug, "detail": error.detail, "pointer": error.pointer}
        return {"refused": refused}
    except (ModelFileError, RuntimeError) as error:
        # PyTorch and safetensors tell of refused memory by a RuntimeError.
        if processes.lacks_memory(str(error.__cause__ or error)):
            raise MemoryError from error
        if not isinstance(error, ModelFileError):
            raise
        return {"invalid": str(error)}
    return dataclasses.asdict(model)
