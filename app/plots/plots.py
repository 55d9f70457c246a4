"""Plots of a version, which a child process draws in bounded time, and a cache of them."""

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from enum import StrEnum
from typing import Any, Literal, NamedTuple

from numpy.typing import NDArray

from app.limits import Turns, owner_here
from app.plots.drawing import draw_file
from app.problems.problem import Problem
from tabular.errors import SandboxLimitError
from tabular.processes import run

Numbers = Mapping[str, NDArray[Any]]
PlotFormat = Literal["png", "svg"]
PlotTheme = Literal["light", "dark"]

_DRAWING_S = 50.0  # the largest plots take 5
_AT_ONCE = 2
_MAX_KEPT_BYTES = 32 * 1024 * 1024


class PlotKind(StrEnum):
    """Kind of plot."""

    LEARNING_CURVE = "learning-curve"
    MARGINALS = "marginals"
    PAIRS = "pairs"
    DENSITY = "density"
    NOISE = "noise"
    IMAGES = "images"


class Drawing(NamedTuple):
    """Plot to draw, of a version and in a format and theme.

    Attributes:
        version: Key of the version's checkpoint.
        theme: Theme of its colours.
    """

    version: str
    kind: PlotKind
    format: PlotFormat
    theme: PlotTheme


class Plots:
    """Queue of plots to draw, and cache of those that were drawn; belongs to one event loop.

    Two are drawn at a time, one of each project. A version never changes, and neither do its plots:
    the cache drops the least recently used ones once it is full.

    Attributes:
        timeout_s: Seconds that a plot may take, its turn included.
    """

    def __init__(self) -> None:
        self.timeout_s = 60.0
        self._kept: OrderedDict[Drawing, bytes] = OrderedDict()
        self._turns = Turns(_AT_ONCE, each=1)

    def known(self, drawing: Drawing) -> bytes | None:
        """Return a plot that was drawn before, if the cache has it."""
        plot = self._kept.get(drawing)
        if plot is not None:
            self._kept.move_to_end(drawing)
        return plot

    async def draw(self, drawing: Drawing, numbers: Callable[[], Awaitable[Numbers]]) -> bytes:
        """Draw a plot, and keep it.

        Raises:
            Problem: `overloaded`, when the project's turn and drawing take too long; `plot-unavailable`
                when it takes too much of the processor or of memory; any problem that `numbers` raises.
        """
        try:
            async with asyncio.timeout(self.timeout_s), self._turns.turn(owner_here()):
                # Many may have asked for the same one and waited.
                plot = self.known(drawing)
                if plot is None:
                    plot = await self._draw(drawing, dict(await numbers()))
        except SandboxLimitError as error:
            raise Problem(
                "plot-unavailable", "Drawing takes more time or memory than is allowed."
            ) from error
        except TimeoutError as error:
            raise Problem("overloaded", "Drawing takes too long now; try again later.") from error
        self._kept[drawing] = plot
        while sum(map(len, self._kept.values())) > _MAX_KEPT_BYTES:
            self._kept.popitem(last=False)
        return plot

    async def _draw(self, drawing: Drawing, numbers: dict[str, NDArray[Any]]) -> bytes:
        _, kind, file_format, theme = drawing

        def work() -> bytes:
            return run(draw_file, kind.value, file_format, theme, numbers, timeout_s=_DRAWING_S)

        return await asyncio.to_thread(work)
