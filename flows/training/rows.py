"""Training rows in the space of the model: on the device, or beside it."""

from collections.abc import Callable, Iterator

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from flows.bijections.batch_norm import set_dataset_statistics
from flows.errors import FitError
from flows.flow import Flow

COPY_ROWS = 65_536


class ModelRows:
    """Table as the transform of a flow takes it: preprocessed, with noise on discrete columns.

    It is in memory, on the device of the table. Rows of a host whose flow is on an accelerator are converted there and come back into pinned memory:
    batches have the same bits wherever the rows are.

    Attributes:
        constant: Difference of a mean log density in the data's units from one in the model's
            space.
    """

    constant: float

    def __init__(self, flow: Flow, table: Tensor, *, seed: int, name: str) -> None:
        """Convert a table, with the noise of the seed, all its cells visible.

        Args:
            flow: Flow that gives the preprocessing and the device.
            table: Features in the data's units, then the columns of a context. Its rows stay on its
                device; where the flow is on another one, a batch at a time goes there.
            seed: Seed of the noise.
            name: Name of the rows in error messages.

        Raises:
            FitError: The rows are no such table, or not finite.
        """
        columns = flow.dim + flow.context_dim
        if table.dim() != 2 or table.shape[1] != columns or len(table) == 0:
            raise FitError(f"the {name} rows must be a table of {columns} columns, not empty")
        self._flow, self._table, self._name = flow, table, name
        shape = len(table), flow.model_columns
        beside = table.device != flow.device
        self._rows = torch.empty(shape, dtype=flow.dtype, device=table.device, pin_memory=beside)
        self._order = torch.empty(0, dtype=torch.int64)
        self._convert(torch.Generator().manual_seed(seed), hide=False)

    def __len__(self) -> int:
        return len(self._rows)

    def draw_noise(self, *numbers: int) -> None:
        """Draw the noise, and what cells are hidden, anew, from these numbers alone."""
        self._convert(generator_of(*numbers), hide=True)

    def order(self, *numbers: int) -> None:
        """Reorder the rows that `batch` takes, from these numbers alone."""
        order = torch.randperm(len(self), generator=generator_of(*numbers))
        self._order = order.to(self._rows.device)

    def batch(self, start: int, stop: int) -> Float[Tensor, "rows columns"]:
        """Return the rows from `start` to `stop` - 1 of that order."""
        return self._rows.index_select(0, self._order[start:stop]).to(self._flow.device)

    def sample(self, most: int) -> Float[Tensor, "rows columns"]:
        """Return at most this number of rows, evenly spread over the table."""
        return self._rows[:: -(-len(self) // most)].to(self._flow.device)

    def chunks(self, chunk_rows: int) -> Iterator[Float[Tensor, "rows columns"]]:
        """Yield rows in the table's order, in chunks of at most `chunk_rows`."""
        for rows in torch.split(self._rows, chunk_rows):
            yield rows.to(self._flow.device)

    def set_statistics(self, *, chunk_rows: int, on_chunk: Callable[[], None]) -> None:
        """Set the exact statistics of these rows in batch norms of kind `dataset`."""
        flow = self._flow
        bijection = flow.transform.continuous()
        if bijection is None:
            return

        def pieces() -> Iterator[tuple[Tensor, Tensor | None, Tensor | None]]:
            for rows in self.chunks(chunk_rows):
                context = flow.model_features(rows[:, flow.model_dim :])
                yield flow.transform.continuous_rows(rows[:, : flow.model_dim], context)
                on_chunk()

        set_dataset_statistics(bijection, pieces)

    def _convert(self, noise: torch.Generator, *, hide: bool) -> None:
        total = 0.0
        pairs = zip(
            torch.split(self._rows, COPY_ROWS), torch.split(self._table, COPY_ROWS), strict=True
        )
        for target, rows in pairs:
            converted, log_det = _converted(self._flow, rows, noise, name=self._name, hide=hide)
            target.copy_(converted)
            total += log_det
        self.constant = total / len(self)


def generator_of(*numbers: int) -> torch.Generator:
    """Return a generator on the CPU that is seeded by these numbers alone."""
    mixed = np.random.SeedSequence(numbers).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(mixed[0]))


def _converted(
    flow: Flow, rows: Tensor, noise: torch.Generator, *, name: str, hide: bool
) -> tuple[Tensor, float]:
    """Return rows in the model's space, and the sum of the preprocessing's log-determinants."""
    placed = rows.to(flow.device)
    spread = flow.preprocessing.spread(placed[:, : flow.dim], generator=noise)
    features, log_det = flow.preprocessing.inverse(spread)
    if hide:
        features = flow.preprocessing.hide(features, generator=noise)
    context = placed[:, flow.dim :]
    if flow.context is not None:
        context = flow.context.prepare(context)
    result = torch.cat([features.to(flow.dtype), context.to(flow.dtype)], dim=1)
    if not (torch.isfinite(result).all() and torch.isfinite(log_det).all()):
        raise FitError(f"the {name} rows hold values that are not finite")
    return result, float(log_det.sum())
