"""Tables that bulk jobs make: scores of a dataset, and samples."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from flows import CompiledFlow, density_parts, fitting_rows, rank_among
from models_store.errors import BlobDiskError, BlobError
from models_store.files.blobs import Blobs
from models_store.reference_rows import (
    Array,
    draw_reference_rows,
    read_reference_rows,
    usual_count,
    usual_terms,
)
from models_store.requests.bulk import AcceptedSampling, AcceptedScoring
from tabular.cells import recode
from tabular.columns import Column
from tabular.errors import TableError
from tabular.formats import Output
from tabular.kept_cells import KeptCells
from tabular.typed_rows import TypedRows, encode_rows
from tabular.writers import TableHead, unused_name
from workers.errors import TrainingError
from workers.protocol import SamplingTask, ScoringTask
from workers.trainer.data import MappedRows, open_table
from workers.trainer.parts import Doubles

_STEP_VALUES = 2**20
_USUAL_ROWS = 16  # of a step
_CPU_STEP_ROWS, _GPU_STEP_ROWS, _LEAST_STEP_ROWS = 4_096, 16_384, 256
# A flow computes a step in chunks of its own; of a large flow fewer rows are a step.
_CHUNKS_OF_A_STEP = 16


@dataclass(frozen=True)
class Product:
    """Table that a bulk job makes.

    Args:
        head: Column names of the table.
        output: Format of the file.
        chunks: Function that computes the rows from one on, in chunks.
        computed: Names of the computed columns, which stand behind `beside`.
        beside: First columns of the table, which are there already.
        scores: True if the first of the computed columns is a log density.
        typed: Converter of the first columns to cells; None: the table holds numbers.
        kept: Cells of those of the first columns that are not modelled.
        checked: Number of the computed columns that must be finite, the first ones; None: those that
            hold cells may have gaps.
        usual: Usual terms of the explanations, which are the last computed columns; their differences
            from these are the last columns of the table.
    """

    head: TableHead
    output: Output
    chunks: Callable[[int], Iterator[Doubles]]
    computed: Sequence[str]
    beside: MappedRows | None
    scores: bool
    typed: TypedRows | None = None
    kept: KeptCells | None = None
    checked: int | None = None
    usual: "UsualTerms | None" = None

    @property
    def width(self) -> int:
        """Return the number of computed columns."""
        return len(self.computed)


def scores_of(task: ScoringTask, flow: CompiledFlow, blobs: Blobs, device: torch.device) -> Product:
    """Return the table of the scores of a dataset.

    Args:
        task: Task of a scoring job.
        flow: Flow of the model.
        blobs: Store that holds the dataset.
        device: Device that computes.

    Raises:
        TrainingError: A file of the dataset is gone or was changed.
    """
    request = AcceptedScoring.model_validate(task.request)
    table = open_table(blobs, task.dataset)
    rows = MappedRows(table)
    number = _Numbering(task, request.columns)
    scores = _Scores(task, flow, request)
    step = _step_rows(len(request.columns), flow, device, scores=scores.cost)

    def chunks(first: int) -> Iterator[Doubles]:
        for start in range(first, len(table), step):
            yield scores.of(number(rows.read(start, start + step)))

    types, kept = _written_columns(task, blobs) if request.include_rows else ([], None)
    beside = [column.name for column in types]
    usual = UsualTerms(task, flow, blobs) if request.explain else None
    names = [unused_name(name, beside) for name in scores.names]
    computed = list(names)
    if usual is not None:
        names += [unused_name(f"difference.{name}", beside) for name in task.model.columns]
    typed = None if all(column.is_plain for column in types) else TypedRows(types, names)
    return Product(
        head=TableHead(
            names=[*beside, *names],
            dtypes=[table.dtype] * len(beside) + [np.dtype(np.float64)] * len(names),
            rows=len(table),
            schema=None if typed is None or request.output == "npy" else typed.schema,
        ),
        output=request.output,
        chunks=chunks,
        computed=computed,
        beside=rows if request.include_rows else None,
        scores=True,
        typed=typed,
        kept=kept,
        checked=scores.checked,
        usual=usual,
    )


def samples_of(task: SamplingTask, flow: CompiledFlow, device: torch.device) -> Product:
    """Return the table of the samples that a sampling job draws.

    Args:
        task: Task of a sampling job.
        flow: Flow of the model.
        device: Device that computes.
    """
    request = AcceptedSampling.model_validate(task.request)
    columns: Sequence[str] = task.model.columns
    types = None if task.model.types is None else [Column.from_dict(c) for c in task.model.types]
    step = _step_rows(len(columns), flow, device)
    context = _context(request, types, dim=len(columns))

    def chunks(first: int) -> Iterator[Doubles]:
        return flow.iter_sample(
            request.n, seed=request.seed, chunk_rows=step, context=context, start=first
        )

    typed = None if types is None else TypedRows(types[: len(columns)])
    return Product(
        head=TableHead(
            names=columns,
            dtypes=[np.dtype(np.float64)] * len(columns),
            rows=request.n,
            schema=None if typed is None or request.output == "npy" else typed.schema,
        ),
        output=request.output,
        chunks=chunks,
        computed=columns,
        beside=None,
        scores=False,
        typed=typed,
    )


def part_of(product: Product, first: int, stop: int) -> Product:
    """Return the computed columns of some rows, as numbers, for the job that writes the whole."""

    def chunks(done: int) -> Iterator[Doubles]:
        left = stop - first - done
        for chunk in product.chunks(first + done):
            yield chunk[:left]
            left -= len(chunk)
            if left <= 0:
                return

    dtypes = [np.dtype(np.float64)] * product.width
    return Product(
        head=TableHead(names=product.computed, dtypes=dtypes, rows=stop - first),
        output="npy",
        chunks=chunks,
        computed=product.computed,
        beside=None,
        scores=product.scores,
        checked=product.checked,
    )


class _Numbering:
    """Rows of a dataset as rows of the model, whose levels may have other indices.

    Args:
        task: Task that names the dataset and the model.
        columns: Names of the model's columns, then of its context columns.
    """

    def __init__(self, task: ScoringTask, columns: Sequence[str]) -> None:
        self._wanted = [task.dataset.columns.index(name) for name in columns]
        own = task.dataset.column_types
        self._source = [own[place] for place in self._wanted]
        types = task.model.types
        self._target = None if types is None else [Column.from_dict(fields) for fields in types]

    def __call__(self, rows: NDArray[np.floating[Any]]) -> NDArray[np.floating[Any]]:
        """Return rows of the dataset as rows of the model.

        Raises:
            TrainingError: The values of a column cannot be those of the model's.
        """
        rows = rows[:, self._wanted]
        if self._target is None:
            return rows
        try:
            return recode(rows, self._source, self._target)
        except TableError as error:
            raise TrainingError("dataset_types", error.detail) from error


class _Scores:
    """Numbers that rows are scored by.

    Attributes:
        names: Names of the numbers of a row.
        checked: Number of them that must be finite, the first ones.
        cost: Number of scores that those of a row cost.
    """

    def __init__(self, task: ScoringTask, flow: CompiledFlow, request: AcceptedScoring) -> None:
        self._flow, self._request = flow, request
        quantiles, self._rows = task.model.quantiles, task.model.held_out_rows
        self._quantiles = None if quantiles is None else np.array(quantiles)
        self.names = ["log_prob"] if quantiles is None else ["log_prob", "quantile"]
        self.checked = len(self.names)
        self.cost = 1
        if request.parts:
            self.names += ["discrete", "continuous"]
        if request.explain:
            self.names += [f"explanation.{name}" for name in task.model.columns]
            self.cost += len(task.model.columns)

    def of(self, rows: NDArray[np.floating[Any]]) -> Doubles:
        """Return the numbers of some rows."""
        parts = density_parts(self._flow, rows) if self._request.parts else None
        log_prob = self._flow.log_prob(rows) if parts is None else parts.sum(axis=1)
        found = [log_prob]
        if self._quantiles is not None and self._rows is not None:
            found.append(rank_among(log_prob, self._quantiles, rows=self._rows))
        if parts is not None:
            found.append(parts)
        if self._request.explain:
            found.append(self._flow.explain(rows))
        return np.column_stack(found)


class UsualTerms:
    """Medians of the terms of each column over rows of the model's dataset, or over samples.

    They are computed once, for the first rows that are written.

    Args:
        task: Task of a scoring job that explains.
        flow: Flow of the model.
        blobs: Store that holds the dataset.
    """

    def __init__(self, task: ScoringTask, flow: CompiledFlow, blobs: Blobs) -> None:
        self._task, self._flow, self._blobs = task, flow, blobs
        self._found: Doubles | None = None

    def differences(self, rows: Doubles, alive: Callable[[], None]) -> Doubles:
        """Return the differences of explanations from the usual ones.

        Args:
            rows: Computed columns, of which the explanations are the last.
            alive: Function that is called between two steps.
        """
        return rows[:, -self._flow.dim :] - self._terms(alive)

    def metrics(self, alive: Callable[[], None]) -> dict[str, Any]:
        """Return how each column is explained, and its usual term.

        Args:
            alive: Function that is called between two steps.
        """
        columns, terms = self._task.model.columns, self._terms(alive).tolist()
        known = [None if math.isnan(term) else term for term in terms]
        return {
            "explained": dict(zip(columns, self._flow.explained_kinds, strict=True)),
            "usual": dict(zip(columns, known, strict=True)),
        }

    def _terms(self, alive: Callable[[], None]) -> Doubles:
        if self._found is None:
            explanations: list[Doubles] = [np.empty((0, self._flow.dim))]
            for rows in self._rows():
                for start in range(0, len(rows), _USUAL_ROWS):
                    explanations.append(self._flow.explain(rows[start : start + _USUAL_ROWS]))
                    alive()
            self._found = usual_terms(np.concatenate(explanations))
        return self._found

    def _rows(self) -> Iterator[Array]:
        count = usual_count(self._flow)
        rows = self._data_rows(count)
        if rows is not None:
            yield rows
        elif not self._flow.context_dim:
            yield from draw_reference_rows(self._flow, count)

    def _data_rows(self, count: int) -> Array | None:
        reference, types = self._task.reference, self._task.model.types
        if reference is None or types is None:
            return None
        try:
            path = self._blobs.verify(reference.key, reference.sha256)
        except BlobDiskError:
            raise
        except BlobError:
            return None  # a score does not depend on the dataset
        target = [Column.from_dict(fields) for fields in types]
        return read_reference_rows(path, reference.column_types, target, count)


def _written_columns(task: ScoringTask, blobs: Blobs) -> tuple[list[Column], KeptCells | None]:
    """Return the columns to write beside the scores, and the cells of those that are not modelled.

    npy holds numbers alone: the columns that are modelled.

    Raises:
        TrainingError: The file of the cells is gone or was changed.
    """
    kept = task.dataset.kept
    if kept is None or AcceptedScoring.model_validate(task.request).output == "npy":
        return task.dataset.column_types, None
    try:
        path = blobs.verify(kept.key, kept.sha256)
    except BlobDiskError:
        raise
    except BlobError as error:
        text = f"The kept cells of dataset {task.dataset.id} cannot be read."
        raise TrainingError("dataset_corrupt", text) from error
    columns = [Column.from_dict(fields) for fields in kept.types]
    return columns, KeptCells(path, columns)


def _context(
    request: AcceptedSampling, types: Sequence[Column] | None, *, dim: int
) -> NDArray[np.float64] | None:
    """Return the context of a request as numbers."""
    if request.context is None:
        return None
    if types is None:
        return np.array(request.context, np.float64)
    return encode_rows(request.context, types[dim:])


def _step_rows(columns: int, flow: CompiledFlow, device: torch.device, *, scores: int = 1) -> int:
    """Return the rows of a step: whole chunks of the flow, within bounds of memory and time."""
    most = _CPU_STEP_ROWS if device.type == "cpu" else _GPU_STEP_ROWS
    rows = _STEP_VALUES // columns // _LEAST_STEP_ROWS * _LEAST_STEP_ROWS
    rows = max(_LEAST_STEP_ROWS, min(most, rows))
    rows = fitting_rows(rows, flow.row_bytes // _CHUNKS_OF_A_STEP, multiple=64)
    return max(1, rows // scores)
