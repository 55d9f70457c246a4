"""Work of one bulk job: a dataset scored, or rows drawn, into one file.

As with training, it may be killed at any moment and started again; the file that comes out is the
same byte for byte on the same kind of CPU and number of threads. Rows are computed in steps whose
bounds depend on the request alone, kept in parts, and at the end written in the wanted format.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from flows import CompiledFlow, compile_flow, density_parts, fitting_rows, rank_among
from models_store.errors import BlobDiskError, BlobError, StorageFullError
from models_store.files.blobs import Blobs, result_key
from models_store.files.checkpoints import load_model
from models_store.files.stores import open_blobs
from models_store.requests.bulk import AcceptedBulk, AcceptedSampling, AcceptedScoring
from tables.cells import recode
from tables.columns import Column
from tables.errors import TableError
from tables.formats import Output
from tables.kept_cells import KeptCells
from tables.typed_rows import TypedRows, encode_rows
from tables.writers import (
    OUTPUT_MEDIA_TYPES,
    WRITERS,
    Encoded,
    TableHead,
    TableWriter,
    unused_name,
)
from workers.errors import TrainingError
from workers.protocol import (
    BulkTask,
    CheckpointRef,
    EpochDone,
    Interrupted,
    Produced,
    SamplingTask,
    ScoringTask,
    Send,
    Tick,
)
from workers.trainer.data import MappedRows, open_table
from workers.trainer.devices import find_device
from workers.trainer.parts import Doubles, Parts, Pieces
from workers.trainer.progress import RowProgress

_TICK_S = 0.5
_STEP_VALUES = 2**20
# Seconds to write a number, to tell before it begins how long it will take.
_WRITE_S = {"npy": 3e-8, "parquet": 7e-8, "csv": 2.5e-7}
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
        width: Number of computed columns, the last ones of the table.
        beside: First columns of the table, which are there already.
        scores: True if the first of the computed columns is a log density.
        typed: Converter of the first columns to cells; None: the table holds numbers.
        kept: Cells of those of the first columns that are not modelled.
        checked: Number of the computed columns that must be finite, the first ones; None: those that
            hold cells may have gaps.
    """

    head: TableHead
    output: Output
    chunks: Callable[[int], Iterator[Doubles]]
    width: int
    beside: MappedRows | None
    scores: bool
    typed: TypedRows | None = None
    kept: KeptCells | None = None
    checked: int | None = None


def produce(task: BulkTask, send: Send, *, interrupted: Callable[[], bool]) -> None:
    """Make and store the file that `task` asks for.

    The last message is `Produced`, or `Interrupted` once `interrupted()` is true.

    Args:
        task: Task of the trainer.
        send: Function that sends a message.
        interrupted: Function that returns True to stop, called between two steps.

    Raises:
        TrainingError: The job cannot succeed.
        StorageFullError: A part or the file could not be written.
    """
    torch.set_num_threads(task.threads)
    device = find_device(task.device)
    blobs = open_blobs(task.store)
    flow = _load(task, blobs, device)
    accepted: AcceptedBulk
    if isinstance(task, ScoringTask):
        accepted = AcceptedScoring.model_validate(task.request)
        product = _scores(task, flow, blobs, device)
    else:
        accepted = AcceptedSampling.model_validate(task.request)
        product = _samples(task, flow, device)
    if accepted.span is not None:
        product = _part(product, *accepted.span)
    parts: Parts | Pieces = Parts(task, blobs, width=product.width, send=send)
    if accepted.pieces is not None:
        parts = Pieces(blobs, accepted.pieces, width=product.width)
    _Run(task, product, parts, blobs=blobs, send=send, interrupted=interrupted).run()


def _part(product: Product, first: int, stop: int) -> Product:
    """Return the computed columns of some rows, as numbers, for the job that writes the whole."""

    def chunks(done: int) -> Iterator[Doubles]:
        left = stop - first - done
        for chunk in product.chunks(first + done):
            yield chunk[:left]
            left -= len(chunk)
            if left <= 0:
                return

    names = product.head.names[-product.width :]
    dtypes = [np.dtype(np.float64)] * product.width
    return Product(
        head=TableHead(names=names, dtypes=dtypes, rows=stop - first),
        output="npy",
        chunks=chunks,
        width=product.width,
        beside=None,
        scores=product.scores,
        checked=product.checked,
    )


class _Run:
    """Run of a bulk job: its messages and its files."""

    def __init__(
        self,
        task: BulkTask,
        product: Product,
        parts: Parts | Pieces,
        *,
        blobs: Blobs,
        send: Send,
        interrupted: Callable[[], bool],
    ) -> None:
        self._task = task
        self._product = product
        self._blobs = blobs
        self._send = send
        self._interrupted = interrupted
        self._parts = parts
        self._metrics: dict[str, Any] = {}
        self._position: dict[str, Any] = {}
        head = product.head
        write_s = head.rows * len(head.names) * _WRITE_S[product.output]
        self._progress = RowProgress(rows=head.rows, write_s=write_s)
        self._ticked_at = time.monotonic()

    def run(self) -> None:
        """Compute the missing parts, then write the file; stop where interrupted."""
        self._parts.resume(self._tick)
        finished = self._compute() and self._write()
        if not finished:
            self._send(Interrupted(metrics=self._metrics, progress=self._position, checkpoint=None))

    def _compute(self) -> bool:
        """Compute every missing part; return whether it got to the end."""
        rows, first = self._product.head.rows, self._parts.rows
        began_at = time.monotonic()
        done = first
        self._position = self._progress.resumed(first)

        def chunks() -> Iterator[Doubles]:
            nonlocal done
            for chunk in self._product.chunks(first):
                done += len(chunk)
                yield chunk

        def advanced() -> None:
            self._position = self._progress.at(done, attempt_s=time.monotonic() - began_at)
            self._tick()

        coming = chunks()
        while done < rows:
            if self._interrupted():
                return False
            try:
                checkpoint = self._parts.write(coming, interrupted=self._interrupted, done=advanced)
            except StorageFullError:
                if self._interrupted():  # earlier parts are good
                    return False
                raise
            self._metrics = {
                "part": self._parts.count,
                "rows": done,
                "rows_per_second": round((done - first) / (time.monotonic() - began_at), 1),
            }
            self._report(checkpoint)
        return True

    def _report(self, checkpoint: CheckpointRef) -> None:
        self._send(EpochDone(metrics=self._metrics, progress=self._position, checkpoint=checkpoint))

    def _write(self) -> bool:
        """Write the file from the parts; return whether it got to the end."""
        output = self._product.output
        summary = _Summary(self._product.checked)
        with self._blobs.staged(f".{output}") as path:
            if not self._fill(path, summary):
                return False
            key = result_key(self._task.job_id, self._task.attempt, suffix=output)
            stored = self._blobs.commit(path, key)
        result = asdict(stored) | {
            "rows": self._product.head.rows,
            "media_type": OUTPUT_MEDIA_TYPES[output],
            "columns": list(self._product.head.names),
        }
        self._send(Produced(metrics=summary.metrics(scores=self._product.scores), result=result))
        return True

    def _fill(self, path: Path, summary: "_Summary") -> bool:
        head, beside = self._product.head, self._product.beside
        began_at = time.monotonic()
        with path.open("wb") as file:
            writer = WRITERS[self._product.output](head)
            file.write(writer.start())
            for block in self._parts.blocks(head.block_rows):
                if self._interrupted():
                    return False
                start = summary.rows
                summary.add(block)
                first = [] if beside is None else list(beside.read(start, summary.rows).T)
                file.write(self._encoded(writer, [*first, *block.T], start=start))
                self._position = self._progress.written(
                    summary.rows, writing_s=time.monotonic() - began_at
                )
                self._tick()
            file.write(writer.end())
        return True

    def _encoded(self, writer: TableWriter, columns: list[Doubles], *, start: int) -> Encoded:
        typed = self._product.typed
        if typed is None:
            return writer.rows(columns)
        rows = np.column_stack(columns)
        if self._product.head.schema is None:
            return writer.rows(typed.numbers(rows))
        cells, kept = typed.batch(rows), self._product.kept
        return writer.cells(cells if kept is None else kept.fill(cells, start))

    def _tick(self) -> None:
        now = time.monotonic()
        if now - self._ticked_at >= _TICK_S:
            self._ticked_at = now
            self._send(Tick(progress=self._position))


@dataclass
class _Summary:
    """Metrics of a job over its rows; the first `checked` values of each must be finite."""

    checked: int | None
    rows: int = 0
    finite: int = 0
    total: float = 0.0

    def add(self, block: Doubles) -> None:
        """Count some rows."""
        finite = np.isfinite(block[:, : self.checked]).all(axis=1)
        self.rows += len(block)
        self.finite += int(finite.sum())
        self.total += float(block[finite, 0].sum())

    def metrics(self, *, scores: bool) -> dict[str, Any]:
        """Return the metrics of all rows."""
        counts = {"rows": self.rows, "non_finite": self.rows - self.finite}
        if not scores:
            return counts
        return {**counts, "mean_log_prob": self.total / self.finite if self.finite else None}


def _load(task: BulkTask, blobs: Blobs, device: torch.device) -> CompiledFlow:
    model = task.model
    try:
        flow = load_model(blobs, model.key, model.sha256, spec=model.flow, columns=model.columns)
    except BlobDiskError:
        raise
    except BlobError as error:
        raise TrainingError("model_unusable", "The file of the model cannot be used.") from error
    return compile_flow(flow, device=device)


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


def _scores(task: ScoringTask, flow: CompiledFlow, blobs: Blobs, device: torch.device) -> Product:
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
    names = [unused_name(name, beside) for name in scores.names]
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
        width=len(names),
        beside=rows if request.include_rows else None,
        scores=True,
        typed=typed,
        kept=kept,
        checked=scores.checked,
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
        quantiles = task.model.quantiles
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
        if self._quantiles is not None:
            found.append(rank_among(log_prob, self._quantiles))
        if parts is not None:
            found.append(parts)
        if self._request.explain:
            found.append(self._flow.explain(rows))
        return np.column_stack(found)


def _samples(task: SamplingTask, flow: CompiledFlow, device: torch.device) -> Product:
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
        width=len(columns),
        beside=None,
        scores=False,
        typed=typed,
    )


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
