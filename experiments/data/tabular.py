"""Tables prepared as in Papamakarios et al. 2017 (appendix D.2), from the original files.

A file `NAME.npz` with the prepared arrays train, validation and test is used instead if the
folder holds one.
"""

from collections.abc import Callable
from datetime import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from experiments.data.sources import Data, DataMissingError, read_arrays, tensors

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


SOURCES: dict[str, Callable[[Path], Data]] = {
    prepare.__name__: prepared_or(prepare.__name__, prepare)
    for prepare in (hepmass, power, gas, miniboone)
}
