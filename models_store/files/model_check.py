"""An imported file is checked in a process of its own: it may take no more than that process may."""

import dataclasses
import os
from pathlib import Path
from typing import Any

from models_store.errors import ModelFileError, RequestError
from models_store.files.model_files import ModelFile, describe, read_model_file
from models_store.requests.flow_limits import TrainingLimits
from tables.errors import TableError
from tables.sandbox.child import do_task, run_child

_CRASHED = "dataset-parse"
_SWOLLEN = "dataset-too-large"
_NO_MEMORY = "allocate memory"  # PyTorch and safetensors say it as a RuntimeError


def check_model_file(
    path: Path,
    *,
    limits: TrainingLimits,
    max_columns: int,
    memory_bytes: int,
    timeout_s: float,
) -> ModelFile:
    """Check the file of a model to the last weight, in a child. Blocks: call it in a thread.

    Args:
        path: a safetensors file with our description in its header.
        limits: of flows.
        max_columns: of the model, those of its context included.
        memory_bytes: the most private memory that the process may have.
        timeout_s: the longest time it may take, by the clock and of the processor.

    Raises:
        ModelFileError: it is no such file, or its weights are not those of its flow.
        RequestError: the flow is not allowed, or its check takes too much memory or time.
        TableError: the name of a column is not allowed.
        RuntimeError: the process failed for a reason of its own.
    """
    # What is refused for its description alone costs no process.
    describe(path, limits=limits, max_columns=max_columns)
    task = {
        "path": os.fspath(path.absolute()),
        "limits": dataclasses.asdict(limits),
        "max_columns": max_columns,
        "memory_bytes": memory_bytes,
        "timeout_s": timeout_s,
    }
    try:
        outcome = run_child("models_store.files.model_check", task, timeout_s=timeout_s)
    except TableError as error:
        if error.slug == _SWOLLEN:
            raise RequestError(
                "limit-memory",
                f"checking the file took more than the {memory_bytes / 2**20:,.0f} MiB or"
                f" {timeout_s:g} s that this server allows; import a smaller model",
                pointer="",
            ) from error
        if error.slug == _CRASHED:
            raise ModelFileError("Reading the file ended its process: it is damaged.") from error
        raise
    if "invalid" in outcome:
        raise ModelFileError(outcome["invalid"])
    if "refused" in outcome:
        raise RequestError(**outcome["refused"])
    return ModelFile(**outcome["model"])


def _check(task: dict[str, Any]) -> dict[str, object]:
    limits = TrainingLimits(**task["limits"])
    try:
        model = read_model_file(Path(task["path"]), limits=limits, max_columns=task["max_columns"])
    except RequestError as error:
        refused = {"slug": error.slug, "detail": error.detail, "pointer": error.pointer}
        return {"refused": refused}
    except (ModelFileError, RuntimeError) as error:
        if _NO_MEMORY in str(error.__cause__ or error):
            raise MemoryError from error
        if not isinstance(error, ModelFileError):
            raise
        return {"invalid": str(error)}
    return {"model": dataclasses.asdict(model)}


if __name__ == "__main__":
    do_task(_check)
