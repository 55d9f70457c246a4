"""Scores without a query: what a model computes and reads is prepared once, not for each request."""

from collections.abc import Awaitable, Callable
from typing import NamedTuple

from starlette.responses import Response

from app.engine.held_out_rows import HeldOutRows
from app.http.exchange import Answer, Exchange
from app.rows.codecs import response_codec
from app.rows.model_types import types_of
from app.rows.shape import RowsShape
from app.scoring.functions import (
    RowFunction,
    log_prob_alone,
    noise_of,
    score_alone,
)
from app.scoring.request import ScoreRequest, max_wait_s, shape_of
from app.scoring.samples import respond_samples
from app.state import AppState
from models_store.records import Version

_MOST_PREPARED = 1000

_FUNCTIONS: dict[str, Callable[[Version], RowFunction]] = {
    "log_prob": lambda _: log_prob_alone("data"),
    "score": lambda version: score_alone(HeldOutRows.of(version)),
    "inverse": lambda version: noise_of(version.columns, "data"),
}


class _Prepared(NamedTuple):
    shape: RowsShape
    function: RowFunction


class ShortWay:
    """Answers to requests for scores, with what they need of each model."""

    def __init__(self) -> None:
        self._prepared: dict[tuple[str, str], _Prepared] = {}

    def scorer(self, name: str) -> Callable[[Exchange, str], Awaitable[Answer]]:
        """Return the function that answers requests for a function of rows, by the reference of their model."""

        async def score(exchange: Exchange, ref: str) -> Answer:
            state: AppState = exchange.state
            codec = response_codec(exchange.listed(b"accept"))
            version = await state.models.resolve(exchange.project, ref)
            key = version.checkpoint_key, name
            prepared = self._prepared.get(key)
            if prepared is None:
                prepared = self._prepare(state, version, name)
            shape, function = prepared
            asked = ScoreRequest(exchange, version, "data", codec, shape, max_wait_s(exchange))
            return await asked.respond(function)

        return score

    def _prepare(self, state: AppState, version: Version, name: str) -> _Prepared:
        columns = [*version.columns, *version.context_columns]
        shape = shape_of(state, version, columns, types=types_of(version))
        prepared = _Prepared(shape, _FUNCTIONS[name](version))
        if len(self._prepared) >= _MOST_PREPARED:
            self._prepared.clear()
        self._prepared[version.checkpoint_key, name] = prepared
        return prepared

    @property
    def scorers(self) -> dict[str, Callable[[Exchange, str], Awaitable[Response]]]:
        """Functions by the templates of their paths."""
        by_rows = {f"/v1/models/{{ref}}/{name}": self.scorer(name) for name in _FUNCTIONS}
        return {**by_rows, "/v1/models/{ref}/sample": _sample}


async def _sample(exchange: Exchange, ref: str) -> Response:
    return await respond_samples(await ScoreRequest.of(exchange, ref, "data"))
