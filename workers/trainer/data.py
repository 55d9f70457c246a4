"""Tables of a job as tensors: verified, split by seed, and described by the training rows."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from flows import Flow
from models_store.errors import BlobDiskError, BlobError
from models_store.files.blobs import Blobs
from models_store.files.checkpoints import load_model
from models_store.requests.search import Member
from models_store.requests.training import AcceptedSplit
from models_store.splits import split_rows
from tabular.cells import recode
from tabular.columns import Column
from tabular.errors import TableError
from tabular.ingest.numbers import MAX_SAMPLE_BYTES, MAX_SAMPLE_ROWS
from workers.errors import TrainingError
from workers.protocol import DatasetRef, EnsembleTask, ModelRef, TrainingTask

_CHUNK_ROWS = 65_536
# Rows of a sample at least.
_FEWEST_ROWS = 100
# Of a number once it is converted, and a copy for exact statistics.
_BYTES_IN_TRAINING = 8

Rows = NDArray[np.integer[Any]]
Floats = NDArray[np.floating[Any]]


@dataclass(frozen=True, eq=False)
class SplitRows:
    """Rows of each part of the split, in the units and the precision of the table.

    Attributes:
        test: Test rows; None if there are none.
        sample: Some training rows, in random order where the split is random: the same whether the
            table fits into memory or not.
        left_out: Number of training rows that did not fit: the others are evenly spread.
    """

    train: Tensor
    validation: Tensor
    test: Tensor | None
    sample: Floats
    left_out: int = 0

    def to(self, device: torch.device, *, memory_bytes: int | None) -> "SplitRows":
        """Return the same rows, on a device if they leave it room."""
        to = partial(_to, device=device, memory_bytes=memory_bytes)
        return SplitRows(
            train=to(self.train),
            validation=to(self.validation),
            test=None if self.test is None else to(self.test),
            sample=self.sample,
            left_out=self.left_out,
        )


def _to(table: Tensor, *, device: torch.device, memory_bytes: int | None) -> Tensor:
    needed = _bytes_in_training(*table.shape, item_bytes=table.element_size())
    return table.to(device) if _leaves_room(needed, memory_bytes) else table


def _bytes_in_training(rows: int, columns: int, *, item_bytes: int) -> int:
    return rows * columns * (item_bytes + _BYTES_IN_TRAINING)


def _leaves_room(needed: int, memory_bytes: int | None) -> bool:
    """Return whether rows take a quarter of some memory at most."""
    return memory_bytes is None or needed <= memory_bytes // 4


def load_parts(
    task: TrainingTask | EnsembleTask,
    blobs: Blobs,
    *,
    split: AcceptedSplit,
    columns: Sequence[Column],
) -> SplitRows:
    """Read every part that `split` asks for: some columns, in order, by whose levels the rows are numbered.

    Raises:
        TrainingError: A file is gone or was changed.
    """
    take = partial(_take, memory_bytes=task.memory_bytes or task.host_bytes)
    # The types of the dataset may have been corrected since the job was accepted.
    table, wanted = numbered_as(columns, open_table(blobs, task.dataset), task.dataset)
    train, validation, test = split_rows(len(table), split)
    held_out = {"validation": (table, validation, wanted), "test": (table, test, wanted)}
    for name, dataset in (("validation", task.validation_dataset), ("test", task.test_dataset)):
        if dataset is not None:
            own, numbers = numbered_as(columns, open_table(blobs, dataset), dataset)
            held_out[name] = own, np.arange(len(own)), numbers
    some = train[:: -(-len(train) // most_rows(len(wanted)))]
    taken = take(table, train, wanted)
    return SplitRows(
        sample=table[some][:, wanted],
        train=taken,
        left_out=len(train) - len(taken),
        validation=take(*held_out["validation"]),
        test=take(*held_out["test"]) if len(held_out["test"][1]) else None,
    )


def most_rows(columns: int) -> int:
    """Return the most training rows that are looked at."""
    return max(256, min(MAX_SAMPLE_ROWS, MAX_SAMPLE_BYTES // (8 * max(columns, 1))))


def numbered_as(
    columns: Sequence[Column], table: Floats, dataset: DatasetRef
) -> tuple[Floats, list[int]]:
    """Return a table and the numbers of its columns, its levels numbered as in other columns.

    Raises:
        TrainingError: The table lacks a column, or cells of it cannot be of the column's type.
    """
    types = {column.name: (number, column) for number, column in enumerate(dataset.column_types)}
    try:
        found = [types[column.name] for column in columns]
        wanted, own = [number for number, _ in found], [column for _, column in found]
        if all(
            (column.holds_values and same.holds_values) or column.levels == same.levels
            for column, same in zip(columns, own, strict=True)
        ):
            return table, wanted
        return recode(table[:, wanted], own, columns), list(range(len(columns)))
    except (KeyError, TableError) as error:
        raise TrainingError(
            "dataset_changed",
            f"The types of dataset {dataset.id} were changed after the job was accepted; start a new job.",
        ) from error


def sample(table: Tensor, most: int) -> Tensor:
    """Return at most `most` rows, evenly spread."""
    return table[:: max(1, -(-len(table) // most))]


def moments(
    rows: Tensor, columns: Sequence[str], transform: Callable[[Tensor], Tensor] = Tensor.double
) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation of each column, in float64 and in bounded memory.

    Raises:
        TrainingError: A column has no deviation, or one that is not a finite number.
    """
    zero = torch.zeros(rows.shape[1], dtype=torch.float64, device=rows.device)
    chunks = torch.split(rows, _CHUNK_ROWS)
    mean = sum((transform(chunk).sum(dim=0) for chunk in chunks), start=zero) / len(rows)
    squares = sum(((transform(chunk) - mean).square().sum(dim=0) for chunk in chunks), start=zero)
    std = (squares / len(rows)).sqrt()
    for name, value in zip(columns, std.tolist(), strict=True):
        if not value > 0:
            raise TrainingError("constant_column", f"Column {name!r} is constant in training rows.")
        if not np.isfinite(value):
            raise TrainingError("data_range", f"The values of column {name!r} are too large.")
    return mean, std


def load_columns(blobs: Blobs, dataset: DatasetRef, columns: Sequence[str]) -> Tensor:
    """Return some columns of a whole table, in their order and the table's precision.

    Raises:
        TrainingError: The file is gone or was changed.
    """
    table = open_table(blobs, dataset)
    wanted = [dataset.columns.index(name) for name in columns]
    return _take(table, np.arange(len(table)), wanted)


@contextmanager
def needed(code: str, text: str) -> Iterator[None]:
    """Fail the job for a file that is gone or was changed; a disk that fails is not the job's fault.

    Raises:
        TrainingError: The file cannot be used.
    """
    try:
        yield
    except BlobDiskError:
        raise
    except BlobError as error:
        raise TrainingError(code, text) from error


def load_flow(blobs: Blobs, file: ModelRef | Member, columns: Sequence[str]) -> Flow:
    """Return the flow of a model file.

    Raises:
        TrainingError: The file is gone or was changed.
    """
    with needed("model_unusable", "The file of the model cannot be used."):
        return load_model(blobs, file.key, file.sha256, spec=file.flow, columns=columns)


def open_table(blobs: Blobs, dataset: DatasetRef) -> Floats:
    """Return a whole table, memory-mapped.

    Raises:
        TrainingError: The file is gone or was changed.
        BlobDiskError: The disk failed.
    """
    with needed("dataset_corrupt", f"Dataset {dataset.id} cannot be read."):
        path = blobs.verify(dataset.key, dataset.sha256)
    table: Floats = np.load(path, mmap_mode="r", allow_pickle=False)
    return table


def _take(
    table: Floats, rows: Rows, columns: list[int], *, memory_bytes: int | None = None
) -> Tensor:
    """Return rows in memory: all of them, or an even sample that takes a quarter of it."""
    of_a_row = _bytes_in_training(1, len(columns), item_bytes=table.itemsize)
    if not _leaves_room(of_a_row * len(rows), memory_bytes):
        most = max(_FEWEST_ROWS, (memory_bytes or 0) // 4 // of_a_row)
        rows = np.sort(rows)[:: -(-len(rows) // most)]
    taken = np.empty((len(rows), len(columns)), dtype=table.dtype)
    for start in range(0, len(rows), _CHUNK_ROWS):
        some = rows[start : start + _CHUNK_ROWS]
        taken[start : start + len(some)] = table[some][:, columns]
    return torch.from_numpy(taken)
