"""The data of the experiments: read from a folder of the user's, or made."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from experiments import tabular
from experiments.sources import Data, read_arrays, tensors


def load(name: str, folder: Path | None) -> Data:
    """The data set of that name.

    Args:
        name: one of `SOURCES`.
        folder: where its file is; not needed for those that are made.

    Raises:
        DataMissingError: there is no such file.
    """
    return SOURCES[name](folder or Path())


def _binarised_mnist(folder: Path) -> Data:
    hint = "arrays train, valid and test of packed bits, the split of Larochelle"
    arrays = read_arrays(folder, "binarized_mnist", "binarized_mnist.npz", hint)
    return tensors(*(np.unpackbits(arrays[part], axis=1) for part in ("train", "valid", "test")))


def _bits(name: str) -> Callable[[Path], Data]:
    def read(folder: Path) -> Data:
        arrays = read_arrays(folder, name, f"{name}.npz", "arrays train, valid and test of 0 and 1")
        return tensors(arrays["train"], arrays["valid"], arrays["test"])

    return read


def _mnist(folder: Path) -> Data:
    arrays = read_arrays(folder, "mnist", "mnist.npz", "arrays x_train and x_test of uint8 pixels")
    train, test = (arrays[part].reshape(-1, 784) for part in ("x_train", "x_test"))
    return tensors(train[:50_000], train[50_000:], test)


def _bsds300(folder: Path) -> Data:
    """Patches of 8 x 8 grey pixels (Zoran and Weiss 2011): noise, no mean, one pixel less."""
    hint = "arrays train, val and test of 64 uint8 pixels"
    arrays = read_arrays(folder, "bsds300", "bsds300_patches_uint8.npz", hint)
    generator = np.random.default_rng(0)
    parts = []
    for name in ("train", "val", "test"):
        pixels = arrays[name].astype(np.float32)
        pixels += generator.random(pixels.shape, np.float32)
        pixels /= 256
        pixels -= pixels.mean(axis=1, keepdims=True)
        parts.append(pixels[:, :-1])
    return tensors(*parts)


def _moons(_folder: Path) -> Data:
    """Two interleaved half circles with noise, 5000 rows to train on."""
    generator = np.random.default_rng(0)
    angle = generator.uniform(0, np.pi, 7000)
    lower = generator.random(7000) < 0.5
    x = np.where(lower, 1 - np.cos(angle), np.cos(angle))
    y = np.where(lower, 0.5 - np.sin(angle), np.sin(angle))
    rows = np.column_stack([x, y]) + generator.normal(scale=0.1, size=(7000, 2))
    rows = (rows - rows.mean(axis=0)) / rows.std(axis=0)
    return tensors(rows[:5000], rows[5000:6000], rows[6000:])


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


def _picture(_folder: Path) -> Data:
    """The dark pixels of a picture as points, with uniform noise of a pixel's width."""
    coarse = np.array([[cell == "#" for cell in line] for line in _PICTURE])
    dark = np.argwhere(np.kron(coarse, np.ones((_PIXELS, _PIXELS), bool)))
    generator = np.random.default_rng(0)
    chosen = dark[generator.integers(len(dark), size=24_000)]
    points = chosen[:, ::-1] * [1.0, -1.0] + generator.uniform(-0.5, 0.5, size=chosen.shape)
    points = (points - points.mean(axis=0)) / points.std(axis=0)
    return tensors(points[:20_000], points[20_000:22_000], points[22_000:])


SOURCES: dict[str, Callable[[Path], Data]] = {
    "binarized_mnist": _binarised_mnist,
    "dna": _bits("dna"),
    "mushrooms": _bits("mushrooms"),
    "mnist": _mnist,
    "bsds300": _bsds300,
    **tabular.SOURCES,
    "moons": _moons,
    "picture": _picture,
}
