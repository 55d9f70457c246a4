"""Work of one bulk job: a dataset scored, or rows drawn, into one file.

As with training, it may be killed at any moment and started again; the file that comes out is the
same byte for byte on the same kind of CPU and number of threads. Rows are computed in steps whose
bounds depend on the request alone, kept in parts, and at the end written in the wanted format.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from flows import compile_flow
from models_store.counts import Counts, added
from models_store.errors import StorageFullError
from models_store.files.blobs import Blobs, result_key
from models_store.least_rows import LeastRows
from models_store.requests.bulk import AcceptedBulk
from tabular.writers import (
    OUTPUT_MEDIA_TYPES,
    WRITERS,
    Encoded,
    TableWriter,
    text_places,
)
from workers.protocol import (
    BulkTask,
    ImputationTask,
    Produced,
    ScoringTask,
    Send,
)
from workers.trainer.data import load_flow
from workers.trainer.devices import find_device
from workers.trainer.parts import ChildParts, Doubles, Parts
from workers.trainer.products import Product, imputed_of, part_of, samples_of, scores_of
from workers.trainer.progress import RowProgress, Teller

# Seconds to write a number, to tell before it begins how long it will take.
_WRITE_S = {"npy": 3e-8, "parquet": 7e-8, "csv": 2.5e-7}


def produce(task: BulkTask, send: Send, *, interrupted: Callable[[], bool]) -> None:
    """Make and store the file that `task` asks for.

    The last message is `Produced`, or `Interrupted` once `interrupted()` is true.

    Raises:
        TrainingError: The job cannot succeed.
        StorageFullError: A part or the file could not be written.
    """
    torch.set_num_threads(task.threads)
    device = find_device(task.device)
    blobs = Blobs(task.store)
    flow = compile_flow(load_flow(blobs, task.model, task.model.columns), device=device)
    accepted = AcceptedBulk.model_validate(task.request)
    match task:
        case ScoringTask():
            product = scores_of(task, flow, blobs, device)
        case ImputationTask():
            product = imputed_of(task, flow, blobs, device)
        case _:
            product = samples_of(task, flow, device)
    if accepted.span is not None:
        product = part_of(product, *accepted.span)
    teller, width = Teller(task, send, interrupted), len(product.computed)
    parts: Parts | ChildParts = Parts(task, blobs, teller, width=width)
    if accepted.pieces is not None:
        parts = ChildParts(accepted.pieces, blobs, teller, width=width)
    parts.resume()
    run = _Run(task, product, parts, blobs=blobs, teller=teller)
    is_computed = isinstance(parts, ChildParts) or run.compute(parts)
    if not (is_computed and run.write()):
        teller.stop()


class _Run:
    """Run of a bulk job: the computation of its parts, and its file."""

    def __init__(
        self,
        task: BulkTask,
        product: Product,
        parts: Parts | ChildParts,
        *,
        blobs: Blobs,
        teller: Teller,
    ) -> None:
        self._task = task
        self._product = product
        self._parts = parts
        self._blobs = blobs
        self._teller = teller
        head = product.head
        self._progress = RowProgress(
            rows=head.rows,
            first=parts.rows if isinstance(parts, Parts) else head.rows,
            write_s=head.rows * len(head.names) * _WRITE_S[product.output],
        )

    def compute(self, parts: Parts) -> bool:
        """Compute every missing part; return whether it got to the end."""
        rows, done, teller = self._product.head.rows, parts.rows, self._teller
        first, began_at = done, time.monotonic()
        teller.position = self._progress.at(done, attempt_s=0.0)

        def chunks() -> Iterator[Doubles]:
            nonlocal done
            for chunk in self._product.chunks(first):
                done += len(chunk)
                yield chunk

        def advanced() -> None:
            teller.tick(self._progress.at(done, attempt_s=time.monotonic() - began_at))

        coming = chunks()
        while done < rows:
            if teller.interrupted():
                return False
            try:
                checkpoint = parts.write(coming, advanced)
            except StorageFullError:
                if teller.interrupted():  # earlier parts are good
                    return False
                raise
            teller.metrics = {
                "part": parts.count,
                "rows": done,
                "rows_per_second": round((done - first) / (time.monotonic() - began_at), 1),
            }
            teller.report(checkpoint)
        return True

    def write(self) -> bool:
        """Write the file from the parts; return whether it got to the end."""
        product, output = self._product, self._product.output
        usual = None if product.usual is None else product.usual(self._teller.tick)
        summary = _Summary(product.checked)
        model = self._task.model
        least = LeastRows(model.quantiles, model.held_out_rows) if product.scores else None
        with self._blobs.staged(f".{output}") as path:
            if not self._fill(path, summary, least, usual):
                return False
            key = result_key(self._task.job_id, self._task.attempt, suffix=output)
            stored = self._blobs.commit(path, key)
        result = asdict(stored) | {
            "rows": product.head.rows,
            "media_type": OUTPUT_MEDIA_TYPES[output],
            "columns": list(product.head.names),
        }
        if output == "csv":
            schema = product.head.schema
            result["texts"] = [] if schema is None else text_places(schema)
        if least is not None:
            result["unusual"] = least.to_dict()
        metrics = summary.metrics(scores=product.scores)
        if product.flag is not None:
            metrics[product.flag] = summary.flagged
        if usual is not None:
            known = [None if np.isnan(term) else term for term in usual.tolist()]
            metrics["explained"] = product.explained
            metrics["usual"] = dict(zip(product.explained, known, strict=True))
        self._teller.send(Produced(metrics=metrics, result=result, counts=summary.counts))
        return True

    def _fill(
        self, path: Path, summary: "_Summary", least: LeastRows | None, usual: Doubles | None
    ) -> bool:
        head, beside = self._product.head, self._product.beside
        began_at = time.monotonic()
        with path.open("wb") as file:
            writer = WRITERS[self._product.output](head)
            file.write(writer.start())
            for block in self._parts.blocks(head.block_rows):
                if self._teller.interrupted():
                    return False
                self._blobs.check_room()
                start = summary.rows
                summary.add(block)
                if least is not None:
                    least.add(block[:, 0])
                if self._product.count is not None:
                    counts = self._product.count(start, block, usual)
                    summary.counts = added(summary.counts or {}, counts)
                written = list(block.T)
                if self._product.flag is not None:
                    summary.flagged += int(written.pop().sum())
                first = [] if beside is None else list(beside[start : summary.rows].T)
                last = [] if usual is None else list((block[:, -len(usual) :] - usual).T)
                for encoded in self._encoded(writer, [*first, *written, *last], start=start):
                    file.write(encoded)
                writing_s = time.monotonic() - began_at
                self._teller.tick(self._progress.written(summary.rows, writing_s=writing_s))
            file.write(writer.end())
        return True

    def _encoded(
        self, writer: TableWriter, columns: list[Doubles], *, start: int
    ) -> Iterator[Encoded]:
        typed, kept = self._product.typed, self._product.kept
        if typed is None:
            yield writer.rows(columns)
            return
        rows = np.column_stack(columns)
        if self._product.head.schema is None:
            yield writer.rows(typed.numbers(rows))
        elif kept is None:
            yield writer.cells(typed.batch(rows))
        else:
            for piece in kept.pieces(range(start, start + len(rows))):
                cells = typed.batch(rows[piece.start - start : piece.stop - start])
                yield writer.cells(kept.fill(cells, piece))


@dataclass
class _Summary:
    """Metrics of a job over its rows; the first `checked` values of each must be finite."""

    checked: int | None
    rows: int = 0
    finite: int = 0
    total: float = 0.0
    counts: Counts | None = None
    flagged: int = 0

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
