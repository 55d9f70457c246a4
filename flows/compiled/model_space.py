"""Rows on their way between the units of the data and those of a compiled flow."""

from functools import partial

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from flows.errors import FlowError
from flows.flow import Flow, Space, complete_rows, without_nan
from flows.mixed.encoding import TableEncoding
from flows.preprocess import Preprocessing, Standardise

Rows = npt.NDArray[np.float32] | npt.NDArray[np.float64]
Doubles = npt.NDArray[np.float64]


class ModelSpace:
    """Preprocessing of rows and of their context, with the device that rows of the model are on.

    Attributes:
        preprocessing: Preprocessing of the features, in float64.
        device: Device that computes.
    """

    preprocessing: Preprocessing
    device: torch.device

    def __init__(self, exact: Flow, device: torch.device) -> None:
        """Take the preprocessing of a flow.

        Args:
            exact: Flow in float64, on the CPU.
            device: Device that computes.
        """
        self.preprocessing = exact.preprocessing
        self._context = None if exact.context is None else exact.context.to(device)
        self._context_dim = exact.context_dim
        self._widths: dict[Space, int] = {"data": exact.dim, "model": exact.model_dim}
        self.device = device

    def width(self, space: Space) -> int:
        """Return the number of columns of a row's features."""
        return self._widths[space]

    def to_model(self, table: Rows, space: Space) -> tuple[Tensor, Tensor | None, Doubles | float]:
        """Return the rows features first, in float32, preprocessed if they are in the data's units.

        Returns:
            Features, context, and the preprocessing's log-determinants.
        """
        width = self._widths[space]
        rows: Rows = table if self._context_dim == 0 else table[:, :width]
        outer: Doubles | float = 0.0
        if space == "data":
            rows, outer = self.preprocess(rows)
        with np.errstate(over="ignore", invalid="ignore"):
            columns = np.array(rows.T, dtype=np.float32, order="C")
        context = self.encode_context(table[:, width:], len(table))
        return torch.from_numpy(columns).to(self.device), context, outer

    def preprocess(self, rows: Rows) -> tuple[Doubles, Doubles]:
        """Return preprocessed rows, and the log-determinants."""
        x, log_det = self.preprocessing.inverse(torch.from_numpy(np.array(rows, np.float64)))
        return x.numpy(), log_det.numpy()

    def to_data(self, x: Tensor, space: Space) -> tuple[Doubles, Doubles | float]:
        """Return rows, from features first, and the preprocessing's log-determinants.

        Args:
            x: Preprocessed rows, features first.
            space: Space of the rows to return.
        """
        rows = x.t().cpu().double()
        if space == "model":
            return rows.contiguous().numpy(), 0.0
        data, log_det = self.preprocessing.forward(rows)
        return data.contiguous().numpy(), log_det.numpy()

    def encode_context(self, context: Rows, rows: int) -> Tensor | None:
        """Return the encoded context, features first, in float32; None if there is none."""
        if self._context is None:
            return None
        exact = torch.from_numpy(np.array(context, np.float64)).to(self.device)
        features: Tensor = self._context(exact, torch.float64)
        return features.float().expand(rows, -1).t().contiguous()

    def exact_context(self, context: Rows) -> Doubles:
        """Return the encoded context of rows, of no columns if there is none."""
        if self._context is None:
            return np.empty((len(context), 0))
        exact = torch.from_numpy(np.array(context, np.float64))
        with torch.inference_mode():
            features: Tensor = self._context(exact, torch.float64)
        return features.numpy()

    def check_context(self, context: Rows | None, n: int) -> None:
        """Raise FlowError unless the context is that of one or of `n` rows, or none is needed."""
        if (context is None) != (self._context_dim == 0):
            raise FlowError("a conditional density, and no other, needs a context")
        shapes = (1, self._context_dim), (n, self._context_dim)
        if context is not None and context.shape not in shapes:
            raise FlowError(
                f"the context must be 1 or {n} rows of {self._context_dim} columns,"
                f" not of shape {context.shape}"
            )

    def replace_nan(self, scores: Doubles, x: Rows, space: Space, *, chunk_rows: int) -> Doubles:
        """Return scores with -inf in the place of NaN where the row itself lacks nothing.

        Args:
            scores: Log densities of rows, or several terms of each row.
            x: The rows: features, then context.
            space: Space of the features.
            chunk_rows: Number of rows looked at together.
        """
        if not np.isnan(scores).any():
            return scores
        unknown = np.flatnonzero(np.isnan(scores).reshape(len(scores), -1).any(axis=1))
        width = self._widths[space]
        for start in range(0, len(unknown), chunk_rows):
            places = unknown[start : start + chunk_rows]
            exact = torch.from_numpy(x[places].astype(np.float64))
            rows, context = exact[:, :width], exact[:, width:].to(self.device)
            complete = partial(
                complete_rows, self.preprocessing, self._context, rows, context, space=space
            )
            scores[places] = without_nan(torch.from_numpy(scores[places]), complete).numpy()
        return scores

    def moments(self) -> tuple[Doubles, Doubles] | None:
        """Return mean and deviation of each feature; None if preprocessing does more than standardise.

        Without preprocessing they are 0 and 1.
        """
        if isinstance(self.preprocessing, TableEncoding):
            return None
        match self.preprocessing.layers():
            case []:
                return np.zeros(self._widths["model"]), np.ones(self._widths["model"])
            case [Standardise() as layer]:
                return layer.mean.numpy(), layer.std.numpy()
            case _:
                return None
