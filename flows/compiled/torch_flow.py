"""Trained flows compiled for serving: log-densities and samples, in chunks."""

import copy
from collections.abc import Iterator
from functools import cached_property, partial

import numpy as np
import torch
from torch import Tensor

from flows.compiled.compiled_flow import PACKED_CHUNK_ROWS, CompiledFlow, Doubles, Rows, drawn_rows
from flows.compiled.model_space import ModelSpace
from flows.compiled.plain import CompiledConditionals, PlainFlow
from flows.cost import NOISE_BLOCK_ROWS, fitting_rows, turn_rows
from flows.engine.describe import pack
from flows.engine.serving.packing import PackedFlow, Scores
from flows.ensemble import Ensemble
from flows.errors import FlowError
from flows.families.gaussian_mixture import MixtureOfGaussians
from flows.flow import Flow, base_noise
from flows.mixed.companion import Companion
from flows.mixed.companion_fitting import layout_of
from flows.mixed.density import MixedDensity
from flows.mixed.encoding import TableEncoding
from flows.mixed.explain import explain
from flows.specs.explained import Explained, explained_kinds, explaining_passes
from flows.specs.preprocessing import Space

# Rows computed at a time: hidden units stay in a processor's cache. Multiples of a block of noise.
CPU_CHUNK_ROWS, CPU_SAMPLE_ROWS, GPU_CHUNK_ROWS = 256, 1024, 16_384


class TorchFlow(CompiledFlow):
    """Compiled flow whose preprocessing, and what compiled loops do not know, PyTorch computes.

    Attributes:
        engine: What computes densities and samples: compiled loops, or PyTorch.
    """

    engine: PackedFlow | PlainFlow
    conditional_order: list[int] | None = None
    conditionals: CompiledConditionals | None = None

    def __init__(self, flow: Flow, *, device: torch.device) -> None:
        self.dim, self.context_dim, self.has_noise = flow.dim, flow.context_dim, flow.has_noise
        self.model_dim = flow.model_dim
        self.row_bytes, self.operations = flow.row_bytes, flow.operations
        self.has_parts = isinstance(flow.transform, MixedDensity)
        exact = copy.deepcopy(flow).cpu().double().eval().requires_grad_(requires_grad=False)
        self.decoder = exact.decoder
        self._space = ModelSpace(exact)
        self._set_companion(exact)
        packed = None
        if device.type == "cpu":
            packed = pack(exact.transform)
        if packed is not None:
            self.engine, most, sampled = packed, PACKED_CHUNK_ROWS, PACKED_CHUNK_ROWS
        else:
            most, sampled = (
                (CPU_CHUNK_ROWS, CPU_SAMPLE_ROWS)
                if device.type == "cpu"
                else (GPU_CHUNK_ROWS, GPU_CHUNK_ROWS)
            )
            rows = fitting_rows(sampled, flow.row_bytes)
            self.engine = PlainFlow(exact.transform, device=device, chunk_rows=rows)
        self._chunk_rows = fitting_rows(most, flow.row_bytes)
        self._moments = self._space.moments()
        sampled = turn_rows(sampled, flow.operations.sampling)
        if device.type == "cpu":
            sampled = min(sampled, drawn_rows(max(self.dim, self.model_dim)))
        self._sample_rows = fitting_rows(sampled, flow.row_bytes, multiple=NOISE_BLOCK_ROWS)
        self.size_bytes = self.engine.size_bytes
        if self.decoder is not None:
            self.size_bytes += sum(one.nbytes for one in self.decoder.parameters())

    def log_prob(self, x: Rows, *, space: Space = "data") -> Doubles:
        parts = self._score(x, space)
        total = parts.discrete + parts.log_det - 0.5 * parts.squares
        return self._without_nan(total, x, space)

    def log_prob_parts(self, x: Rows, *, space: Space = "data") -> Doubles:
        if not self.has_parts:
            total = self.log_prob(x, space=space)
            return np.column_stack([np.where(np.isnan(total), np.nan, 0.0), total])
        parts = self._score(x, space)
        result = np.column_stack([parts.discrete, parts.log_det - 0.5 * parts.squares])
        return self._without_nan(result, x, space)

    def _without_nan(self, scores: Doubles, x: Rows, space: Space) -> Doubles:
        return self._space.replace_nan(scores, x, space, chunk_rows=self._chunk_rows)

    @property
    def explained_kinds(self) -> list[Explained]:
        if not isinstance(self._space.preprocessing, TableEncoding):
            return ["unavailable"] * self.dim
        return explained_kinds(self._space.preprocessing.layout)

    @property
    def explaining_passes(self) -> int:
        if not isinstance(self._space.preprocessing, TableEncoding):
            return 0
        return explaining_passes(self._space.preprocessing.layout)

    def explain(self, x: Rows) -> Doubles:
        encoding = self._space.preprocessing
        if not isinstance(encoding, TableEncoding):
            raise FlowError("a density of this family explains no columns")
        result = np.empty((len(x), self.dim))
        for start, chunk in self._chunks(x):
            context = self._space.exact_context(chunk[:, self.dim :])
            score = partial(self._score_model, context=context)
            rows = torch.from_numpy(np.array(chunk[:, : self.dim], np.float64))
            result[start : start + len(chunk)] = explain(encoding, rows, score).numpy()
        return result

    def _set_companion(self, exact: Flow) -> None:
        """Take the companion of a flow; a mixture of Gaussians is its own."""
        transform, self.log_seen = exact.transform, {}
        self._continuous = len(layout_of(exact).continuous)
        self.companion = exact.companion if isinstance(exact.companion, Companion) else None
        if isinstance(transform, MixtureOfGaussians) and exact.context_dim == 0:
            self.companion = Companion.of_mixture(layout_of(exact), transform)
        first = transform.members[0] if isinstance(transform, Ensemble) else transform
        if isinstance(first, MixedDensity):
            columns = [variable.column for variable in first.layout.variables]
            self.log_seen = dict(zip(columns, first.log_seen.tolist(), strict=True))

    @cached_property
    def inside(self) -> Doubles:
        rows, _ = self._space.preprocessing.forward(torch.zeros(1, self.model_dim))
        return rows[0].double().numpy()

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        rows, terms = self._space.preprocessing.encode(x.double())
        return rows.double(), terms.double()

    def decode_continuous(self, values: Tensor, places: list[int]) -> Doubles:
        encoding = self._space.preprocessing
        if isinstance(encoding, TableEncoding):
            if not places:
                return values.numpy()
            maps = encoding.maps.select(places)
            found = maps.wrap(maps.forward(values)[0])
        else:
            whole = values.new_zeros(len(values), self.dim)
            whole[:, places] = values
            found = encoding.forward(whole)[0][:, places]
        if encoding.denoise is not None:
            whole = torch.zeros(len(found), self._continuous, dtype=torch.float64)
            whole[:, places] = found.double()
            found = encoding.denoise.clean(whole)[:, places]
        return found.double().numpy()

    def to_grid(self, x: Doubles) -> Doubles:
        return self._space.preprocessing.to_grid(torch.from_numpy(x)).numpy()

    @torch.inference_mode()
    def score_model(self, rows: Tensor) -> Tensor:
        pieces = torch.split(rows, self._chunk_rows)
        nothing = [np.empty((len(piece), 0)) for piece in pieces]
        found = [self._score_model(p, context=c) for p, c in zip(pieces, nothing, strict=True)]
        return torch.cat(found)

    def _score_model(self, rows: Tensor, *, context: Doubles) -> Tensor:
        """Return the log densities of rows of the model, in float64."""
        parts = self.engine.score(np.hstack([rows.numpy(), context]))
        return torch.from_numpy(parts.discrete + parts.log_det - 0.5 * parts.squares)

    def inverse(self, x: Rows, *, space: Space = "data") -> tuple[Doubles, Doubles]:
        if not self.has_noise:
            raise FlowError("this density has no noise that its rows could be mapped to")
        noise = np.empty((len(x), self.dim))
        return noise, self._score(x, space, noise=noise).log_det

    def forward(self, u: Rows, *, space: Space = "data") -> tuple[Doubles, Doubles]:
        given = self._space.exact_context(u[:, self.model_dim :])
        return self._sample(np.hstack([u[:, : self.model_dim], given], dtype=np.float64), space)

    def iter_sample(
        self,
        n: int,
        *,
        seed: int,
        chunk_rows: int,
        context: Rows | None = None,
        space: Space = "data",
        start: int = 0,
    ) -> Iterator[Doubles]:
        self._space.check_context(context, n)
        drawn = self._drawn(n, _seeded(seed), context, space, start)
        return _pieces_of(drawn, chunk_rows)

    def _drawn(
        self, n: int, generator: torch.Generator, context: Rows | None, space: Space, start: int
    ) -> Iterator[Doubles]:
        """Yield the rows from `start` on, computed in the same chunks whatever `start` is."""
        for first in range(0, n, self._sample_rows):
            stop = min(first + self._sample_rows, n)
            if stop <= start:
                base_noise(stop - first, self.model_dim, generator=generator)
                continue
            given = context if context is None or len(context) == 1 else context[first:stop]
            yield self._draw(stop - first, generator, given, space)[max(0, start - first) :]

    @torch.inference_mode()
    def _draw(
        self, n: int, generator: torch.Generator, context: Rows | None, space: Space
    ) -> Doubles:
        noise = base_noise(n, self.model_dim, generator=generator).numpy()
        if context is not None:
            given = self._space.exact_context(context)
            noise = np.hstack([noise, np.broadcast_to(given, (n, given.shape[1]))])
        rows, _ = self._sample(noise, space)
        if space == "model":
            return rows
        return self._space.preprocessing.to_grid(torch.from_numpy(rows)).numpy()

    def _score(self, x: Rows, space: Space, *, noise: Doubles | None = None) -> Scores:
        """Return the terms of log densities."""
        if self.context_dim == 0 and (space == "model" or self._moments is not None):
            affine, log_std = self._affine(space)
            found = self.engine.score(x, affine, noise=noise)
            found.log_det[:] -= log_std
            return found
        found = Scores(*(np.empty(len(x)) for _ in range(3)))
        width = self._space.width(space)
        for start, chunk in self._chunks(x):
            part, rows, outer = slice(start, start + len(chunk)), chunk[:, :width], np.zeros(1)
            if space == "data":
                rows, outer = self._space.preprocess(rows)
            rows = np.hstack([rows, self._space.exact_context(chunk[:, width:])], dtype=np.float64)
            terms = self.engine.score(rows, noise=None if noise is None else noise[part])
            found.log_det[part] = terms.log_det + outer
            found.squares[part], found.discrete[part] = terms.squares, terms.discrete
        return found

    def _sample(self, u: Rows, space: Space) -> tuple[Doubles, Doubles]:
        """Return rows and log-determinants."""
        if space == "model" or self._moments is not None:
            affine, log_std = self._affine(space)
            rows, log_det = self.engine.sample(u, affine)
            return rows, log_det + log_std
        rows, log_det = self.engine.sample(u)
        data, outer = self._space.preprocessing.forward(torch.from_numpy(rows))
        return data.numpy(), log_det + outer.numpy()

    def _affine(self, space: Space) -> tuple[Doubles | None, float]:
        """Return the moments of the rows, and the sum of the log deviations."""
        if space == "model" or self._moments is None:
            return None, 0.0
        return self._moments, float(np.log(self._moments[1]).sum())

    def _chunks(self, rows: Rows) -> Iterator[tuple[int, Rows]]:
        for start in range(0, len(rows), self._chunk_rows):
            yield start, rows[start : start + self._chunk_rows]


def _seeded(seed: int) -> torch.Generator:
    """Return a generator of noise; PyTorch's own looks at the last 32 bits of a seed alone."""
    if seed >= 1 << 32:
        seed = int(np.random.SeedSequence(seed).generate_state(1)[0])
    return torch.Generator().manual_seed(seed)


def _pieces_of(chunks: Iterator[Doubles], rows: int) -> Iterator[Doubles]:
    """Yield the same rows in chunks of `rows` rows; the last may have fewer."""
    ready: list[Doubles] = []
    waiting = 0
    for chunk in chunks:
        piece = chunk
        while waiting + len(piece) >= rows:
            cut = rows - waiting
            yield np.concatenate([*ready, piece[:cut]])
            ready, waiting, piece = [], 0, piece[cut:]
        ready, waiting = [*ready, piece], waiting + len(piece)
    if waiting > 0:
        yield np.concatenate(ready)
