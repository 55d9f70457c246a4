"""Rows on their way between the units of the data and those of a compiled flow."""

from functools import partial

import numpy as np
import torch
from torch import Tensor

from flows.compiled.compiled_flow import Doubles, Rows
from flows.errors import FlowError
from flows.flow import Flow, complete_rows, without_nan
from flows.mixed.encoding import TableEncoding
from flows.preprocess import Preprocessing, Standardise
from flows.specs.preprocessing import Space


class ModelSpace:
    """Preprocessing of rows and of their context, of a flow in float64 on the CPU."""

    def __init__(self, exact: Flow) -> None:
        self.preprocessing: Preprocessing = exact.preprocessing
        self._context = exact.context
        self._context_dim = exact.context_dim
        self._widths: dict[Space, int] = {"data": exact.dim, "model": exact.model_dim}

    def width(self, space: Space) -> int:
        """Return the number of columns of a row's features."""
        return self._widths[space]

    def preprocess(self, rows: Rows) -> tuple[Doubles, Doubles]:
        """Return preprocessed rows, and the log-determinants."""
        x, log_det = self.preprocessing.inverse(torch.from_numpy(np.array(rows, np.float64)))
        return x.numpy(), log_det.numpy()

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
        """Return scores, one or more a row, with -inf in the place of NaN where the row lacks nothing.

        So many rows are looked at together.
        """
        if not np.isnan(scores).any():
            return scores
        unknown = np.flatnonzero(np.isnan(scores).reshape(len(scores), -1).any(axis=1))
        width = self._widths[space]
        for start in range(0, len(unknown), chunk_rows):
            places = unknown[start : start + chunk_rows]
            exact = torch.from_numpy(x[places].astype(np.float64))
            rows, context = exact[:, :width], exact[:, width:]
            complete = partial(
                complete_rows, self.preprocessing, self._context, rows, context, space=space
            )
            scores[places] = without_nan(torch.from_numpy(scores[places]), complete).numpy()
        return scores

    def moments(self) -> Doubles | None:
        """Return mean and deviation of each feature, a line each; None if preprocessing does more.

        Without preprocessing they are 0 and 1.
        """
        if isinstance(self.preprocessing, TableEncoding):
            return None
        match self.preprocessing.layers():
            case []:
                return np.outer([0.0, 1.0], np.ones(self._widths["model"]))
            case [Standardise() as layer]:
                return np.stack([layer.mean.numpy(), layer.std.numpy()])
            case _:
                return None
