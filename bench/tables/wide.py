"""Made tables of 45,000 rows and ten columns, some of which nearly follow from others."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.float64]

_ROWS = 45_730  # as the table of protein structures of UCI has


def _curves(_folder: Path) -> Rows:
    """Return 45,000 rows of ten columns that depend on three of them by curves, with heavy tails.

    Stands in for tables of measurements, such as those of proteins, which hold sums, ratios and areas
    of the same few lengths.
    """
    random = np.random.default_rng(0)
    size, shape, charge = random.normal(size=(3, 45_000))
    area = np.exp(1.0 + 0.5 * size)
    exposed = area * (0.3 + 0.1 * np.tanh(shape)) * np.exp(0.05 * random.normal(size=len(size)))
    columns = [
        area + 0.05 * random.standard_t(4, size=len(size)),
        exposed,
        exposed / area + 0.005 * random.normal(size=len(size)),
        area**1.5 + 0.2 * random.standard_t(3, size=len(size)) * np.exp(0.3 * size),
        np.sin(2 * shape) + 0.1 * random.normal(size=len(size)),
        charge * exposed + 0.1 * random.normal(size=len(size)),
        charge**2 + shape + 0.05 * random.standard_t(5, size=len(size)),
        np.where(random.random(len(size)) < 0.3, 3 + 0.2 * charge, size)
        + 0.05 * random.normal(size=len(size)),
        np.log1p(area * exposed) + 0.02 * random.normal(size=len(size)),
        size + shape - charge + 0.1 * random.normal(size=len(size)),
    ]
    return np.stack(columns, axis=1)


def _protein_like(_folder: Path) -> Rows:
    """Return what a table of protein structures looks like: areas, masses, and a ratio of two areas.

    The ratio has five decimals, the areas two; other columns are whole numbers, or mixtures of two
    kinds of structures.
    """
    random = np.random.default_rng(1)
    size, compact = random.normal(size=_ROWS), random.random(_ROWS) < 0.3
    area = np.exp(9.1 + 0.4 * size)
    share = 1 / (1 + np.exp(-(-0.85 + 0.25 * random.standard_t(6, size=_ROWS) + 0.1 * size)))
    part = area * 0.011 * np.exp(0.25 * random.normal(size=_ROWS)) * (share / 0.3) ** 0.5
    mass = area * 137 * np.exp(0.02 * random.standard_t(4, size=_ROWS)) * (1 + 0.1 * share)
    deviation = area * 0.0145 * np.exp(0.1 * random.normal(size=_ROWS)) * (share / 0.3) ** -0.1
    blur = np.where(compact, 0.3, 0.05) * random.normal(size=_ROWS)
    distance = area**0.9 * 1.1 * np.exp(blur)
    penalty = np.round(np.exp(3.7 + 0.8 * random.normal(size=_ROWS) + 0.3 * size))
    places = 34 + 6 * np.tanh(size) - 3 * compact + 2 * random.normal(size=_ROWS)
    near = 2 + 1.2 * random.random(_ROWS)
    far = 11 + 5 * np.tanh(random.normal(size=_ROWS) + size * 0.5)
    columns = [
        np.where(compact, near, far),
        np.round(area, 2),
        np.round(area * share, 2),
        np.round(share, 5),
        part,
        np.round(mass),
        deviation,
        np.round(distance, 2),
        penalty,
        places,
    ]
    return np.stack(columns, axis=1)


def _shapes(folder: Path) -> Rows:
    """Return measures of handwritten digits: ink, edges, their ratio, moments and their root.

    Args:
        folder: Folder of `mnist.npz`.
    """
    with np.load(folder / "mnist.npz", allow_pickle=False) as arrays:
        pictures = np.concatenate([arrays["x_train"], arrays["x_test"]])
    chosen = np.random.default_rng(0).permutation(len(pictures))[:_ROWS]
    x = pictures[chosen].astype(np.float64) / 255
    rows, columns = np.mgrid[:28, :28]
    ink = x.sum((1, 2))
    steps = np.hypot(np.diff(x, axis=1)[:, :, :-1], np.diff(x, axis=2)[:, :-1, :])
    edges = steps.sum((1, 2))

    def mean(values: Rows) -> Rows:
        weighted: Rows = (x * values).sum((1, 2)) / ink
        return weighted

    down = rows - mean(rows)[:, None, None]
    right = columns - mean(columns)[:, None, None]
    tall, wide = mean(down * down), mean(right * right)
    measures = [
        np.sqrt(mean(np.hypot(right, down))),
        ink,
        edges,
        np.round(edges / ink, 5),
        mean(np.clip(-down, 0, 1)),
        (x * x).sum((1, 2)) * 137.2,
        tall,
        wide,
        mean(right * down),
        np.sqrt(wide + tall),
    ]
    return np.stack(measures, axis=1)


MADE: dict[str, Callable[[Path], Rows]] = {
    "made": _curves,
    "protein-like": _protein_like,
    "shapes": _shapes,
}
