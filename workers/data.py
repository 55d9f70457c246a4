"""A job's tables as tensors: verified, split by seed, and described by the training rows."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models_store.blobs import BlobStore
from models_store.errors import BlobError
from models_store.schemas import AcceptedSplit
from workers.errors import TrainingError
from workers.protocol import DatasetRef, TrainingTask

_CHUNK_ROWS = 65_536

Rows = NDArray[np.integer[Any]]


@dataclass(frozen=True, eq=False)
class Parts:
    """The rows of each part, in the units and the precision of the table; `test` may be None."""

    train: Tensor
    validation: Tensor
    test: Tensor | None

    def to(self, device: torch.device) -> "Parts":
        """The same rows on a device."""
        return Parts(
            train=self.train.to(device),
            validation=self.validation.to(device),
            test=None if self.test is None else self.test.to(device),
        )


def load_parts(
    task: TrainingTask, blobs: BlobStore, *, split: AcceptedSplit, columns: Sequence[str]
) -> Parts:
    """Read every part that `split` asks for.

    Args:
        task: names the files.
        blobs: holds them.
        split: fractions of the one dataset, or datasets of their own.
        columns: names of the columns to keep, in order.

    Raises:
        TrainingError: a file is gone or was changed.
    """
    table = open_table(blobs, task.dataset)
    wanted = _indices(task.dataset, columns)
    train, validation, test = split_rows(len(table), split)
    return Parts(
        train=_take(table, train, wanted),
        validation=load_columns(blobs, task.validation_dataset, columns)
        if task.validation_dataset is not None
        else _take(table, validation, wanted),
        test=load_columns(blobs, task.test_dataset, columns)
        if task.test_dataset is not None
        else _take(table, test, wanted)
        if len(test)
        else None,
    )


def split_rows(rows: int, split: AcceptedSplit) -> tuple[Rows, Rows, Rows]:
    """The row numbers of training, validation and test; equal for equal seeds, on any machine.

    Rows that rounding leaves over go to training, unless the fractions leave some out anyway.
    """
    order: Rows = (
        np.random.default_rng(split.seed).permutation(rows) if split.shuffle else np.arange(rows)
    )
    validation, test = int(rows * split.validation), int(rows * split.test)
    everything = split.train + split.validation + split.test > 1 - 1e-9
    train = rows - validation - test if everything else int(rows * split.train)
    return (
        order[:train],
        order[train : train + validation],
        order[train + validation : train + validation + test],
    )


def moments(
    rows: Tensor, columns: Sequence[str], transform: Callable[[Tensor], Tensor] = Tensor.double
) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each column, in float64 and in bounded memory.

    Args:
        rows: the table.
        columns: the names of its columns.
        transform: what is done to each chunk of rows before.

    Raises:
        TrainingError: a column has no deviation, or one that is not a finite number.
    """
    chunks = torch.split(rows, _CHUNK_ROWS)
    zero = torch.zeros(rows.shape[1], dtype=torch.float64, device=rows.device)
    mean = sum((transform(chunk).sum(dim=0) for chunk in chunks), start=zero) / len(rows)
    squares = sum(((transform(chunk) - mean).square().sum(dim=0) for chunk in chunks), start=zero)
    std = (squares / len(rows)).sqrt()
    for name, value in zip(columns, std.tolist(), strict=True):
        if not value > 0:
            raise TrainingError("constant_column", f"Column {name!r} is constant in training rows.")
        if not np.isfinite(value):
            raise TrainingError("data_range", f"The values of column {name!r} are too large.")
    return mean, std


def load_columns(blobs: BlobStore, dataset: DatasetRef, columns: Sequence[str]) -> Tensor:
    """Some columns of a whole table, in their order and the table's precision.

    Raises:
        TrainingError: the file is gone or was changed.
    """
    table = open_table(blobs, dataset)
    return _take(table, np.arange(len(table)), _indices(dataset, columns))


def open_table(blobs: BlobStore, dataset: DatasetRef) -> NDArray[np.floating[Any]]:
    """A whole table, memory-mapped.

    Raises:
        TrainingError: the file is gone or was changed.
    """
    try:
        path = blobs.verify(dataset.key, dataset.sha256)
    except BlobError as error:
        raise TrainingError("dataset_corrupt", f"Dataset {dataset.id} cannot be read.") from error
    table: NDArray[np.floating[Any]] = np.load(path, mmap_mode="r", allow_pickle=False)
    return table


def _indices(dataset: DatasetRef, columns: Sequence[str]) -> list[int]:
    return [dataset.columns.index(name) for name in columns]


def _take(table: NDArray[np.floating[Any]], rows: Rows, columns: list[int]) -> Tensor:
    taken = np.empty((len(rows), len(columns)), dtype=table.dtype)
    for start in range(0, len(rows), _CHUNK_ROWS):
        some = rows[start : start + _CHUNK_ROWS]
        taken[start : start + len(some)] = table[some][:, columns]
    return torch.from_numpy(taken)
