"""Samples, drawn chunk by chunk as the caller reads them."""

import asyncio
import secrets
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from app.http.json_body import read_json
from app.limits import in_thread
from app.problems.problem import FieldError, Problem
from app.rows.codecs import ROWS_VARY
from app.rows.context import context_cells, context_rows
from app.rows.encode import Chunk, Part, ResponseTable
from app.rows.model_types import ModelTypes, Roundings, known_types_of
from app.rows.shape import Floats
from app.scoring.questions import Condition, Known, questions_of
from app.scoring.request import ScoreRequest
from flows import CompiledFlow, fitting_rows, turn_rows
from flows.compiled.conditions import GIVEN_ROWS
from models_store.process.traces import TRACES
from models_store.records import Version
from models_store.requests.bulk import CONTEXT_DESCRIPTION, ContextCell, ContextRow
from tabular.formats import TableFormat

_CHUNK_VALUES = 32_768
_MIN_CHUNK_ROWS = 16
_MAX_CHUNK_ROWS = 2048


class SampleRequest(BaseModel):
    """Samples to draw."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    n: int = Field(ge=1, le=2**53, description="Number of rows to draw.")
    seed: int | None = Field(
        default=None,
        ge=0,
        le=2**63 - 1,
        description="Seed; the same seed gives the same rows. Null: the server chooses one, which is in the"
        " response.",
    )
    context: Annotated[list[ContextRow], Field(fail_fast=True)] | dict[str, ContextCell] | None = (
        Field(default=None, description=CONTEXT_DESCRIPTION, examples=[[[0.5, 1.0]]])
    )
    given: dict[str, Condition] | None = Field(
        default=None,
        max_length=10_000,
        description='Cells that all rows have, by column: a value, `{"in": [values]}`, or'
        ' `{"between": [low, high]}` with null for no bound. The others are drawn given these.',
        examples=[{"region": "North", "age": {"between": [30, 40]}}],
    )


@dataclass(frozen=True)
class Drawing:
    """Samples that are asked for.

    Args:
        seed: Seed of the random numbers.
        context: Context of a conditional model: one row, or one for each sample.
        known: Known cells and conditions of others; None: there are none.
    """

    score: ScoreRequest
    n: int
    seed: int
    context: Floats | None
    known: Known | None = None

    async def chunks(self) -> AsyncGenerator[Floats, None]:
        """Yield the rows, each chunk as one turn of the engine."""
        score, engine = self.score, self.score.state.engine
        chunk_rows = _CHUNK_VALUES // score.version.dim
        async with score.flow() as flow:
            step = max(_MIN_CHUNK_ROWS, min(_MAX_CHUNK_ROWS, chunk_rows))
            step = fitting_rows(turn_rows(step, flow.operations.sampling), flow.row_bytes)
            step = step if self.known is None else GIVEN_ROWS
            drawing = self._rows(flow, step)
            drawn: list[Floats] = []
            for start in range(0, self.n, step):
                with TRACES.span("engine"):
                    await engine.run(
                        lambda: drawn.append(next(drawing)),
                        admitted=start > 0,
                        max_wait_s=score.max_wait_s,
                    )
                rows = drawn.pop()
                score.state.tallies.add_rows(score.exchange.project, len(rows))
                yield rows

    def _rows(self, flow: CompiledFlow, step: int) -> Iterator[Floats]:
        """Yield the rows, so many at a time."""
        if self.known is None:
            return flow.iter_sample(
                self.n,
                seed=self.seed,
                chunk_rows=step,
                context=self.context,
                space=self.score.space,
            )
        from flows.compiled.answers import sample_given  # noqa: PLC0415  it loads PyTorch

        asks, known = questions_of(flow), self.known
        return sample_given(asks, self.n, known.row, known.within, seed=self.seed)


async def respond_samples(score: ScoreRequest) -> Response:
    """Respond with samples; many are drawn as the caller reads them, the first chunk before the response begins.

    Args:
        score: Request, whose body is not read yet.

    Raises:
        Problem: The body is not valid.
        OverloadedError: The engine has too much to do.
        StoreError: The model cannot be loaded.
    """
    drawing = await _read(score)
    columns, types = score.version.columns, _types(score)
    typed = None if types is None else await in_thread(lambda: types.samples)
    as_texts = typed is not None and typed.has_marks and score.codec.format is TableFormat.CSV
    are_numbers = typed is None or (typed.are_floats and not as_texts)
    roundings = _roundings(score) if types is None else None
    table = ResponseTable(
        columns=columns,
        parts=[Part("rows", 0, len(columns))],
        rows=drawing.n,
        dtype=np.dtype(np.float64),
        members={"model": score.version.ref, "seed": drawing.seed, "columns": columns},
        typed=None if are_numbers else typed,
        drops_zeros=roundings is not None and roundings.some_whole,
    )

    def chunk(rows: Floats) -> Chunk:
        if typed is not None and are_numbers:
            return Chunk.of(typed.numbers(rows))
        if roundings is not None:
            rows = roundings.apply(rows)
        return Chunk.of(rows) if types is None else Chunk.of_samples(rows, types)

    async def chunks() -> AsyncGenerator[Chunk, None]:
        async with aclosing(_ahead(drawing.chunks())) as drawn:
            async for rows in drawn:
                yield chunk(rows)

    headers = [
        *ROWS_VARY,
        (b"x-model", score.version.ref.encode()),
        (b"x-seed", b"%d" % drawing.seed),
    ]
    return await score.codec.stream(table, chunks(), headers=headers)


async def _ahead(items: AsyncGenerator[Floats, None]) -> AsyncGenerator[Floats, None]:
    """Yield the same items; the next one is drawn while one is written."""
    pending = asyncio.ensure_future(anext(items, None))
    try:
        while (item := await pending) is not None:
            pending = asyncio.ensure_future(anext(items, None))
            yield item
    finally:
        pending.cancel()
        await asyncio.wait({pending})  # a generator is closed only once it does not run
        await items.aclose()


def _types(score: ScoreRequest) -> ModelTypes | None:
    """Return the types that samples are written in; plain numbers have some in text with decimal commas."""
    if score.space != "data":
        return None
    known = known_types_of(score.version)
    is_text = score.codec.format is TableFormat.CSV
    if known is not None and is_text and any(column.decimal != "." for column in known.columns):
        return known
    return score.types


def _roundings(score: ScoreRequest) -> Roundings | None:
    """Return how samples of plain numbers are rounded in text; formats of numbers hold all digits."""
    known = known_types_of(score.version)
    if known is None or not known.are_plain or score.space != "data" or not score.codec.text:
        return None
    return known.roundings


async def _read(score: ScoreRequest) -> Drawing:
    """Read the body of a request for samples."""
    settings = score.state.settings
    wanted = await read_json(score.exchange, SampleRequest)
    if wanted.n > settings.max_sample_rows:
        raise Problem(
            "limit-samples",
            f"One request may draw at most {settings.max_sample_rows:,} rows; a sampling job draws more.",
            errors=[FieldError("Too many.", pointer="/n")],
            members={"limit": settings.max_sample_rows},
        )
    seed = secrets.randbits(32) if wanted.seed is None else wanted.seed
    context = None
    if wanted.context is not None or score.version.context_columns:
        context = await in_thread(_context, wanted, score.version)
    known = None
    if wanted.given:
        if score.space == "model" or score.version.context_columns:
            raise Problem("question-unavailable")
        known = await in_thread(Known, score.version, wanted.given)
    return Drawing(score, wanted.n, seed, context, known)


def _context(wanted: SampleRequest, version: Version) -> Floats | None:
    cells = context_cells(wanted.context, version.context_columns, n=wanted.n)
    return context_rows(cells, version)
