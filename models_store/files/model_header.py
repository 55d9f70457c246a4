"""Descriptions of models in the headers of their files, read without their weights."""

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict
from safetensors import safe_open

from flows import PreprocessingSpec
from models_store.requests.training import Levels, Preprocessing

# One entry, so that equal contents are equal bytes: the order of several is not defined.
METADATA_KEY = "densityd"


class ModelHeader(BaseModel):
    """Metadata of a model file, from which its flow is built."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal[1] = 1
    kind: Literal["model"] = "model"
    spec: dict[str, Any]
    dim: int
    columns: list[str]
    context_columns: list[str] = []
    types: list[dict[str, Any]] | None = None
    preprocessing: dict[str, Any]


def read_description(path: Path) -> str:
    """Return the description of a file as text; "" if it has none. Its tensors are not read, and errors are not translated."""
    with safe_open(path, framework="np") as file:
        return str((file.metadata() or {}).get(METADATA_KEY, ""))


def preprocessing_spec(chosen: Preprocessing) -> PreprocessingSpec:
    """Return the values that a flow is built from."""
    return PreprocessingSpec(
        levels=chosen.dequantise.levels if isinstance(chosen.dequantise, Levels) else None,
        logit=None if chosen.logit is None else chosen.logit.margin,
    )
