"""Samples, drawn chunk by chunk as the caller reads them."""

import secrets
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Annotated, Any

import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import InitErrorDetails
from starlette.responses import Response

from app.engine.engine import Terms
from app.fairness.turns import in_thread
from app.http.json_body import read_json
from app.http.streaming import ahead
from app.problems.problem import FieldError, Problem
from app.rows.context import context_cells, context_rows
from app.rows.model_types import ModelTypes, known_types_of
from app.rows.respond import respond_streamed, respond_whole
from app.rows.response_table import Chunk, Part, ResponseTable
from app.rows.roundings import Roundings
from app.rows.shape import Floats
from app.scoring.request import ScoreRequest
from flows import fitting_rows, turn_rows
from models_store.process.traces import TRACES
from models_store.records import Version
from models_store.requests.bulk import CONTEXT_DESCRIPTION, ContextCell, ContextRow
from tables.formats import TableFormat

_CHUNK_VALUES = 32_768
_MIN_CHUNK_ROWS = 16
_MAX_CHUNK_ROWS = 2048
_MAX_ROW = 10_000  # values of a row of a context; models have far fewer columns
_PART_VALUES, _LEAST_ROWS = 4_000, 4  # of a context that are validated at once


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


def validate_request(document: dict[str, Any]) -> SampleRequest:
    """Validate a parsed request, of its context some rows at a time.

    Raises:
        Problem: A row of the context has more values than any.
        ValidationError: As of the whole.
        orjson.JSONEncodeError: It is nested too deeply.
    """
    context = document.get("context")
    rows = context if isinstance(context, list) else [context]
    longest = max((len(row) for row in rows if isinstance(row, list | dict)), default=0)
    if longest > _MAX_ROW:
        detail = f"A row of `context` has {longest} values; at most {_MAX_ROW} are allowed."
        raise Problem("validation", detail, errors=[FieldError(detail, pointer="/context")])
    # No other member may be a list or an object, so that nothing in one is looked at.
    fields = {
        name: type(value)() if isinstance(value, list | dict) else value
        for name, value in document.items()
        if name != "context"
    }
    if not isinstance(context, list):
        text = orjson.dumps(fields | {"context": context})
        return SampleRequest.model_validate_json(text, strict=True)
    whole, found = None, []
    faults: list[InitErrorDetails] = []
    try:
        whole = SampleRequest.model_validate_json(orjson.dumps(fields), strict=True)
    except ValidationError as error:
        faults += _details(error, 0)
    step = max(_PART_VALUES // (longest + 1), _LEAST_ROWS)
    for start in range(0, len(rows), step):
        part = orjson.dumps({"n": 1, "context": rows[start : start + step]})
        try:
            found.append(SampleRequest.model_validate_json(part, strict=True).context)
        except ValidationError as error:
            faults += _details(error, start)
            break
    if whole is None or faults:
        raise ValidationError.from_exception_data(SampleRequest.__name__, faults)
    return whole.model_copy(update={"context": [row for part in found for row in part or ()]})


def _details(error: ValidationError, start: int) -> list[InitErrorDetails]:
    """Return the faults of a part of the context, as those of the whole, of which `start` rows come before."""
    details = []
    for fault in error.errors(include_url=False):
        steps = list(fault["loc"])
        places = [at for at, step in enumerate(steps) if isinstance(step, int)]
        if places:
            steps[places[0]] = start + int(steps[places[0]])
        details.append(
            InitErrorDetails(
                type=fault["type"],
                loc=tuple(steps),
                input=fault["input"],
                ctx=fault.get("ctx", {}),
            )
        )
    return details


@dataclass(frozen=True)
class Drawing:
    """Samples that are asked for.

    Args:
        score: Request to the model.
        n: Number of rows.
        seed: Seed of the random numbers.
        context: Context of a conditional model: one row, or one for each sample.
    """

    score: ScoreRequest
    n: int
    seed: int
    context: Floats | None

    async def chunks(self) -> AsyncGenerator[Floats, None]:
        """Yield the rows, each chunk as one turn of the engine."""
        score = self.score
        chunk_rows = _CHUNK_VALUES // score.version.dim
        async with score.flow() as flow:
            step = max(_MIN_CHUNK_ROWS, min(_MAX_CHUNK_ROWS, chunk_rows))
            step = fitting_rows(turn_rows(step, flow.operations.sampling), flow.row_bytes)
            drawing = flow.iter_sample(
                self.n, seed=self.seed, chunk_rows=step, context=self.context, space=score.space
            )
            for start in range(0, self.n, step):
                yield await self._draw(drawing, admitted=start > 0)

    async def _draw(self, drawing: Iterator[Floats], *, admitted: bool) -> Floats:
        drawn: list[Floats] = []
        terms = Terms(max_wait_s=self.score.max_wait_s, admitted=admitted)
        with TRACES.span("engine"):
            await self.score.state.engine.run(
                lambda *_: drawn.append(next(drawing)), rows=1, terms=terms
            )
        self.score.state.tallies.add_rows(len(drawn[0]))
        return drawn[0]


async def respond_samples(score: ScoreRequest) -> Response:
    """Respond with samples; the first chunk is drawn before the response begins.

    Args:
        score: Request, whose body is not read yet.

    Raises:
        Problem: The body is not valid.
        OverloadedError: The engine has too much to do.
        StoreError: The model cannot be loaded.
    """
    drawing = await _read(score)
    chunks = ahead(drawing.chunks())
    first = await anext(chunks)
    headers = {**score.headers, "X-Seed": str(drawing.seed)}
    columns = score.version.columns
    types = _types(score)
    typed = None if types is None else await in_thread(lambda: types.samples)
    as_texts = typed is not None and typed.formats and score.codec.format is TableFormat.CSV
    are_numbers = typed is None or (typed.are_floats and not as_texts)
    roundings = _roundings(score) if types is None else None
    table = ResponseTable(
        columns=columns,
        parts=[Part("rows", 0, first.shape[1])],
        rows=drawing.n,
        dtype=first.dtype,
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

    if len(first) == drawing.n:
        await chunks.aclose()
        return respond_whole(score.request, score.codec, table, chunk(first), headers=headers)

    async def all_chunks() -> AsyncGenerator[Chunk, None]:
        yield chunk(first)
        async with aclosing(chunks):
            async for rows in chunks:
                yield chunk(rows)

    return respond_streamed(score.request, score.codec, table, all_chunks, headers=headers)


def _types(score: ScoreRequest) -> ModelTypes | None:
    """Return the types that samples are written in; plain numbers have some in text that shows zeros at the end."""
    if score.space != "data":
        return None
    known = known_types_of(score.version)
    is_text = score.codec.format is TableFormat.CSV
    if known is not None and is_text and any(column.number_format for column in known.columns):
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
    wanted = await read_json(score.request, SampleRequest, by_parts=validate_request)
    if wanted.n > settings.max_sample_rows:
        raise Problem(
            "limit-samples",
            f"One request may draw at most {settings.max_sample_rows:,} rows; a sampling job draws more.",
            errors=[FieldError("Too many.", pointer="/n")],
            members={"limit": settings.max_sample_rows},
        )
    seed = secrets.randbits(32) if wanted.seed is None else wanted.seed
    rows = len(wanted.context) if isinstance(wanted.context, list) else 1
    if rows * len(score.version.context_columns) <= _PART_VALUES:
        return Drawing(score, wanted.n, seed, _context(wanted, score.version))
    return Drawing(score, wanted.n, seed, await in_thread(_context, wanted, score.version))


def _context(wanted: SampleRequest, version: Version) -> Floats | None:
    cells = context_cells(wanted.context, version.context_columns, n=wanted.n)
    return context_rows(cells, version)
