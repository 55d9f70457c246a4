"""Points in the plane whose density is known: two moons, and the dark pixels of a picture."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from experiments.data.sources import Data, tensors

Points = NDArray[np.float64]

_MOONS, _BLUR = 7000, 0.1
_PICTURE = (
    "..............",
    "..##......##..",
    "..##......##..",
    "..##......##..",
    ".###..##..###.",
    "####.####.####",
    "#.##.#..#.##.#",
    "#.##.#..#.##.#",
    "####.####.####",
    ".###..##..###.",
    "..............",
)
_PIXELS = 20


def moons() -> Data:
    """Return two interleaved half circles with noise, 5000 of them training rows."""
    rows = _moons()
    rows = (rows - rows.mean(axis=0)) / rows.std(axis=0)
    return tensors(rows[:5000], rows[5000:6000], rows[6000:])


def _moons() -> Points:
    generator = np.random.default_rng(0)
    angle = generator.uniform(0, np.pi, _MOONS)
    lower = generator.random(_MOONS) < 0.5
    return _on_moons(angle, lower) + generator.normal(scale=_BLUR, size=(_MOONS, 2))


def _on_moons(angle: Points, lower: NDArray[np.bool_]) -> Points:
    x = np.where(lower, 1 - np.cos(angle), np.cos(angle))
    y = np.where(lower, 0.5 - np.sin(angle), np.sin(angle))
    return np.column_stack([x, y])


def moons_density(cells: Points) -> Points:
    """Return the true density of standardised points: Gaussians along both half circles."""
    rows = _moons()
    scale = rows.std(axis=0)
    angle = np.tile((np.arange(200) + 0.5) / 200 * np.pi, 2)
    centres = _on_moons(angle, np.arange(400) < 200)
    places = cells * scale + rows.mean(axis=0)
    total = np.zeros(len(cells))
    for centre in centres:
        squares = ((places - centre) ** 2).sum(axis=1)
        total += np.exp(-squares / (2 * _BLUR**2))
    density: Points = total / len(centres) / (2 * np.pi * _BLUR**2) * scale.prod()
    return density


def picture() -> Data:
    """Return the dark pixels of a picture as points, with uniform noise of a pixel's width."""
    rows = _pixels()
    rows = (rows - rows.mean(axis=0)) / rows.std(axis=0)
    return tensors(rows[:20_000], rows[20_000:22_000], rows[22_000:])


def _pixels() -> Points:
    dark = np.argwhere(_dark())
    generator = np.random.default_rng(0)
    chosen = dark[generator.integers(len(dark), size=24_000)]
    noisy: Points = chosen[:, ::-1] * [1.0, -1.0] + generator.uniform(-0.5, 0.5, size=chosen.shape)
    return noisy


def _dark() -> NDArray[np.bool_]:
    coarse = np.array([[cell == "#" for cell in line] for line in _PICTURE])
    fine: NDArray[np.bool_] = np.kron(coarse, np.ones((_PIXELS, _PIXELS), bool))
    return fine


def picture_density(cells: Points) -> Points:
    """Return the true density of standardised points: the same at every dark pixel."""
    rows, dark = _pixels(), _dark()
    scale = rows.std(axis=0)
    places = np.rint((cells * scale + rows.mean(axis=0)) * [1.0, -1.0]).astype(int)
    inside = ((places >= 0) & (places < dark.shape[::-1])).all(axis=1)
    column, row = np.where(inside[:, None], places, 0).T
    density: Points = (inside & dark[row, column]) / dark.sum() * scale.prod()
    return density


DENSITIES: dict[str, Callable[[Points], Points]] = {
    "moons": moons_density,
    "picture": picture_density,
}
