"""Columns that repeat their values, and the noise that gives them a density."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from flows import Denoise
from models_store.requests.training_rows import NOISE_SHARE, NOISE_WIDTH, repeated

SAMPLE_ROWS = 1_000_000
"""The most rows that are looked at, evenly spread over all."""

_ROWS_PER_DISTINCT_VALUE = 10
_SAME = 1e-6  # gaps below this share of the largest value are rounding
_ON_GRID = 0.02  # of a step, beside what rounding of the values explains


@dataclass(frozen=True, eq=False)
class Noise:
    """Noise on each column, as `flows.build` takes it.

    Attributes:
        steps: Steps of the columns whose values are multiples of one, 0 for others.
        widths: Widths of the uniform noise, 0 where there is none.
        spikes: Share for each column of the rows that its most frequent value has, if that is
            much for a column that is not discrete; else 0.
        repeated: Numbers of values of the columns of which samples have no others, 0 for others.
    """

    steps: Tensor
    widths: Tensor
    spikes: Tensor
    repeated: list[int]

    def denoise(self, rows: Tensor) -> Denoise | None:
        """Return the maps that take the noise off samples; None if all are rounded to their steps alone."""
        stepped = [place for place, count in enumerate(self.repeated) if count]
        places = sorted({*self.spikes.nonzero()[:, 0].tolist(), *stepped})
        return Denoise.fit(rows, self.widths, places, repeated=self.repeated) if places else None

    def notes(self, columns: Sequence[str]) -> Iterator[str]:
        """Return messages about the noise for the caller."""
        discrete = [name for name, step in zip(columns, self.steps.tolist(), strict=True) if step]
        if discrete:
            yield f"Discrete, trained with noise of the width of their step: {_listed(discrete)}."
        spiky = [
            f"{name!r} ({share:.0%})"
            for name, share in zip(columns, self.spikes.tolist(), strict=True)
            if share
        ]
        if spiky:
            yield (
                "One value holds a large share of the rows, so noise of"
                f" {NOISE_WIDTH:g} standard deviations bounds the density; samples come without"
                f" it: {_listed(spiky)}."
            )


def column_noise(rows: Tensor) -> Noise:
    """Return the noise on columns that repeat their values.

    A column is discrete if it has at least ten rows a distinct value, or if its values are whole
    numbers; its noise is as wide as its step, the smallest gap between two values, or as the
    median gap if the values are no multiples of a step. If one
    value has 5 % of the rows or more, and with such noise a density above 1 per standard deviation
    (2.5 times the peak of a Gaussian), the noise is half a standard deviation wide at least: the
    value then adds to the density no more than twice its share, per deviation.
    """
    stride = -(-len(rows) // SAMPLE_ROWS)
    found = [_column(column.double().cpu().numpy()) for column in rows[::stride].unbind(dim=1)]
    *noise, counts = zip(*found, strict=True)
    steps, widths, spikes = (torch.tensor(part, dtype=torch.float64) for part in noise)
    return Noise(steps=steps, widths=widths, spikes=spikes, repeated=list(counts))


def _column(column: NDArray[np.float64]) -> tuple[float, float, float, int]:
    """Return a column's step, the width of its noise, the share of its spike, and its repeated values."""
    values, counts = np.unique(column, return_counts=True)
    values, share = _merged(values), float(counts.max() / len(column))
    step = width = 0.0
    if len(values) > 1 and _is_discrete(values, len(column)):
        gaps = np.diff(values)
        least, size = float(gaps.min()), float(np.abs(values).max())
        # A third has no end: of many steps together, rounding leaves more digits.
        step = size / round(size / least) if _on_grid(values, least) else 0.0
        width = step or float(np.median(gaps))
    std = float(column.std())
    if share < NOISE_SHARE or share * std <= width:
        return step, width, 0.0, repeated(counts)
    return step, max(width, NOISE_WIDTH * std), share, repeated(counts)


def _merged(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return sorted values without those that differ from the one before by rounding alone."""
    tolerance = _SAME * float(np.abs(values).max())
    return values[np.diff(values, prepend=-np.inf) > tolerance]


def _is_discrete(values: NDArray[np.float64], rows: int) -> bool:
    few = len(values) * _ROWS_PER_DISTINCT_VALUE <= rows
    return few or bool((values == np.rint(values)).all())


def _on_grid(values: NDArray[np.float64], step: float) -> bool:
    """Return whether all values are multiples of the step."""
    multiples = values / step
    off = np.abs(multiples - np.rint(multiples))
    return bool((off <= _ON_GRID + _SAME * np.abs(multiples)).all())


def _listed(names: Sequence[str], most: int = 10) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
