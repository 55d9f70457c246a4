"""Samples, drawn chunk by chunk as the caller takes them."""

import asyncio
import secrets
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing

from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from app.engine.engine import Engine, Terms
from app.http.json_body import read_body, require_json, validate_json
from app.problems.problem import FieldError, Problem
from app.rows.answer_table import AnswerTable, Chunk, Part
from app.rows.context import context_rows
from app.rows.respond import respond_at_once, respond_in_pieces
from app.rows.shape import Floats
from app.scoring.request import ScoreRequest
from app.state import settings_of
from flows import fitting_rows

_CHUNK_VALUES = 32_768
_MIN_CHUNK_ROWS = 16
_MAX_CHUNK_ROWS = 2048


class SampleRequest(BaseModel):
    """How many rows to draw."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    n: int = Field(ge=1, le=2**53, description="Rows.")
    seed: int | None = Field(
        default=None,
        ge=0,
        le=2**63 - 1,
        description="The same seed gives the same rows. Null: the server picks one and tells it.",
    )
    context: list[list[float] | dict[str, float]] | dict[str, float] | None = Field(
        default=None,
        description="Of a conditional model: one row of its context columns for all samples, or a"
        " list of as many rows as samples. Rows are lists in the order of `context_columns`, or"
        " objects keyed by column.",
        examples=[[[0.5, 1.0]]],
    )


class Sampling:
    """One drawing of rows: what was asked for, and the chunks that it is done in.

    Args:
        score: the request.
        n: rows to draw.
        seed: what they follow from.
        context: of a conditional model: one row, or one for each.
    """

    def __init__(self, score: ScoreRequest, *, n: int, seed: int, context: Floats | None) -> None:
        self._score = score
        self._n = n
        self._seed = seed
        self._context = context
        chunk_rows = _CHUNK_VALUES // score.version.dim
        self._chunk_rows = max(_MIN_CHUNK_ROWS, min(_MAX_CHUNK_ROWS, chunk_rows))

    @classmethod
    async def of(cls, score: ScoreRequest) -> "Sampling":
        """Read the body of a request.

        Raises:
            Problem: what is wrong with it.
        """
        settings = settings_of(score.request)
        require_json(score.request)
        body = await read_body(score.request, limit=settings.max_json_bytes)
        wanted = validate_json(SampleRequest, body)
        if wanted.n > settings.max_sample_rows:
            raise Problem(
                "limit-samples",
                f"One request may draw {settings.max_sample_rows} rows.",
                errors=[FieldError("Too many.", pointer="/n")],
                members={"limit": settings.max_sample_rows},
            )
        seed = secrets.randbits(32) if wanted.seed is None else wanted.seed
        context = context_rows(wanted.context, score.version.context_columns, n=wanted.n)
        return cls(score, n=wanted.n, seed=seed, context=context)

    async def answer(self) -> Response:
        """The rows in the wanted format; the first chunk is drawn before the answer begins.

        Raises:
            OverloadedError: the engine has too much to do.
            StoreError: the model cannot be loaded.
        """
        score = self._score
        chunks = self._chunks()
        first = await anext(chunks)
        headers = {**score.headers, "X-Seed": str(self._seed)}
        answer = AnswerTable(
            columns=score.version.columns,
            parts=[Part("rows", 0, first.shape[1])],
            rows=self._n,
            dtype=first.dtype,
            members={"model": score.model, "seed": self._seed, "columns": score.version.columns},
        )
        if len(first) == self._n:
            await chunks.aclose()
            chunk = Chunk.of(first)
            response = respond_at_once(score.request, score.codec, answer, chunk, headers=headers)
            if response is not None:
                return response

        async def rest() -> AsyncGenerator[Chunk, None]:
            yield Chunk.of(first)
            async with aclosing(chunks):
                async for rows in chunks:
                    yield Chunk.of(rows)

        return respond_in_pieces(score.request, score.codec, answer, rest, headers=headers)

    async def _chunks(self) -> AsyncGenerator[Floats, None]:
        """The rows; while the caller takes a chunk, the engine draws the next one."""
        async with self._score.flow() as flow:
            drawing = flow.iter_sample(
                self._n,
                seed=self._seed,
                chunk_rows=fitting_rows(self._chunk_rows, flow.row_bytes),
                context=self._context,
                space=self._score.space,
            )
            pending = asyncio.ensure_future(self._draw(drawing, admitted=False))
            try:
                while (chunk := await pending) is not None:
                    pending = asyncio.ensure_future(self._draw(drawing, admitted=True))
                    yield chunk
            finally:
                pending.cancel()

    async def _draw(self, drawing: Iterator[Floats], *, admitted: bool) -> Floats | None:
        engine: Engine = self._score.request.app.state.engine
        drawn: list[Floats | None] = []

        def draw(_start: int, _stop: int) -> None:
            drawn.append(next(drawing, None))

        terms = Terms(max_wait_s=self._score.max_wait_s, admitted=admitted)
        await engine.run(draw, rows=1, terms=terms)
        return drawn[0]
