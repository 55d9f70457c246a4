"""Tables that bulk jobs make: scores of a dataset, samples, and a dataset without gaps."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray

from flows import CompiledFlow, fitting_rows, rank_among
from flows.compiled.answers import impute
from flows.compiled.questions import Questions
from flows.errors import FlowError
from models_store.counts import Counts
from models_store.drift import (
    SAMPLED_ROWS,
    ColumnBins,
    count_ranks,
    count_reasons,
    reference_count,
)
from models_store.errors import BlobDiskError, BlobError
from models_store.files.blobs import Blobs
from models_store.reference_rows import (
    draw_reference_rows,
    read_reference_rows,
    usual_count,
    usual_terms,
)
from models_store.requests.bulk import AcceptedImputation, AcceptedSampling, AcceptedScoring
from tabular.cells import recode
from tabular.columns import Column
from tabular.errors import TableError
from tabular.formats import Output
from tabular.kept_cells import KeptCells
from tabular.typed_rows import TypedRows, encode_rows
from tabular.writers import TableHead, unused_name
from workers.errors import TrainingError
from workers.protocol import ImputationTask, ModelRef, SamplingTask, ScoringTask
from workers.trainer.data import Floats, needed, open_table
from workers.trainer.parts import Doubles

_STEP_VALUES = 2**20
_USUAL_ROWS = 16  # of a step
CPU_STEP_ROWS = 4_096
"""Most rows of a step on a processor."""
_GPU_STEP_ROWS, _LEAST_STEP_ROWS = 16_384, 256
# A flow computes a step in chunks of its own; of a large flow fewer rows are a step.
_CHUNKS_OF_A_STEP = 16
_IMPUTED_PASSES = 4


@dataclass(frozen=True)
class Product:
    """Table that a bulk job makes.

    Args:
        chunks: Function that computes the rows from one on, in chunks.
        computed: Names of the computed columns, which stand behind `beside`.
        beside: First columns of the table, which are there already.
        scores: True if the first of the computed columns is a log density.
        typed: Converter of the first columns to cells; None: the table holds numbers.
        kept: Cells of those of the first columns that are not modelled.
        checked: Number of the computed columns that must be finite, the first ones; None: those that
            hold cells may have gaps.
        usual: Function that returns the usual explanations, and calls its argument now and then: explanations
            are the last computed columns, and their differences from these the last columns of the table.
        explained: How each column is explained.
        count: Function that counts rows of ranked scores: of the number of the first one, what was computed,
            and the usual explanations.
        flag: Name of the metric that counts the last of the computed columns, which is not written.
    """

    head: TableHead
    output: Output
    chunks: Callable[[int], Iterator[Doubles]]
    computed: Sequence[str]
    beside: Floats | None = None
    scores: bool = False
    typed: TypedRows | None = None
    kept: KeptCells | None = None
    checked: int | None = None
    usual: Callable[[Callable[[], None]], Doubles] | None = None
    explained: dict[str, str] = field(default_factory=dict)
    count: Callable[[int, Doubles, Doubles | None], Counts] | None = None
    flag: str | None = None


def scores_of(task: ScoringTask, flow: CompiledFlow, blobs: Blobs, device: torch.device) -> Product:
    """Return the table of the scores of a dataset.

    Raises:
        TrainingError: A file of the dataset is gone or was changed.
    """
    request, model = AcceptedScoring.model_validate(task.request), task.model
    table = open_table(blobs, task.dataset)
    number = _numbering(task, request.columns)
    names = ["log_prob"] if model.quantiles is None else ["log_prob", "quantile"]
    checked, passes = len(names), 1
    if request.parts:
        names += ["discrete", "continuous"]
    if request.explain:
        names += [f"explanation.{name}" for name in model.columns]
        passes += len(model.columns)
    step = _step_rows(len(request.columns), flow, device, passes=passes)

    def chunks(first: int) -> Iterator[Doubles]:
        for start in range(first, len(table), step):
            yield _scores(number(table[start : start + step]), flow, model, request)

    types: list[Column] = []
    kept: KeptCells | None = None
    if request.include_rows:
        types, kept = _written_columns(task, blobs, request.output)
    beside = [column.name for column in types]
    written = computed = [unused_name(name, beside) for name in names]
    if request.explain:
        differences = (f"difference.{name}" for name in model.columns)
        written = [*computed, *(unused_name(name, beside) for name in differences)]
    typed = None if all(column.is_plain for column in types) else TypedRows(types, written)
    return Product(
        head=TableHead(
            names=[*beside, *written],
            dtypes=[table.dtype] * len(beside) + [np.dtype(np.float64)] * len(written),
            rows=len(table),
            schema=None if typed is None or request.output == "npy" else typed.schema,
        ),
        output=request.output,
        chunks=chunks,
        computed=computed,
        beside=table if request.include_rows else None,
        scores=True,
        typed=typed,
        kept=kept,
        checked=checked,
        explained=dict(zip(model.columns, flow.explained_kinds, strict=True)),
        usual=partial(_usual_terms, task, flow, blobs) if request.explain else None,
        count=None if model.quantiles is None else _counting(task, blobs, table, number),
    )


def _counting(
    task: ScoringTask, blobs: Blobs, table: Floats, number: Callable[[Floats], Floats]
) -> Callable[[int, Doubles, Doubles | None], Counts]:
    """Return the function that counts scored rows of a table, as requests for scores are counted."""
    columns = AcceptedScoring.model_validate(task.request).columns
    reference = _reference_rows(task, blobs, reference_count(len(columns)))
    bins = None if reference is None else ColumnBins.of(columns, reference)

    def count(first: int, computed: Doubles, usual: Doubles | None) -> Counts:
        ranks = computed[:, 1]
        counts = count_ranks(ranks)
        if bins is not None:
            step = -(-len(computed) // SAMPLED_ROWS)
            counts["columns"] = bins.count(number(table[first : first + len(computed) : step]))
        if usual is not None:
            differences = computed[:, -len(usual) :] - usual
            counts["reasons"] = count_reasons(ranks, differences, task.model.columns)
        return counts

    return count


def samples_of(task: SamplingTask, flow: CompiledFlow, device: torch.device) -> Product:
    """Return the table of the samples that a sampling job draws."""
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
        typed=typed,
    )


def imputed_of(
    task: ImputationTask, flow: CompiledFlow, blobs: Blobs, device: torch.device
) -> Product:
    """Return a dataset whose gaps are filled: its columns, then those that it lacks, then the intervals.

    Raises:
        TrainingError: The model has no such answers, or a file of the dataset is gone or was changed.
    """
    request, names = AcceptedImputation.model_validate(task.request), task.model.columns
    try:
        asks = Questions(flow)
    except FlowError as error:
        raise TrainingError(
            "question_unavailable", f"{error}: train it again".capitalize()
        ) from error
    table, number = open_table(blobs, task.dataset), _numbering(task, request.given)
    places = [names.index(name) for name in request.given]
    own = task.dataset.columns
    cells = [*own, *(name for name in names if name not in own)]
    ends = [] if request.level is None else ["low", "high"]
    intervals: list[str] = []
    for name in (f"{end}.{name}" for end in ends for name in names):
        intervals.append(unused_name(name, [*cells, *intervals]))
    step = _step_rows(len(cells), flow, device, passes=_IMPUTED_PASSES)

    def chunks(first: int) -> Iterator[Doubles]:
        for start in range(first, len(table), step):
            rows = table[start : start + step]
            whole: Doubles = np.full((len(rows), flow.dim), np.nan)
            whole[:, places] = number(rows)
            found = impute(
                asks,
                whole,
                fill=request.fill,
                level=request.level or 0.5,
                seed=request.seed,
                numbers=np.arange(start, start + len(rows)),
            )
            filled = dict(zip(names, found.rows.T, strict=True))
            columns = [
                filled[name] if name in filled else rows[:, own.index(name)] for name in cells
            ]
            beside = (found.low, found.high) if intervals else ()
            yield np.column_stack([*columns, *beside, found.uncertain])

    types, kept = _filled_columns(task, blobs, request)
    # As columns of numbers, intervals are null where nothing was filled.
    typed_columns = [*types, *(Column(name=name) for name in intervals)]
    typed = None if all(column.is_plain for column in types) else TypedRows(typed_columns)
    written = [column.name for column in typed_columns]
    dtypes = [table.dtype] * len(types) + [np.dtype(np.float64)] * len(intervals)
    schema = None if typed is None or request.output == "npy" else typed.schema
    return Product(
        head=TableHead(names=written, dtypes=dtypes, rows=len(table), schema=schema),
        output=request.output,
        chunks=chunks,
        computed=[*cells, *intervals, "uncertain"],
        typed=typed,
        kept=kept,
        checked=0,
        flag="uncertain_rows",
    )


def _filled_columns(
    task: ImputationTask, blobs: Blobs, request: AcceptedImputation
) -> tuple[list[Column], KeptCells | None]:
    """Return the columns of a dataset without gaps, and the cells of its file.

    Numbers are written as those of the dataset are, levels as the model knows them.
    """
    modelled = {c.name: c for c in map(Column.from_dict, task.model.types or [])}
    own, kept = _written_columns(task, blobs, request.output, filled=request.given)
    types = []
    for column in own:
        target = modelled.pop(column.name, column)
        same = column.holds_values and target.holds_values and column.type == target.type
        types.append(column if same and column.name in request.given else target)
    lacking = [name for name in task.model.columns if name not in {c.name for c in own}]
    return [*types, *(modelled.get(name, Column(name=name)) for name in lacking)], kept


def part_of(product: Product, first: int, stop: int) -> Product:
    """Return the computed columns of some rows, as numbers, for the job that writes the whole."""

    def chunks(done: int) -> Iterator[Doubles]:
        left = stop - first - done
        for chunk in product.chunks(first + done):
            yield chunk[:left]
            left -= len(chunk)
            if left <= 0:
                return

    dtypes = [np.dtype(np.float64)] * len(product.computed)
    return Product(
        head=TableHead(names=product.computed, dtypes=dtypes, rows=stop - first),
        output="npy",
        chunks=chunks,
        computed=product.computed,
        scores=product.scores,
        checked=product.checked,
    )


def _numbering(
    task: ScoringTask | ImputationTask, columns: Sequence[str]
) -> Callable[[Floats], Floats]:
    """Return the function that makes rows of a dataset those of the model, whose levels may have other indices."""
    wanted = [task.dataset.columns.index(name) for name in columns]
    if task.model.types is None:
        return lambda rows: rows[:, wanted]
    own = task.dataset.column_types
    source = [own[place] for place in wanted]
    target = [c for c in map(Column.from_dict, task.model.types) if c.name in columns]

    def numbered(rows: Floats) -> Floats:
        try:
            return recode(rows[:, wanted], source, target)
        except TableError as error:
            raise TrainingError("dataset_types", error.detail) from error

    return numbered


def _scores(rows: Floats, flow: CompiledFlow, model: ModelRef, request: AcceptedScoring) -> Doubles:
    """Return the numbers that rows are scored by."""
    parts = flow.log_prob_parts(rows) if request.parts else None
    log_prob = flow.log_prob(rows) if parts is None else parts.sum(axis=1)
    found = [log_prob]
    if model.quantiles is not None and model.held_out_rows is not None:
        quantiles = np.array(model.quantiles)
        found.append(rank_among(log_prob, quantiles, rows=model.held_out_rows))
    if parts is not None:
        found.append(parts)
    if request.explain:
        found.append(flow.explain(rows))
    return np.column_stack(found)


def _usual_terms(
    task: ScoringTask, flow: CompiledFlow, blobs: Blobs, alive: Callable[[], None]
) -> Doubles:
    """Return medians of the terms of each column over rows of the model's dataset, or over samples."""
    count = usual_count(flow)
    rows = _reference_rows(task, blobs, count)
    chunks: Iterable[Floats] = [] if rows is None else [rows]
    if rows is None and not flow.context_dim:
        chunks = draw_reference_rows(flow, count)
    explanations: list[Doubles] = [np.empty((0, flow.dim))]
    for chunk in chunks:
        for start in range(0, len(chunk), _USUAL_ROWS):
            explanations.append(flow.explain(chunk[start : start + _USUAL_ROWS]))
            alive()
    return usual_terms(np.concatenate(explanations))


def _reference_rows(task: ScoringTask, blobs: Blobs, count: int) -> Floats | None:
    """Return rows of the model's dataset; None if it is gone, or has other types by now."""
    reference, types = task.reference, task.model.types
    if reference is None or types is None:
        return None
    try:
        path = blobs.verify(reference.key, reference.sha256)
    except BlobDiskError:
        raise
    except BlobError:
        return None  # a score does not depend on the dataset
    target = [Column.from_dict(fields) for fields in types]
    return read_reference_rows(path, reference.column_types, target, count)


def _written_columns(
    task: ScoringTask | ImputationTask,
    blobs: Blobs,
    output: Output,
    *,
    filled: Sequence[str] | None = None,
) -> tuple[list[Column], KeptCells | None]:
    """Return the columns of a dataset to write, and the cells of those that are not modelled.

    npy holds numbers alone: the columns that are modelled.

    Args:
        task: Task with the dataset.
        blobs: Blob store.
        output: Format of the file.
        filled: Columns whose gaps are filled, others of the model have no cells of the file; None: no gap is.

    Raises:
        TrainingError: The file of the cells is gone or was changed.
    """
    kept = task.dataset.kept
    if kept is None or output == "npy":
        return task.dataset.column_types, None
    with needed("dataset_corrupt", f"The kept cells of dataset {task.dataset.id} cannot be read."):
        path = blobs.verify(kept.key, kept.sha256)
    columns = [Column.from_dict(fields) for fields in kept.types]
    if filled is None:
        return columns, KeptCells(path, columns)
    unknown = {*task.model.columns} - {*filled}
    sources = [Column(name=c.name) if c.name in unknown else c for c in columns]
    return columns, KeptCells(path, sources, filled=True)


def _context(
    request: AcceptedSampling, types: Sequence[Column] | None, *, dim: int
) -> NDArray[np.float64] | None:
    """Return the context of a request as numbers."""
    if request.context is None:
        return None
    if types is None:
        return np.array(request.context, np.float64)
    return encode_rows(request.context, types[dim:])


def _step_rows(columns: int, flow: CompiledFlow, device: torch.device, *, passes: int = 1) -> int:
    """Return the rows of a step: whole chunks of the flow, within bounds of memory and time."""
    most = CPU_STEP_ROWS if device.type == "cpu" else _GPU_STEP_ROWS
    rows = _STEP_VALUES // columns // _LEAST_STEP_ROWS * _LEAST_STEP_ROWS
    rows = max(_LEAST_STEP_ROWS, min(most, rows))
    rows = fitting_rows(rows, flow.row_bytes // _CHUNKS_OF_A_STEP, multiple=64)
    return max(1, rows // passes)
