"""Anomaly detection on labelled tables: each family and other detectors, on two kinds of split."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from experiments.data.sources import read_arrays
from experiments.studies.detectors import DETECTORS, Rows
from experiments.studies.study import Cell, Study

SETS = ("thyroid", "mammography", "pendigits", "shuttle")
SPLITS: tuple["SplitName", ...] = ("first", "random")
SEEDS = 3
_QUICK_ROWS = 300

SplitName = Literal["first", "random"]

# Published areas under the ROC curve in percent, on the first half of the normal rows.
PUBLISHED: dict[str, dict[str, float]] = {
    "isolation forest": dict(zip(SETS, (98.96, 88.02, 97.22, 99.65), strict=True)),
    "nearest neighbours": dict(zip(SETS, (98.68, 87.58, 99.87, 99.91), strict=True)),
    "planar flow, ranked by its log-determinant": dict(
        zip(SETS, (98.42, 78.93, 83.45, 86.50), strict=True)
    ),
}


@dataclass(frozen=True, eq=False)
class Split:
    """Normal rows to train on, and rows to rank, with 1 for an anomaly."""

    train: Rows
    test: Rows
    labels: NDArray[np.int64]


def load_split(folder: Path, name: str, kind: SplitName, seed: int) -> Split:
    """Return half of the normal rows to train on, the other half and all anomalies to rank.

    Args:
        folder: Folder of `anomaly_NAME.npz` with `X`, the rows, and `y`, 1 for an anomaly.
        name: Name of the data set.
        kind: First half in the order of the file, or a random half.
        seed: Seed of a random half.

    Raises:
        DataMissingError: There is no such file.
    """
    arrays = read_arrays(folder, name, f"anomaly_{name}.npz", "arrays X and y")
    rows, labels = arrays["X"].astype(np.float32), arrays["y"]
    normal, anomalies = rows[labels == 0], rows[labels == 1]
    if kind == "random":
        normal = normal[np.random.default_rng(seed).permutation(len(normal))]
    half = len(normal) // 2
    return Split(
        train=normal[:half],
        test=np.concatenate([normal[half:], anomalies]),
        labels=np.repeat([0, 1], [len(normal) - half, len(anomalies)]),
    )


class AnomalyStudy(Study):
    """Study of all detectors on one data set."""

    def __init__(self, name: str) -> None:
        self.name = f"anomaly-{name}"
        self.title = f"Detectors of anomalies on {name}"
        self.data = name
        self.cells = tuple(
            {"detector": detector, "split": split, "seed": seed}
            for seed in range(SEEDS)
            for split in SPLITS
            for detector in DETECTORS
        )

    def measure(self, cell: Cell, folder: Path, *, quick: bool) -> dict[str, Any]:
        """Return areas under the ROC curve and average precision, in percent."""
        from sklearn.metrics import (  # noqa: PLC0415  seconds to import
            average_precision_score,
            roc_auc_score,
        )

        split = load_split(folder, self.data, cell["split"], cell["seed"])
        train = split.train[:_QUICK_ROWS] if quick else split.train
        ranked = DETECTORS[cell["detector"]](train, split.test, cell["seed"])
        return {
            "auroc": round(100 * float(roc_auc_score(split.labels, ranked.scores)), 3),
            "aupr": round(100 * float(average_precision_score(split.labels, ranked.scores)), 3),
            "seconds": round(ranked.seconds, 1),
            "epochs": ranked.epochs,
        }


STUDIES: dict[str, Study] = {study.name: study for study in map(AnomalyStudy, SETS)}
