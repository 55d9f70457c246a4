"""Densities in the plane on a grid, to look at before anything is trained."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from flows.errors import FitError
from flows.variational.targets import Target, Window

_REACH = 4.0  # of the first window that is looked at, where the target names none
_ROUNDS = 12  # 4 * 4 ** 6 = 16,384, and 4 / 2 ** 12
_CHUNK_ROWS = 1024  # a formula of 2,000 terms holds as many numbers for each
_SHOWN = 8.0  # nats below the peak: what is less likely is as good as empty


@dataclass(frozen=True)
class Plane:
    """Log density on a grid.

    Attributes:
        window: Box that the grid fills, its edges included.
        log_density: Values in nats below the peak, from -inf to 0; rows are values of the second
            coordinate, columns of the first.
    """

    window: Window
    log_density: Float[Tensor, "size size"]


def density_in_plane(target: Target, *, size: int) -> Plane:
    """Return the log density of a target of two coordinates, where it is not as good as nothing.

    The window is that of the target. Without one, a square around 0 is made larger or smaller until
    what is within 8 nats of the peak fills it.

    Raises:
        FitError: The target has other than two coordinates, or its density is finite nowhere in the
            window.
    """
    if target.dim != 2:
        raise FitError("only a density of two coordinates is drawn in the plane")
    if target.window is not None:
        return Plane(target.window, _values(target, target.window, size))
    window = Window.square(_REACH)
    values = _values(target, window, size)
    for _ in range(_ROUNDS):
        better = _better_window(window, values)
        if better == window:
            break
        window, values = better, _values(target, better, size)
    return Plane(window, values)


def _values(target: Target, window: Window, size: int) -> Tensor:
    sides = [
        torch.linspace(low, high, size, dtype=torch.float64)
        for low, high in zip(window.lower, window.upper, strict=True)
    ]
    second, first = torch.meshgrid(sides[1], sides[0], indexing="ij")
    rows = torch.stack([first, second], dim=-1).reshape(-1, 2)
    with torch.no_grad():
        values = torch.cat(
            [
                target.log_density(rows[start : start + _CHUNK_ROWS])
                for start in range(0, len(rows), _CHUNK_ROWS)
            ]
        )
    values = torch.where(values.isfinite(), values, -torch.inf).reshape(size, size)
    if values.max() == -torch.inf:
        raise FitError("the density is finite nowhere in the window")
    return values - values.max()


def _better_window(window: Window, values: Tensor) -> Window:
    """Return a wider window along a coordinate whose edges have density, a narrower one where half is empty."""
    shown = values > -_SHOWN
    lower, upper = list(window.lower), list(window.upper)
    for axis, along in enumerate((shown.any(dim=0), shown.any(dim=1))):
        places = along.nonzero().flatten()
        first, last, end = int(places[0]), int(places[-1]), len(along) - 1
        low, width = lower[axis], upper[axis] - lower[axis]
        if first == 0:
            lower[axis] -= width / 2
        if last == end:
            upper[axis] += width / 2
        if first > 0 and last < end and last - first < end / 2:
            lower[axis] = low + width * (first - 1 - 0.1 * (last - first)) / end
            upper[axis] = low + width * (last + 1 + 0.1 * (last - first)) / end
    return Window(tuple(lower), tuple(upper))
