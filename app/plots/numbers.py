"""Numbers that a plot of a version shows: samples, data, densities and training events."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from app.engine.engine import Array, Engine, Terms
from app.engine.reference_rows import data_rows, sampled_rows
from app.limits import in_thread
from app.plots.curves import CURVES, LARGEST, kept_epoch, read_curve
from app.plots.plots import Numbers, PlotKind
from app.problems.problem import Problem
from flows import CompiledFlow
from models_store.files.blobs import Blobs
from models_store.jobs.jobs import Jobs
from models_store.records import Version
from models_store.registry import Registry
from models_store.requests.variational import closed_form

_ALL = slice(None)
_ROWS = 2000
_IMAGES = 64
_MIN_IMAGE = 16
_GRID = 120
_MOST_PANELS = 16
_MOST_PAIRS = 5
_TARGET_ROWS = 2048  # at a time, which take 16 MiB by a formula of the most terms
_LEAST = 1e-100  # smaller numbers are drawn as 0
_LABEL = 40  # characters of a level: a column may have thousands of long ones
_DECIDES = ("robust_validation_log_likelihood", "validation_log_likelihood")


@dataclass(frozen=True)
class Source:
    """Source of the numbers of a version's plots."""

    version: Version
    registry: Registry
    jobs: Jobs
    blobs: Blobs
    engine: Engine

    async def check(self, kind: PlotKind, flow: CompiledFlow) -> Array | None:
        """Return the rows of the dataset that a plot shows, None where it shows none.

        Raises:
            Problem: `plot-unavailable`, for any reason that is known before a sample is drawn.
        """
        if kind is PlotKind.LEARNING_CURVE:
            await self._learning_curve()
            return None
        if kind is PlotKind.DENSITY:
            if flow.dim != 2 or flow.context_dim or self._has_discrete:
                raise _unavailable(
                    "A density is drawn of models of two continuous columns without context."
                )
            return await in_thread(self._data)
        is_square = flow.dim >= _MIN_IMAGE and round(flow.dim**0.5) ** 2 == flow.dim
        if kind is PlotKind.IMAGES and not is_square:
            raise _unavailable("Pictures are drawn of models of square images.")
        data = await in_thread(self._data)
        if kind is PlotKind.NOISE and (data is None or not flow.has_noise):
            raise _unavailable("It takes the dataset, and a flow that maps data to noise.")
        if flow.context_dim and data is None:
            raise _unavailable(
                "The model is conditional, and no dataset has values of all its columns."
            )
        return data

    async def numbers(self, kind: PlotKind, flow: CompiledFlow) -> Numbers:
        """Return the numbers of a plot.

        Raises:
            Problem: `plot-unavailable`, when there is nothing to draw.
        """
        if kind is PlotKind.LEARNING_CURVE:
            return await self._learning_curve()
        data = await self.check(kind, flow)
        match kind:
            case PlotKind.DENSITY:
                return await self._density(flow, data)
            case PlotKind.IMAGES:
                samples = await self._samples(flow, data, rows=_IMAGES)
                return await in_thread(_drawable, {"samples": samples})
            case PlotKind.NOISE:
                return {} if data is None else await self._noise(flow, data)  # `check` has refused
            case PlotKind.MARGINALS:
                return await self._marginals(flow, data, _MOST_PANELS)
            case PlotKind.PAIRS:
                return await self._marginals(flow, data, _MOST_PAIRS)

    async def _learning_curve(self) -> Numbers:
        version = self.version
        curves = await in_thread(read_curve, version, self.jobs, self.blobs)
        if not curves.keys() & set(CURVES):
            unknown = "Its training reported no likelihoods."
            if version.job_id is None:
                unknown = "The file that the version was imported from has no learning curve."
            raise _unavailable(unknown)
        decides = next((name for name in _DECIDES if name in curves), None)
        kept = None if decides is None else kept_epoch(version, curves, decides)
        if decides is None or kept is None:
            return curves
        return {**curves, "decides": np.array(decides), "kept": np.array(kept)}

    async def _marginals(self, flow: CompiledFlow, data: Array | None, most: int) -> Numbers:
        shown = slice(0, min(most, flow.dim))
        told = {"samples": await self._samples(flow, data, rows=_ROWS, columns=shown)}
        if data is not None:
            told["data"] = data[:, shown]
        return await in_thread(self._of_columns, told, shown)

    def _of_columns(self, told: Mapping[str, Array], shown: slice) -> Numbers:
        """Return the numbers of some columns; levels may be tens of thousands."""
        names = np.array(self.version.columns[shown])
        gaps = not self.version.is_plain
        return {"names": names, **self._scales(shown), **_drawable(told, gaps=gaps)}

    @property
    def _has_discrete(self) -> bool:
        return any(column.is_discrete for column in self.version.column_types)

    def _scales(self, shown: slice) -> Numbers:
        """Return what drawing needs to know of typed columns, as JSON; nothing of plain numbers."""
        if self.version.is_plain:
            return {}
        scales = [
            {
                "labels": [_label(level) for level in column.levels] + ["other"] * column.other,
                "numbers": column.level_numbers,
                "spikes": column.spikes,
                "is_date": column.type == "datetime",
            }
            for column in self.version.column_types[shown]
        ]
        return {"scales": np.array(json.dumps(scales))}

    async def _density(self, flow: CompiledFlow, data: Array | None) -> Numbers:
        told = _drawable({"samples": await self._samples(flow, None, rows=_ROWS)})
        samples = told.pop("samples")
        if data is not None:
            told = {**_drawable({"data": data}), **told}
        low, high = np.quantile(samples, (0.005, 0.995), axis=0)
        margin = np.maximum(0.1 * (high - low), 1e-6 * np.abs(high))
        margin[margin == 0] = 1.0
        x, y = np.linspace(low - margin, high + margin, _GRID).T
        grid = np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2)
        log_prob = np.empty((len(grid), 1))
        await self._apply(flow, lambda rows: (flow.log_prob(rows),), grid, log_prob)
        with np.errstate(over="ignore"):
            density = np.exp(log_prob)
        finite = density <= LARGEST
        if not finite.any():
            raise _unavailable("The density is finite nowhere near the samples.")
        names = np.array(self.version.columns)
        density = np.where(finite, density, np.nan).reshape(_GRID, _GRID)  # left white
        target = await self._target(grid)
        return {**told, **target, "names": names, "x": x, "y": y, "density": density}

    async def _target(self, grid: Array) -> Numbers:
        """Return the density of the target on a grid, normalised over it; nothing without one."""
        target = closed_form(self.version.target)
        if target is None or target.dim != grid.shape[1]:
            return {}
        import torch  # noqa: PLC0415  the target has loaded it

        log_density = np.empty((len(grid), 1))
        await self.engine.apply(
            lambda rows: (target.log_density(torch.from_numpy(rows)).numpy(),),
            grid,
            log_density,
            terms=Terms(most_rows=_TARGET_ROWS),
        )
        area = np.prod([np.ptp(grid[:, axis]) for axis in (0, 1)]) / (_GRID - 1) ** 2
        log_density = np.where(np.isfinite(log_density), log_density, -np.inf)
        peak = log_density.max()
        if not np.isfinite(peak):
            return {}
        density = np.exp(log_density - peak)
        density /= density.sum() * area
        return {"target": density.reshape(_GRID, _GRID)}

    async def _noise(self, flow: CompiledFlow, data: Array) -> Numbers:
        noise = np.empty((len(data), flow.dim))
        await self._apply(flow, lambda rows: (flow.inverse(rows)[0],), data, noise)
        shown = slice(0, min(_MOST_PANELS, flow.dim))
        names = np.array(self.version.columns[shown])
        return {"names": names, **await in_thread(_quantiles, noise, shown)}

    async def _samples(
        self, flow: CompiledFlow, data: Array | None, *, rows: int, columns: slice = _ALL
    ) -> Array:
        context = None
        if flow.context_dim and data is not None:
            context = data[:rows, flow.dim :]
            rows = len(context)
        return await sampled_rows(flow, self.engine, rows, context=context, columns=columns)

    async def _apply(
        self,
        flow: CompiledFlow,
        function: Callable[[Array], tuple[Array, ...]],
        rows: Array,
        results: Array,
    ) -> None:
        await self.engine.apply(function, rows, results, terms=Terms.of(flow))

    def _data(self) -> Array | None:
        """Return some rows of the dataset with the model's columns; None if it was deleted."""
        return data_rows(self.version, self.registry, self.blobs, _ROWS)


def _label(level: object) -> str:
    return f"{level:g}" if type(level) in (int, float) else str(level)[:_LABEL]


def _quantiles(noise: Array, shown: slice) -> Numbers:
    """Return some columns of noise, with the quantiles of the normal distribution beside them."""
    told = _drawable({"noise": noise}, shown=shown)
    rows = len(told["noise"])
    normal = [NormalDist().inv_cdf((index + 0.5) / rows) for index in range(rows)]
    return {**told, "normal": np.array(normal)}


def _drawable(
    told: Mapping[str, Array], *, gaps: bool = False, shown: slice = slice(None)
) -> dict[str, Array]:
    """Keep the rows that can be drawn; `note` says how many others there are.

    Args:
        told: Arrays of rows by name.
        gaps: True if cells that are not numbers are missing ones, and can be drawn as such.
        shown: Columns to keep.

    Raises:
        Problem: `plot-unavailable`, when none of the rows can be drawn.
    """
    kept: dict[str, Array] = {}
    notes = []
    for name, rows in told.items():
        fine = ((np.abs(rows) <= LARGEST) | (gaps & np.isnan(rows))).all(axis=1)
        few = rows[fine, shown]
        kept[name] = np.where(np.abs(few) < _LEAST, 0.0, few)
        if not fine.all():
            notes.append(f"{len(rows) - fine.sum()} of {len(rows)} rows of {name} are not finite")
    if not any(map(len, kept.values())):
        raise _unavailable(f"There is nothing to draw: {', '.join(notes)}.")
    return {**kept, "note": np.array("\n".join(notes))}


def _unavailable(detail: str) -> Problem:
    return Problem("plot-unavailable", detail)
