"""The data of the experiments: read from a folder of the user's, or made."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

# The part of the training rows that is held out where a data set comes without validation rows.
VALIDATION_SHARE = 0.1
QUICK_ROWS = 400


class DataMissingError(Exception):
    """A data set is not in the folder."""

    def __init__(self, name: str, path: Path, hint: str) -> None:
        super().__init__(f"{name} needs {path.name} in {path.parent}: {hint}")


@dataclass(frozen=True, eq=False)
class Data:
    """Rows to train on, to stop by and to test."""

    train: Tensor
    validation: Tensor
    test: Tensor

    def quick(self) -> "Data":
        """A few rows of each part."""
        return Data(*(part[:QUICK_ROWS] for part in (self.train, self.validation, self.test)))


def load(name: str, folder: Path | None) -> Data:
    """The data set of that name.

    Args:
        name: one of `SOURCES`.
        folder: where its file is; not needed for those that are made.

    Raises:
        DataMissingError: there is no such file.
    """
    return SOURCES[name](folder or Path())


def _read(folder: Path, name: str, file: str, hint: str) -> dict[str, NDArray[Any]]:
    path = folder / file
    if not path.is_file():
        raise DataMissingError(name, path, hint)
    with np.load(path, allow_pickle=False) as archive:
        return {key: archive[key] for key in archive}


def _tensors(*parts: NDArray[Any]) -> Data:
    return Data(*(torch.from_numpy(np.ascontiguousarray(part, np.float32)) for part in parts))


def _binarised_mnist(folder: Path) -> Data:
    hint = "arrays train, valid and test of packed bits, the split of Larochelle"
    arrays = _read(folder, "binarized_mnist", "binarized_mnist.npz", hint)
    return _tensors(*(np.unpackbits(arrays[part], axis=1) for part in ("train", "valid", "test")))


def _bits(name: str) -> Callable[[Path], Data]:
    def read(folder: Path) -> Data:
        arrays = _read(folder, name, f"{name}.npz", "arrays train, valid and test of 0 and 1")
        return _tensors(arrays["train"], arrays["valid"], arrays["test"])

    return read


def _mnist(folder: Path) -> Data:
    arrays = _read(folder, "mnist", "mnist.npz", "arrays x_train and x_test of uint8 pixels")
    train, test = (arrays[part].reshape(-1, 784) for part in ("x_train", "x_test"))
    return _tensors(train[:50_000], train[50_000:], test)


def _bsds300(folder: Path) -> Data:
    """Patches of 8 x 8 grey pixels (Zoran and Weiss 2011): noise, no mean, one pixel less."""
    hint = "arrays train, val and test of 64 uint8 pixels"
    arrays = _read(folder, "bsds300", "bsds300_patches_uint8.npz", hint)
    generator = np.random.default_rng(0)
    parts = []
    for name in ("train", "val", "test"):
        pixels = arrays[name].astype(np.float32)
        pixels += generator.random(pixels.shape, np.float32)
        pixels /= 256
        pixels -= pixels.mean(axis=1, keepdims=True)
        parts.append(pixels[:, :-1])
    return _tensors(*parts)


def _hepmass(folder: Path) -> Data:
    """HEPMASS as Papamakarios et al. 2017 (appendix D.2) prepare it.

    The events of class 1 alone; features in which one value is repeated more than five times are
    left out; the rest is standardised by the training rows.
    """
    parts = []
    for file in ("1000_train.csv", "1000_test.csv"):
        path = folder / file
        if not path.is_file():
            raise DataMissingError("hepmass", path, "the file of the UCI repository, unpacked")
        rows = np.loadtxt(path, delimiter=",", skiprows=1, dtype=np.float64)
        # The first column is the class; the published test file has one column too many.
        parts.append(rows[rows[:, 0] == 1, 1:28])
    train, test = parts
    repeats = [np.unique(column, return_counts=True)[1].max() for column in train.T]
    kept = [index for index, count in enumerate(repeats) if count <= _MOST_REPEATS]
    train, test = train[:, kept], test[:, kept]
    mean, std = train.mean(axis=0), train.std(axis=0)
    train, test = ((part - mean) / std for part in (train, test))
    held_out = int(len(train) * VALIDATION_SHARE)
    return _tensors(train[:-held_out], train[-held_out:], test)


_MOST_REPEATS = 5


def _prepared(name: str) -> Callable[[Path], Data]:
    def read(folder: Path) -> Data:
        hint = "arrays train, validation and test, prepared as Papamakarios et al. 2017"
        arrays = _read(folder, name, f"{name}.npz", hint)
        return _tensors(arrays["train"], arrays["validation"], arrays["test"])

    return read


def _moons(_folder: Path) -> Data:
    """Two interleaved half circles with noise, 5000 rows to train on."""
    generator = np.random.default_rng(0)
    angle = generator.uniform(0, np.pi, 7000)
    lower = generator.random(7000) < 0.5
    x = np.where(lower, 1 - np.cos(angle), np.cos(angle))
    y = np.where(lower, 0.5 - np.sin(angle), np.sin(angle))
    rows = np.column_stack([x, y]) + generator.normal(scale=0.1, size=(7000, 2))
    rows = (rows - rows.mean(axis=0)) / rows.std(axis=0)
    return _tensors(rows[:5000], rows[5000:6000], rows[6000:])


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
    return _tensors(points[:20_000], points[20_000:22_000], points[22_000:])


SOURCES: dict[str, Callable[[Path], Data]] = {
    "binarized_mnist": _binarised_mnist,
    "dna": _bits("dna"),
    "mushrooms": _bits("mushrooms"),
    "mnist": _mnist,
    "bsds300": _bsds300,
    "hepmass": _hepmass,
    "power": _prepared("power"),
    "gas": _prepared("gas"),
    "miniboone": _prepared("miniboone"),
    "moons": _moons,
    "picture": _picture,
}
