"""Pictures of a version: drawn by a process of its own, with a time limit, and kept."""

import asyncio
import io
import sys
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from enum import StrEnum
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from app.fairness.turns import Turns, owner_here
from app.problems.problem import Problem
from tables.sandbox.child_environment import child_environment

Numbers = Mapping[str, NDArray[Any]]
PictureFormat = Literal["png", "svg"]

_TIMEOUT_S = 60.0
_MAX_KEPT_BYTES = 32 * 1024 * 1024


class PlotKind(StrEnum):
    """What a picture shows."""

    LEARNING_CURVE = "learning-curve"
    MARGINALS = "marginals"
    PAIRS = "pairs"
    DENSITY = "density"
    NOISE = "noise"
    IMAGES = "images"


class Plots:
    """Draws one picture of a project at a time, and two in all, so that matplotlib's seconds and megabytes stay elsewhere.

    Belongs to one event loop. Pictures are kept, least recently asked first to go: a version never
    changes, and neither do its pictures.
    """

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[str, PlotKind, str], bytes] = OrderedDict()
        self._turns = Turns(2, each=1)

    def known(self, version: str, kind: PlotKind, format: PictureFormat) -> bytes | None:  # noqa: A002 - the word for it
        """The picture, if it was drawn before.

        Args:
            version: what tells it from all others, its checkpoint's key.
            kind: what it shows.
            format: of the file.
        """
        picture = self._kept.get((version, kind, format))
        if picture is not None:
            self._kept.move_to_end((version, kind, format))
        return picture

    async def draw(
        self,
        version: str,
        kind: PlotKind,
        format: PictureFormat,  # noqa: A002 - as above
        numbers: Callable[[], Awaitable[Numbers]],
    ) -> bytes:
        """Draw a picture, and keep it.

        Args:
            version: as for `known`.
            kind: as for `known`.
            format: as for `known`.
            numbers: computes the numbers that it shows.

        Raises:
            Problem: `overloaded`, when it takes too long, or others wait for too many pictures;
                what `numbers` raises.
        """
        try:
            async with asyncio.timeout(_TIMEOUT_S), self._turns.turn(owner_here()):
                # Many may have asked for the same one and waited.
                picture = self.known(version, kind, format)
                if picture is None:
                    picture = await _draw(kind, format, await numbers())
        except TimeoutError as error:
            raise Problem("overloaded", "Drawing takes too long now; try again later.") from error
        self._kept[version, kind, format] = picture
        while sum(map(len, self._kept.values())) > _MAX_KEPT_BYTES:
            self._kept.popitem(last=False)
        return picture


async def _draw(kind: PlotKind, format: PictureFormat, numbers: Numbers) -> bytes:  # noqa: A002 - as above
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **numbers)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", "-m", "app.plots.drawing", kind, format),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        env=child_environment(),
    )
    try:
        picture, _ = await process.communicate(buffer.getvalue())
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode != 0:
        raise RuntimeError("a picture could not be drawn")
    return picture
