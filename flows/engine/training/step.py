"""The gradient of a flow and steps along it, by compiled loops over one flat vector of parameters."""

import functools
import logging
import time
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from flows.engine.description import Singles
from flows.engine.fields import MAP
from flows.engine.serving.layers import aligned_zeros
from flows.engine.training.fields import HELD, OWN
from flows.engine.training.program import Program, UnsupportedError, compile_program
from flows.flow import Flow

log = logging.getLogger(__name__)

# Rows that are at least and at most evaluated at once, and the bytes that the work space for them
# may take.
_FEWEST_ROWS, _MOST_ROWS, _MOST_BYTES = 128, 1_024, 2**24


@functools.cache
def load_kernels() -> ModuleType | None:
    """Return the compiled loops, or None, after a log message, if numba cannot provide them.

    Nor are they provided where numba cannot keep them: each job would compile them again.
    """
    began = time.monotonic()
    try:
        import numba  # noqa: PLC0415  it may be missing

        numba.njit(cache=True)(_nothing)  # raises where there is no folder to keep loops in
        from flows.engine.loop_cache import one_process  # noqa: PLC0415  as numba

        with one_process("training"):
            from flows.engine.training import kernels  # noqa: PLC0415  importing it compiles
    except Exception as error:  # noqa: BLE001  numba raises many kinds; autograd does the same work
        log.warning("autograd trains in the place of numba's kernels: %r", error)
        return None
    if sum(kernels.step.stats.cache_misses.values()) > 0:
        seconds = time.monotonic() - began
        log.info("compiled the loops of training, once for this machine: %.0f s", seconds)
    return kernels


class CompiledGradient:
    """Gradient of the mean bounded loss of a batch, computed by compiled loops.

    The parameters of the flow become views of one flat vector, in which they may be changed
    together. Buffers of batch norms become views too. `chunk_rows` are evaluated at once.
    """

    def __init__(self, flow: Flow, *, row_loss_bound: float | None) -> None:
        """Prepare a flow on a processor, in float32; the bound is that of `FitOptions`.

        Raises:
            UnsupportedError: The flow has parts without compiled loops, or numba has none at all.
        """
        self.program: Program = compile_program(flow.transform, list(flow.parameters()))
        kernels = load_kernels()
        if kernels is None:
            raise UnsupportedError("numba provides no kernels")
        _set_maps(self.program)
        self._kernels = kernels
        self._flow = flow
        program = self.program
        self.parameters = np.zeros(program.size, np.float32)
        self.gradient = np.zeros(program.size, np.float32)
        for parameter, view in zip(program.parameters, self.views(self.parameters), strict=True):
            view.copy_(parameter.detach())
            parameter.data = view
        self._statistics = np.zeros(6 * program.dim * len(program.norms), np.float32)
        self._hold_statistics()
        self._sizes = np.array(program.blocks, np.int64)
        self._segments = np.array(program.segments, np.int64)
        momentum = program.norms[0].momentum if program.norms else 0.0
        self._numbers = np.array([momentum, row_loss_bound or 0.0])
        fitting = _MOST_BYTES // (4 * (program.units + program.grad_units))
        self.chunk_rows = max(_FEWEST_ROWS, min(_MOST_ROWS, fitting))
        self._panels = 0
        self._space: tuple[Singles, ...] = ()

    def views(self, flat: Singles) -> list[Tensor]:
        """Return the parts of a flat vector that belong to the parameters."""
        whole, program = torch.from_numpy(flat), self.program
        parts = []
        for parameter in program.parameters:
            start = program.starts[id(parameter)]
            parts.append(whole[start : start + parameter.numel()].view(parameter.shape))
        return parts

    def compute(self, rows: Tensor) -> float:
        """Compute the gradient for rows of the model; return the sum of their log densities."""
        total: float = self._kernels.step(*self._arguments(rows))
        return total

    def move(
        self, arrays: tuple[Singles, ...], rates: tuple[float, ...], *, decoupled: bool, count: int
    ) -> None:
        """Take a step of Adam along the gradient.

        Args:
            arrays: First and second moments, and the average of the parameters or nothing.
            rates: Learning rate, weight decay, largest norm of the gradient or 0, and the share of the
                new parameters in the average.
            decoupled: True for weight decay of its own, as in AdamW.
            count: Number of the step, counted from 1.
        """
        arrays = self.parameters, self.gradient, *arrays
        self._kernels.move(self._segments, arrays, rates, decoupled, count)

    def score(self, rows: Tensor) -> Tensor:
        """Return the log densities of rows of the model, in evaluation mode."""
        result = torch.empty(len(rows))
        most = self.chunk_rows
        for chunk, part in zip(torch.split(rows, most), torch.split(result, most), strict=True):
            self._kernels.evaluate(*self._arguments(chunk), HELD)
            torch.neg(torch.from_numpy(self._space[-2][: len(chunk)]), out=part)
        return result

    def settle(self, rows: Tensor) -> None:
        """Let batch norms hold the statistics of rows of the model, which pass as one batch."""
        self._kernels.evaluate(*self._arguments(rows), OWN)

    def _arguments(self, rows: Tensor) -> tuple[Any, ...]:
        """Return the arguments of the loops for rows of the model."""
        parts = self._split(rows)
        batch = tuple(
            np.ascontiguousarray(part.numpy()) if part is not None else _nothing(len(rows))
            for part in parts
        )
        self._provide(len(rows))
        values, pulled, turned, turned_context, loss, weight = self._space
        work = values, pulled, turned, turned_context, self._statistics, loss, weight
        program = self.program
        lines = program.layers, program.matrices, program.index, self._sizes
        return batch, *lines, (self.parameters, self.gradient, *work), self._numbers

    @torch.no_grad()
    def _split(self, rows: Tensor) -> list[Tensor | None]:
        """Return the features, the context, the mask of what is observed, and the levels."""
        flow, context = self._flow, None
        if flow.context_dim:
            rows, columns = rows.tensor_split([flow.model_dim], dim=1)
            context = flow.model_features(columns)
        if self.program.variables == 0:
            return [rows, context, None, None]
        values, given, observed = flow.transform.continuous_rows(rows, context)
        return [values, given, observed, rows[:, : self.program.variables]]

    def _hold_statistics(self) -> None:
        held, dim = torch.from_numpy(self._statistics), self.program.dim
        for number, norm in enumerate(self.program.norms):
            start = 6 * dim * number
            for name in ("mean", "var"):
                view = held[start : start + dim]
                view.copy_(getattr(norm, name))
                setattr(norm, name, view)
                start += dim

    def _provide(self, rows: int) -> None:
        """Provide work space for a batch of this size."""
        per, program = self._kernels.ROWS, self.program
        panels = -(-rows // per)
        if panels <= self._panels:
            return
        self._panels = panels
        lines = [-(-width // per) * per for width in (program.widest, program.context_dim)]
        numbers = program.units, program.grad_units, *lines, 1, 1
        self._space = tuple(aligned_zeros(panels * per * number) for number in numbers)


def _set_maps(program: Program) -> None:
    """Set the addresses of the maps, which are compiled.

    Raises:
        UnsupportedError: A map has no gradient.
    """
    from flows.engine.maps.registry import step_address  # noqa: PLC0415  numba is there

    for line, kind in zip(program.layers, program.maps, strict=True):
        if kind:
            address = step_address(kind)
            if address is None:
                raise UnsupportedError(f"a map without a gradient: {kind}")
            line[MAP] = address


def _nothing(rows: int) -> Singles:
    return np.empty((rows, 0), np.float32)
