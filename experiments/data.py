"""Data sets of the experiments: files of the user's, prepared as in the literature, and points that are made.

The tables are those of Papamakarios et al. 2017 (appendix D.2), from the original files; a file `NAME.npz`
with the prepared arrays train, validation and test is used instead if the folder holds one.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

QUICK_ROWS = 400


class DataMissingError(Exception):
    """Data set that is not in the folder."""

    def __init__(self, name: str, path: Path, hint: str) -> None:
        super().__init__(f"{name} needs {path.name} in {path.parent}: {hint}")


@dataclass(frozen=True, eq=False)
class Data:
    """Rows for training, validation and test."""

    train: Tensor
    validation: Tensor
    test: Tensor

    def quick(self) -> "Data":
        """Return a few rows of each part."""
        return Data(*(part[:QUICK_ROWS] for part in (self.train, self.validation, self.test)))


def read_arrays(folder: Path, name: str, file: str, hint: str) -> dict[str, NDArray[Any]]:
    """Return the arrays of an npz file, which holds no objects.

    Args:
        hint: Description of its content, for a user who lacks the file.

    Raises:
        DataMissingError: There is no such file.
    """
    path = folder / file
    if not path.is_file():
        raise DataMissingError(name, path, hint)
    with np.load(path, allow_pickle=False) as archive:
        return {key: archive[key] for key in archive}


def tensors(*parts: NDArray[Any]) -> Data:
    """Return the three parts in float32."""
    return Data(*(torch.from_numpy(np.ascontiguousarray(part, np.float32)) for part in parts))


def load(name: str, folder: Path | None) -> Data:
    """Return the data set of that name.

    Args:
        name: Name of the data set, one of `SOURCES`.
        folder: Folder of its file; not needed for generated data.

    Raises:
        DataMissingError: There is no such file.
    """
    return SOURCES[name](folder or Path())


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


# Share of the rows that is held out where a data set comes without such rows.
HELD_OUT = 0.1
# A feature whose smallest value is in more rows than this is dropped: it would be a spike.
_MOST_REPEATS = 5
_MOST_CORRELATED = 0.98
_GAS_SHARE = 0.25

Table = NDArray[Any]


def hepmass(folder: Path) -> Data:
    """Return the standardised events of class 1, without features that repeat their minimum."""
    parts = []
    for file in ("1000_train.csv", "1000_test.csv"):
        path = _found("hepmass", folder / file, "the file of the UCI repository, unpacked")
        rows = np.loadtxt(path, delimiter=",", skiprows=1)
        # The first column is the class; the published test file has one column too many.
        parts.append(rows[rows[:, 0] == 1, 1:28])
    train, test = parts
    kept = _without_spikes(train)
    train, test = train[:, kept], test[:, kept]
    mean, std = train.mean(axis=0), train.std(axis=0)
    train, validation = _cut(train)
    return tensors(*((part - mean) / std for part in (train, validation, test)))


def power(folder: Path) -> Data:
    """Return active power, voltage, three meters and the minute of the day, with noise, shuffled.

    The date, the reactive power and the intensity are dropped, and rows with a missing value.
    """
    hint = "the file of the UCI repository, unpacked"
    path = _found("power", folder / "household_power_consumption.txt", hint)
    with path.open(encoding="ascii") as lines:
        next(lines)
        complete = [line.rstrip().split(";") for line in lines if "?" not in line]
    rows = np.array(
        [[cells[2], cells[4], *cells[6:9], _minutes(cells[1])] for cells in complete if all(cells)],
        np.float64,
    )
    generator = np.random.default_rng(42)
    generator.shuffle(rows)
    rows += generator.random(rows.shape) * [0.001, 0.01, 1.0, 1.0, 1.0, 1.0]
    return _standardised(*_in_three(rows))


def gas(folder: Path) -> Data:
    """Return a random quarter of the rows, without sensors that correlate over 0.98."""
    path = _found("gas", folder / "ethylene_CO.txt", "the file of the UCI repository, unpacked")
    rows = np.loadtxt(path, skiprows=1, dtype=np.float32)[:, 3:]
    chosen = np.random.default_rng(42).permutation(len(rows))[: int(_GAS_SHARE * len(rows))]
    rows = rows[chosen].astype(np.float64)
    while (together := (np.corrcoef(rows.T) > _MOST_CORRELATED).sum(axis=1) > 1).any():
        rows = np.delete(rows, int(together.argmax()), axis=1)
    rows = (rows - rows.mean(axis=0)) / rows.std(axis=0)
    return tensors(*_in_three(rows))


def miniboone(folder: Path) -> Data:
    """Return the signal's events without empty events and without repeated features.

    Reads the file of the UCI repository, or its cleaned rows as `miniboone.npy`.
    """
    cleaned = folder / "miniboone.npy"
    if cleaned.is_file():
        return _standardised(*_in_three(np.load(cleaned, allow_pickle=False)))
    hint = "the file of the UCI repository; or miniboone.npy, its cleaned rows"
    path = _found("miniboone", folder / "MiniBooNE_PID.txt", hint)
    with path.open(encoding="ascii") as lines:
        signal, _background = map(int, next(lines).split())
        rows = np.loadtxt(lines, max_rows=signal)
    rows = rows[rows[:, 0] >= -100]
    return _standardised(*_in_three(rows[:, _without_spikes(rows)]))


def prepared_or(name: str, prepare: Callable[[Path], Data]) -> Callable[[Path], Data]:
    """Return a function that reads `NAME.npz` if it exists, else prepares the original file."""

    def read(folder: Path) -> Data:
        if not (folder / f"{name}.npz").is_file():
            return prepare(folder)
        arrays = read_arrays(folder, name, f"{name}.npz", "arrays train, validation and test")
        return tensors(arrays["train"], arrays["validation"], arrays["test"])

    return read


def _found(name: str, path: Path, hint: str) -> Path:
    if not path.is_file():
        raise DataMissingError(name, path, hint)
    return path


def _minutes(text: str) -> int:
    moment = time.fromisoformat(text)
    return 60 * moment.hour + moment.minute


def _without_spikes(rows: Table) -> Table:
    """Return the features that have their smallest value in few rows, as the authors count."""
    kept: Table = (rows == rows.min(axis=0)).sum(axis=0) <= _MOST_REPEATS
    return kept


def _cut(rows: Table) -> tuple[Table, Table]:
    held_out = int(HELD_OUT * len(rows))
    return rows[:-held_out], rows[-held_out:]


def _in_three(rows: Table) -> tuple[Table, Table, Table]:
    """Return training, validation and test rows: the last tenth, and a tenth of the rest."""
    rest, test = _cut(rows)
    return *_cut(rest), test


def _standardised(train: Table, validation: Table, test: Table) -> Data:
    """Standardise by the mean and standard deviation of training and validation rows."""
    known = np.concatenate([train, validation])
    mean, std = known.mean(axis=0), known.std(axis=0)
    return tensors(*((part - mean) / std for part in (train, validation, test)))


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
    **{
        prepare.__name__: prepared_or(prepare.__name__, prepare)
        for prepare in (hepmass, power, gas, miniboone)
    },
    "moons": lambda _folder: moons(),
    "picture": lambda _folder: picture(),
}
