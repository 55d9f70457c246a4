"""One request to a model, from its headers to its answer."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any, Literal

from starlette.requests import Request
from starlette.responses import Response

from app.answers import json_answer, npy_answer
from app.dependencies import DEFAULT_PROJECT, settings_of
from app.engine import Engine
from app.json_body import read_body
from app.models_cache import LoadedModels
from app.negotiation import RowFormat, answer_format, request_format
from app.rows import Floats, RowsShape, decode_rows, row_errors
from app.streaming import unless_disconnected
from flows import CompiledFlow
from models_store.registry import Version

Space = Literal["data", "model"]

_INLINE_BYTES = 32 * 1024  # larger bodies are decoded in a thread
_BRIEF_ROWS = 256  # fewer are done before a look whether the caller is still there


@dataclass(frozen=True)
class ScoreRequest:
    """What is asked of which model, and how the answer is to look.

    Args:
        request: the request itself.
        version: what its `ref` stands for.
        space: of the data side: its own units, or as the flow sees it after preprocessing.
        answer_format: of the answer.
    """

    request: Request
    version: Version
    space: Space
    answer_format: RowFormat

    @classmethod
    async def of(cls, request: Request, ref: str, space: Space) -> "ScoreRequest":
        """Read everything but the body.

        Raises:
            Problem: `not-acceptable`.
            NotFoundError: there is no such model.
        """
        wanted = answer_format(request.headers.get("accept"))
        models: LoadedModels = request.app.state.models
        version = await models.resolve(DEFAULT_PROJECT, ref)
        return cls(request, version, space, wanted)

    @property
    def model(self) -> str:
        """The reference that always stands for this version."""
        return f"{self.version.name}:{self.version.version}"

    @property
    def headers(self) -> dict[str, str]:
        """What every answer has."""
        return {"X-Model": self.model}

    def flow(self) -> AbstractAsyncContextManager[CompiledFlow]:
        """The model, in memory as long as the context lasts."""
        models: LoadedModels = self.request.app.state.models
        return models.use(self.version)

    async def rows(self, *, named: bool) -> Floats:
        """The rows in the body.

        Args:
            named: whether rows may be objects keyed by column.

        Raises:
            Problem: what is wrong with them.
        """
        settings = settings_of(self.request)
        row_format = request_format(self.request.headers.get("content-type"))
        is_json = row_format is RowFormat.JSON
        limit = settings.max_json_bytes if is_json else settings.max_score_bytes
        columns = [*self.version.columns, *self.version.context_columns]
        shape = RowsShape(columns, settings.max_score_rows, named=named)
        body = await read_body(self.request, limit=limit)
        if len(body) <= _INLINE_BYTES:
            return decode_rows(body, row_format, shape)
        return await asyncio.to_thread(decode_rows, body, row_format, shape)

    async def compute(
        self, compute: Callable[[int, int], None], rows: Floats, *results: Floats
    ) -> None:
        """Have the engine fill `results` from `rows`, part by part.

        Raises:
            OverloadedError: it has too much to do.
            ClientDisconnect: the caller has left.
        """
        engine: Engine = self.request.app.state.engine
        size_bytes = rows.nbytes + sum(result.nbytes for result in results)
        work = engine.run(compute, rows=len(rows), size_bytes=size_bytes)
        await (work if len(rows) <= _BRIEF_ROWS else self.unless_gone(work))

    async def unless_gone(self, work: Awaitable[None]) -> None:
        """Wait for `work`, which is cancelled when the caller leaves."""
        await unless_disconnected(self.request, work)

    def answer(self, arrays: Mapping[str, Floats], *, rows: Floats, whole: Floats) -> Response:
        """The results in the wanted format.

        Args:
            arrays: the members of the JSON form.
            rows: what they were computed from.
            whole: the npy form.
        """
        if self.answer_format is RowFormat.NPY:
            return npy_answer(whole, headers=self.headers)
        members: dict[str, Any] = {"model": self.model}
        errors = row_errors(rows, whole)
        return json_answer(members, arrays, errors=errors, headers=self.headers)
