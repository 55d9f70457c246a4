"""The numbers that a picture of a version shows: samples, data, densities, events."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.engine import Engine, Terms
from app.plots import Numbers, PlotKind
from app.problems import Problem
from flows import CompiledFlow
from models_store.blobs import BlobStore
from models_store.errors import NotFoundError
from models_store.jobs import EventKind, Jobs
from models_store.registry import Registry, Version

_ROWS = 2000
_IMAGES = 64
_MIN_IMAGE = 16
_GRID = 120
_MOST_PANELS = 16
_MOST_PAIRS = 5
_CHUNK_ROWS = 64
_EVENTS = 100_000
_CURVES = ("train_log_likelihood", "validation_log_likelihood", "elbo")

Rows = NDArray[Any]


@dataclass(frozen=True)
class Source:
    """Where the numbers of a version come from."""

    version: Version
    registry: Registry
    jobs: Jobs
    blobs: BlobStore
    engine: Engine

    async def numbers(self, kind: PlotKind, flow: CompiledFlow) -> Numbers:
        """What a picture shows.

        Raises:
            Problem: `plot-unavailable`: there is nothing of the kind to show.
        """
        make: dict[PlotKind, Callable[[CompiledFlow], Awaitable[Numbers]]] = {
            PlotKind.LEARNING_CURVE: self._learning_curve,
            PlotKind.MARGINALS: self._marginals,
            PlotKind.PAIRS: self._pairs,
            PlotKind.DENSITY: self._density,
            PlotKind.NOISE: self._noise,
            PlotKind.IMAGES: self._images,
        }
        return await make[kind](flow)

    async def _learning_curve(self, _: CompiledFlow) -> Numbers:
        version = self.version
        if version.job_id is None:
            raise _unavailable("The version was imported: nothing is known of its training.")
        events = await asyncio.to_thread(
            self.jobs.events, version.project, version.job_id, limit=_EVENTS
        )
        told = [event.data for event in events if event.event is EventKind.EPOCH]
        if not told:
            raise _unavailable("Its training told nothing of its epochs.")
        at = [data.get("epoch", data.get("iteration", index)) for index, data in enumerate(told)]
        curves = {
            name: np.array([_number(data.get(name)) for data in told])
            for name in _CURVES
            if any(name in data for data in told)
        }
        return {"at": np.array(at, dtype=float), **curves}

    async def _marginals(self, flow: CompiledFlow, most: int = _MOST_PANELS) -> Numbers:
        data = await asyncio.to_thread(self._data)
        shown = slice(0, min(most, flow.dim))
        samples = await self._samples(flow, data, rows=_ROWS)
        numbers = {"names": np.array(self.version.columns[shown]), "samples": samples[:, shown]}
        return numbers if data is None else {**numbers, "data": data[:, shown]}

    async def _pairs(self, flow: CompiledFlow) -> Numbers:
        return await self._marginals(flow, _MOST_PAIRS)

    async def _density(self, flow: CompiledFlow) -> Numbers:
        if flow.dim != 2 or flow.context_dim:
            raise _unavailable("A density is drawn of models of two columns without context.")
        samples = await self._samples(flow, None, rows=_ROWS)
        low, high = np.quantile(samples, (0.005, 0.995), axis=0)
        margin = 0.1 * (high - low)
        x, y = np.linspace(low - margin, high + margin, _GRID).T
        grid = np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2)
        log_prob = np.empty((len(grid), 1))
        await self._apply(lambda rows: (flow.log_prob(rows),), grid, log_prob)
        names = np.array(self.version.columns)
        return {"names": names, "x": x, "y": y, "log_prob": log_prob.reshape(_GRID, _GRID)}

    async def _noise(self, flow: CompiledFlow) -> Numbers:
        data = await asyncio.to_thread(self._data)
        if data is None or not flow.has_noise:
            raise _unavailable("It takes the dataset, and a flow that maps data to noise.")
        noise = np.empty((len(data), flow.dim))
        await self._apply(lambda rows: (flow.inverse(rows)[0],), data, noise)
        noise = noise[np.isfinite(noise).all(axis=1)]
        ranks = (np.arange(len(noise)) + 0.5) / max(1, len(noise))
        normal = np.array([NormalDist().inv_cdf(float(rank)) for rank in ranks])
        shown = slice(0, min(_MOST_PANELS, flow.dim))
        names = np.array(self.version.columns[shown])
        return {"names": names, "noise": noise[:, shown], "normal": normal}

    async def _images(self, flow: CompiledFlow) -> Numbers:
        if flow.dim < _MIN_IMAGE or round(flow.dim**0.5) ** 2 != flow.dim:
            raise _unavailable("Pictures are drawn of models of square images.")
        data = await asyncio.to_thread(self._data)
        return {"samples": await self._samples(flow, data, rows=_IMAGES)}

    async def _samples(self, flow: CompiledFlow, data: Rows | None, *, rows: int) -> Rows:
        context = None
        if flow.context_dim:
            if data is None:
                raise _unavailable("The model is conditional, and its dataset is gone.")
            context = data[:rows, flow.dim :]
            rows = len(context)
        drawing = flow.iter_sample(rows, seed=0, chunk_rows=_CHUNK_ROWS, context=context)
        drawn: list[Rows] = []
        # Each chunk is a turn of the engine, so that scores need not wait for the picture.
        for _ in range(-(-rows // _CHUNK_ROWS)):
            terms = Terms(admitted=bool(drawn))
            await self.engine.run(lambda *_: drawn.append(next(drawing)), rows=1, terms=terms)
        samples = np.concatenate(drawn)
        return np.compress(np.isfinite(samples).all(axis=1), samples, axis=0)

    async def _apply(
        self, function: Callable[[Rows], tuple[Rows, ...]], rows: Rows, results: Rows
    ) -> None:
        await self.engine.apply(function, rows, results, key=object())

    def _data(self) -> Rows | None:
        """Some rows of the dataset, as the model sees them; None if it is gone or there was none."""
        version = self.version
        if version.dataset_id is None or version.target is not None:
            return None
        try:
            dataset = self.registry.dataset(version.project, version.dataset_id)
        except NotFoundError:
            return None
        names = [column["name"] for column in dataset.columns]
        wanted = [names.index(name) for name in (*version.columns, *version.context_columns)]
        table = np.load(self.blobs.path(dataset.key), mmap_mode="r", allow_pickle=False)
        chosen = np.random.default_rng(0).permutation(len(table))[:_ROWS]
        return np.asarray(table[np.sort(chosen)][:, wanted], dtype=np.float64)


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) else float("nan")


def _unavailable(detail: str) -> Problem:
    return Problem("plot-unavailable", detail)
