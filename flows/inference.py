"""A trained flow compiled for serving: scores and samples, in chunks."""

import copy
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from flows.flow import LOG_TWO_PI, Flow, Space, base_noise
from flows.folding import AffineStep, Pending, Step
from flows.packing import pack

Rows = npt.NDArray[np.float32] | npt.NDArray[np.float64]
Doubles = npt.NDArray[np.float64]

# Rows computed at a time: on a processor the hidden units of a chunk should stay in its cache.
# Multiples of the rows in a block of noise, so that a sample takes whole blocks.
CPU_CHUNK_ROWS, GPU_CHUNK_ROWS = 256, 16_384


def compile_flow(flow: Flow, *, device: str | torch.device = "cpu") -> "CompiledFlow":
    """Compiles a flow for inference; the flow itself is left as it is.

    Masks are multiplied into the weights, batch norms merged into the layers beside them, and
    what is left computed in float32; standardisation stays in float64.

    Args:
        flow: with the statistics that it shall be served with.
        device: where to compute.
    """
    return CompiledFlow(flow, device=torch.device(device))


class CompiledFlow:
    """A flow without gradients, from arrays to arrays.

    Log densities are those of the flow up to float32's rounding. A row whose numbers float32
    cannot hold scores -inf or NaN; the rows beside it are not touched. Threads may share it.

    Attributes:
        dim: features of a row.
        size_bytes: memory that it holds.
    """

    dim: int
    size_bytes: int

    def __init__(self, flow: Flow, *, device: torch.device) -> None:
        """See `compile_flow`."""
        self.dim = flow.dim
        self._device = device
        self._chunk_rows = CPU_CHUNK_ROWS if device.type == "cpu" else GPU_CHUNK_ROWS
        with torch.no_grad():
            exact = copy.deepcopy(flow).cpu().double().eval()
            nothing = Pending.nothing(flow.dim, dtype=torch.float32, device=device)
            self._steps, pending = exact.transform.fold(nothing)
            self._steps.append(AffineStep(pending))
        self._packed = pack(self._steps) if device.type == "cpu" else None
        if self._packed is not None:
            self._steps = []
        self._constant = pending.applied().log_det
        self._mean, self._std = np.zeros(self.dim), np.ones(self.dim)
        if exact.standardise is not None:
            self._mean = exact.standardise.mean.numpy()
            self._std = exact.standardise.std.numpy()
        self._log_std = float(np.log(self._std).sum())
        self.size_bytes = sum(_size_bytes(step) for step in self._steps)
        if self._packed is not None:
            self.size_bytes = self._packed.size_bytes

    def log_prob(self, x: Rows, *, space: Space = "data") -> Doubles:
        """The log density of each row, in nats.

        Args:
            x: rows, float32 or float64.
            space: `model` gives the density of standardised rows.
        """
        if self._packed is not None:
            nothing = np.empty((len(x), 0))
            result, squares = self._packed.invert(x, *self._units(space), noise=nothing)
            result -= 0.5 * squares
            result += self._inverse_constant(space) - 0.5 * self.dim * LOG_TWO_PI
            return result
        result = np.empty(len(x))
        with torch.inference_mode():
            for start, chunk in self._chunks(x):
                u, log_det = self._inverse(self._to_model(chunk, space))
                score = torch.sub(log_det, u.square().sum(dim=0), alpha=0.5)
                result[start : start + len(chunk)] = score.cpu().numpy()
        result += self._inverse_constant(space) - 0.5 * self.dim * LOG_TWO_PI
        return result

    def inverse(self, x: Rows, *, space: Space = "data") -> tuple[Doubles, Doubles]:
        """Noise and log|det du/dx| of each row.

        Args:
            x: rows, float32 or float64.
            space: `model` takes standardised rows.
        """
        noise, log_dets = np.empty((len(x), self.dim)), np.empty(len(x))
        if self._packed is not None:
            log_dets, _ = self._packed.invert(x, *self._units(space), noise=noise)
            return noise, log_dets + self._inverse_constant(space)
        with torch.inference_mode():
            for start, chunk in self._chunks(x):
                u, log_det = self._inverse(self._to_model(chunk, space))
                noise[start : start + len(chunk)] = u.t().cpu().numpy()
                log_dets[start : start + len(chunk)] = log_det.cpu().numpy()
        log_dets += self._inverse_constant(space)
        return noise, log_dets

    def forward(self, u: Rows, *, space: Space = "data") -> tuple[Doubles, Doubles]:
        """Data and log|det dx/du| of each row of noise.

        Args:
            u: noise, float32 or float64.
            space: `model` gives standardised rows.
        """
        if self._packed is not None:
            rows, log_dets = self._packed.sample(u, *self._units(space))
            return rows, log_dets - self._inverse_constant(space)
        rows, log_dets = np.empty((len(u), self.dim)), np.empty(len(u))
        with torch.inference_mode():
            for start, chunk in self._chunks(u):
                x, log_det = self._forward(self._to_model(chunk, "model"))
                rows[start : start + len(chunk)] = self._to_data(x, space)
                log_dets[start : start + len(chunk)] = log_det.cpu().numpy()
        log_dets -= self._inverse_constant(space)
        return rows, log_dets

    def sample(self, n: int, *, seed: int, space: Space = "data") -> Doubles:
        """Draws rows; the same seed gives the same rows.

        Args:
            n: how many.
            seed: from 0 to 2^63 - 1.
            space: `model` gives standardised rows.
        """
        rows = np.empty((n, self.dim))
        start = 0
        for piece in self.iter_sample(n, seed=seed, chunk_rows=max(n, 1), space=space):
            rows[start : start + len(piece)] = piece
            start += len(piece)
        return rows

    def iter_sample(
        self, n: int, *, seed: int, chunk_rows: int, space: Space = "data"
    ) -> Iterator[Doubles]:
        """The rows of `sample`, in pieces; they do not depend on the pieces' size.

        Args:
            n: how many rows.
            seed: from 0 to 2^63 - 1.
            chunk_rows: rows in a piece; the last may have fewer.
            space: `model` gives standardised rows.
        """
        generator = torch.Generator().manual_seed(seed)
        ready: list[Doubles] = []
        waiting = 0
        for start in range(0, n, self._chunk_rows):
            piece = self._draw(min(self._chunk_rows, n - start), generator, space)
            while waiting + len(piece) >= chunk_rows:
                cut = chunk_rows - waiting
                yield np.concatenate([*ready, piece[:cut]])
                ready, waiting, piece = [], 0, piece[cut:]
            ready, waiting = [*ready, piece], waiting + len(piece)
        if waiting > 0:
            yield np.concatenate(ready)

    @torch.inference_mode()
    def _draw(self, n: int, generator: torch.Generator, space: Space) -> Doubles:
        noise = base_noise(n, self.dim, generator=generator)
        if self._packed is not None:
            return self._packed.sample(noise.numpy(), *self._units(space))[0]
        u = noise.t().to(self._device).contiguous()
        for step in reversed(self._steps):
            u, _ = step.forward(u)
        return self._to_data(u, space)

    def _inverse(self, x: Tensor) -> tuple[Tensor, Tensor]:
        terms = []
        for step in self._steps:
            x, log_det = step.inverse(x)
            if log_det is not None:
                terms.append(log_det)
        return x, torch.cat(terms).sum(dim=0)

    def _forward(self, u: Tensor) -> tuple[Tensor, Tensor]:
        terms = []
        for step in reversed(self._steps):
            u, log_det = step.forward(u)
            if log_det is not None:
                terms.append(log_det)
        return u, torch.cat(terms).sum(dim=0)

    def _chunks(self, rows: Rows) -> Iterator[tuple[int, Rows]]:
        for start in range(0, len(rows), self._chunk_rows):
            yield start, rows[start : start + self._chunk_rows]

    def _to_model(self, rows: Rows, space: Space) -> Tensor:
        """Features first, float32, standardised if they come in the data's units."""
        with np.errstate(over="ignore", invalid="ignore"):
            standard = (rows - self._mean) / self._std if space == "data" else rows
            columns = np.array(standard.T, dtype=np.float32, order="C")
        return torch.from_numpy(columns).to(self._device)

    def _to_data(self, x: Tensor, space: Space) -> Doubles:
        rows = x.t().cpu().numpy().astype(np.float64, order="C")
        return rows * self._std + self._mean if space == "data" else rows

    def _units(self, space: Space) -> tuple[Doubles, Doubles]:
        """Mean and deviation of rows in that space."""
        if space == "data":
            return self._mean, self._std
        return np.zeros(self.dim), np.ones(self.dim)

    def _inverse_constant(self, space: Space) -> float:
        """The log-determinant, from data to noise, of what was merged or is the same for all."""
        return self._constant - (self._log_std if space == "data" else 0.0)


def _size_bytes(step: Step) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in step.tensors())
