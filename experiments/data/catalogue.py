"""Data sets of the experiments: read from a folder of the user's, or generated."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from experiments.data import points, tabular
from experiments.data.sources import Data, read_arrays, tensors


def load(name: str, folder: Path | None) -> Data:
    """Return the data set of that name.

    Args:
        name: Name of the data set, one of `SOURCES`.
        folder: Folder of its file; not needed for generated data.

    Raises:
        DataMissingError: There is no such file.
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
    """Read patches of 8 x 8 grey pixels (Zoran and Weiss 2011): noise, no mean, one pixel less."""
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


SOURCES: dict[str, Callable[[Path], Data]] = {
    "binarized_mnist": _binarised_mnist,
    "dna": _bits("dna"),
    "mushrooms": _bits("mushrooms"),
    "mnist": _mnist,
    "bsds300": _bsds300,
    **tabular.SOURCES,
    "moons": lambda _folder: points.moons(),
    "picture": lambda _folder: points.picture(),
}
