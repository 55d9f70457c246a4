"""Rows of an experiment, and the files that they are read from."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

QUICK_ROWS = 400


class DataMissingError(Exception):
    """Data set that is not in the folder."""

    def __init__(self, name: str, path: Path, hint: str) -> None:
        super().__init__(f"{name} needs {path.name} in {path.parent}: {hint}")


@dataclass(frozen=True, eq=False)
class Data:
    """Rows for training, validation and test."""

    train: Tensor
    validation: Tensor
    test: Tensor

    def quick(self) -> "Data":
        """Return a few rows of each part."""
        return Data(*(part[:QUICK_ROWS] for part in (self.train, self.validation, self.test)))


def read_arrays(folder: Path, name: str, file: str, hint: str) -> dict[str, NDArray[Any]]:
    """Return the arrays of an npz file, which holds no objects.

    Args:
        folder: Folder of the file.
        name: Name of the data set.
        file: Name of the file in the folder.
        hint: Description of its content, for a user who lacks the file.

    Raises:
        DataMissingError: There is no such file.
    """
    path = folder / file
    if not path.is_file():
        raise DataMissingError(name, path, hint)
    with np.load(path, allow_pickle=False) as archive:
        return {key: archive[key] for key in archive}


def tensors(*parts: NDArray[Any]) -> Data:
    """Return the three parts in float32."""
    return Data(*(torch.from_numpy(np.ascontiguousarray(part, np.float32)) for part in parts))
