"""Models that were trained elsewhere: files that nobody here has seen before.

They are checked in a process of the pool with limits, to the last weight.
"""

from pathlib import Path
from typing import Any

from models_store.errors import ModelFileError, RequestError
from models_store.requests.flow_limits import TrainingLimits
from tabular import processes
from tabular.errors import SandboxCrashError, SandboxLimitError

MAX_HEADER_BYTES = 8 << 20
"""The largest description, of the tensors and of the flow, that is parsed."""


_LENGTH_BYTES = 8


def looks_like_safetensors(path: Path) -> bool:
    """Return whether a file can be a safetensors file: a length, then an object of JSON.

    A pickle, which `torch.save` writes, and archives begin otherwise.
    """
    with path.open("rb") as file:
        start = file.read(_LENGTH_BYTES + 1)
    return start[_LENGTH_BYTES:] == b"{"


def check_header(path: Path) -> None:
    """Refuse a file whose header is too large to be parsed.

    Raises:
        ModelFileError: It is.
        OSError: The file cannot be read.
    """
    with path.open("rb") as file:
        length = int.from_bytes(file.read(_LENGTH_BYTES), "little")
    if length > MAX_HEADER_BYTES:
        raise ModelFileError(f"The header has more than {MAX_HEADER_BYTES} bytes.")


def check_model_file(
    path: Path,
    *,
    limits: TrainingLimits,
    max_columns: int,
    memory_bytes: int,
    timeout_s: float,
) -> dict[str, Any]:
    """Check the file of a model in a process of the pool, and return the fields of a version that it tells. Blocks: call it in a thread.

    Args:
        path: Safetensors file with the description of a flow in its header.
        limits: Limits of flows.
        max_columns: Most columns of the model, those of its context included.
        memory_bytes: Most private memory that the process may have.
        timeout_s: Most seconds that it may take, by the clock.

    Raises:
        ModelFileError: it is no such file, or its weights are not those of its flow.
        RequestError: the flow is not allowed, or its check takes too much memory or time.
        SandboxKilledError: somebody else ended the process.
        RuntimeError: the process failed for a reason of its own.
    """
    try:
        return processes.run(
            _checked, path, limits, max_columns, memory_bytes=memory_bytes, timeout_s=timeout_s
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


def _checked(path: Path, limits: TrainingLimits, max_columns: int) -> dict[str, Any]:
    from models_store.files.model_checks import read_model_file  # noqa: PLC0415  PyTorch, in the process alone

    try:
        return read_model_file(path, limits=limits, max_columns=max_columns)
    except (ModelFileError, RuntimeError) as error:
        # PyTorch and safetensors tell of refused memory by a RuntimeError.
        if processes.lacks_memory(str(error.__cause__ or error)):
            raise MemoryError from error
        raise
