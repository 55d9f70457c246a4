"""Compiled flows that are read from a file without PyTorch, which is loaded for what compiled loops do not know."""

from collections.abc import Callable, Iterator
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np

from flows.compiled.compiled_flow import CompiledFlow, Doubles, Rows
from flows.cost import Cost
from flows.engine.serving.packing import PackedFlow
from flows.errors import FlowError
from flows.specs.explained import Explained
from flows.specs.preprocessing import Space

if TYPE_CHECKING:
    from torch import Tensor

    from flows.compiled.torch_flow import TorchFlow


class KernelFlow(CompiledFlow):
    """Unconditional flow of numbers whose scores, noise and rows compiled loops compute.

    Samples, whose noise is PyTorch's, and questions are those of the whole flow, which is built when one of
    them is first asked for.
    """

    context_dim = 0
    has_noise = True
    has_parts = False
    decoder = None
    conditionals = None

    def __init__(
        self,
        engine: PackedFlow,
        moments: Doubles,
        *,
        cost: Cost,
        build: "Callable[[], TorchFlow]",
    ) -> None:
        """Take the engine, means and deviations of the data in two lines, and what builds the whole flow."""
        self.dim = self.model_dim = moments.shape[1]
        self.row_bytes, self.operations = cost.row_bytes, cost.operations
        self.size_bytes = engine.size_bytes
        self.log_seen = {}
        self._engine, self._moments = engine, moments
        self._log_std = float(np.log(moments[1]).sum())
        self._build, self._lock = build, Lock()
        self._whole: TorchFlow | None = None

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401  of whatever type
        if name in ("companion", "conditional_order"):
            return getattr(self._torch(), name)
        raise AttributeError(name)

    @property
    def is_whole(self) -> bool:
        return self._whole is not None

    def prepare(self) -> None:
        self._torch()

    def log_prob(self, x: Rows, *, space: Space = "data") -> Doubles:
        affine, log_std = self._affine(space)
        found = self._engine.score(x, affine)
        total: Doubles = found.log_det - log_std - 0.5 * found.squares
        unknown = np.isnan(total)
        if unknown.any():
            total[unknown & np.isfinite(x).all(axis=1)] = -np.inf
        return total

    def log_prob_parts(self, x: Rows, *, space: Space = "data") -> Doubles:
        total = self.log_prob(x, space=space)
        return np.column_stack([np.where(np.isnan(total), np.nan, 0.0), total])

    def inverse(self, x: Rows, *, space: Space = "data") -> tuple[Doubles, Doubles]:
        affine, log_std = self._affine(space)
        noise = np.empty((len(x), self.dim))
        return noise, self._engine.score(x, affine, noise=noise).log_det - log_std

    def forward(self, u: Rows, *, space: Space = "data") -> tuple[Doubles, Doubles]:
        affine, log_std = self._affine(space)
        rows, log_det = self._engine.sample(u, affine)
        return rows, log_det + log_std

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
        return self._torch().iter_sample(
            n, seed=seed, chunk_rows=chunk_rows, context=context, space=space, start=start
        )

    @property
    def explained_kinds(self) -> list[Explained]:
        return ["unavailable"] * self.dim

    @property
    def explaining_passes(self) -> int:
        return 0

    def explain(self, x: Rows) -> Doubles:
        raise FlowError("a density of this family explains no columns")

    @property
    def inside(self) -> Doubles:
        return self._torch().inside

    def encode(self, x: "Tensor") -> "tuple[Tensor, Tensor]":
        return self._torch().encode(x)

    def decode_continuous(self, values: "Tensor", places: list[int]) -> Doubles:
        return self._torch().decode_continuous(values, places)

    def to_grid(self, x: Doubles) -> Doubles:
        return self._torch().to_grid(x)

    def score_model(self, rows: "Tensor") -> "Tensor":
        return self._torch().score_model(rows)

    def _affine(self, space: Space) -> tuple[Doubles | None, float]:
        return (self._moments, self._log_std) if space == "data" else (None, 0.0)

    def _torch(self) -> "TorchFlow":
        """Return the whole flow."""
        with self._lock:
            if self._whole is None:
                self._whole = self._build()
                if isinstance(self._whole.engine, PackedFlow):
                    self._engine = self._whole.engine  # of the same bits: one of them is enough
            return self._whole
