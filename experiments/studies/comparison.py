"""Comparison of HAF, MAF and Real NVP: five layers each, with as many active parameters."""

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from experiments.data import catalogue as data
from experiments.data.sources import Data, DataMissingError, read_arrays
from experiments.scores import log_densities, score_metrics
from experiments.studies.study import Cell, Study
from flows import (
    EpochReport,
    FitOptions,
    Flow,
    HafSpec,
    MafSpec,
    RealNvpSpec,
    build,
    fit,
)
from flows.bijections.autoregressive.masked import MaskedLinear
from workers.trainer.discrete import column_noise

FiveLayers = MafSpec | HafSpec | RealNvpSpec

FAMILIES = ("maf", "haf", "realnvp")
SEEDS = 3
# Width of the MAF; the others get the width that brings their active parameters nearest to its.
MAF_WIDTH = 100
_WIDEST = 1024
# Number of training steps on every data set, large or small.
STEPS = 10_000
# Robust as jobs are by default: single rows of shuttle, counted in full, make trainings diverge.
OPTIONS = FitOptions(
    learning_rate=1e-3,
    weight_decay=1e-6,
    batch_size=250,
    patience=None,
    schedule="cosine",
    row_loss_bound=30.0,
    restarts=3,
)
_BSDS300_ROWS = (50_000, 10_000, 50_000)
_QUICK_EPOCHS = 2


def spec_of(family: str, width: int) -> FiveLayers:
    """Return five layers of a family, each network with one hidden layer, as in the thesis.

    They have tanh instead of ReLU: on rows far outside of the others ReLU's log scales grow with
    the distance, and single rows of shuttle get densities that are NaN.
    """
    match family:
        case "maf":
            return MafSpec(hidden=[width])
        case "haf":
            return HafSpec(hidden=[width])
        case _:
            return RealNvpSpec(layers=5, hidden=[width])


def count_active(spec: FiveLayers, dim: int) -> int:
    """Return the number of trainable parameters without those that a mask keeps at 0."""
    flow = build(spec, dim, seed=0)
    masked = sum(
        int((module.mask == 0).sum())
        for module in flow.modules()
        if isinstance(module, MaskedLinear)
    )
    return sum(parameter.numel() for parameter in flow.parameters()) - masked


def matched(family: str, dim: int) -> tuple[FiveLayers, int]:
    """Return the spec whose active parameters are nearest to those of the MAF, and their number."""
    wanted = count_active(spec_of("maf", MAF_WIDTH), dim)
    low, high = 1, _WIDEST
    while high - low > 1:
        middle = (low + high) // 2
        if count_active(spec_of(family, middle), dim) <= wanted:
            low = middle
        else:
            high = middle
    counts = {width: count_active(spec_of(family, width), dim) for width in (low, high)}
    width = min(counts, key=lambda width: abs(counts[width] - wanted))
    return spec_of(family, width), counts[width]


class ComparisonStudy(Study):
    """Study of the three families on one data set; a seed draws split, weights and row order."""

    def __init__(self, name: str, title: str, load: Callable[[Path, int], Data]) -> None:
        self.name = f"haf-{name}"
        self.title = title
        self.data = name
        self.cells = tuple(
            {"family": family, "seed": seed} for seed in range(SEEDS) for family in FAMILIES
        )
        self._load = load

    def measure(self, cell: Cell, folder: Path, *, quick: bool) -> dict[str, Any]:
        """Return the mean test log-likelihood in nats per row, with and without the least likely."""
        rows = self._load(folder, cell["seed"])
        epochs = round(STEPS / math.ceil(len(rows.train) / OPTIONS.batch_size))
        if quick:
            rows, epochs = rows.quick(), _QUICK_EPOCHS
        dim = rows.train.shape[1]
        spec, active = matched(cell["family"], dim)
        flow = build(spec, dim, seed=cell["seed"])
        options = dataclasses.replace(OPTIONS, max_epochs=epochs, seed=cell["seed"])
        last = _fit(flow, rows, options)
        return score_metrics(log_densities(flow, rows.test)) | {
            "train_rows": len(rows.train),
            "dim": dim,
            "hidden": spec.hidden[0],
            "active_parameters": active,
            "epochs": last.epoch,
            "best_epoch": last.best_epoch,
            "stop_reason": last.stop_reason,
            "restarts": last.restarts,
            "training_seconds": round(last.seconds, 1),
        }


def _fit(flow: Flow, rows: Data, options: FitOptions) -> EpochReport:
    *_, last = fit(flow, rows.train, rows.validation, options=options)
    return last


def _normal_rows(name: str) -> Callable[[Path, int], Data]:
    def load(folder: Path, seed: int) -> Data:
        arrays = read_arrays(folder, name, f"anomaly_{name}.npz", "arrays X and y")
        return _shuffled(arrays["X"][arrays["y"] == 0], seed)

    return load


def _housing(folder: Path, seed: int) -> Data:
    path = folder / "cal_housing.npy"
    if not path.is_file():
        raise DataMissingError("housing", path, "the table of StatLib, price last")
    return _shuffled(np.load(path, allow_pickle=False), seed)


def _bsds300(folder: Path, _seed: int) -> Data:
    rows = data.load("bsds300", folder)
    parts = zip((rows.train, rows.validation, rows.test), _BSDS300_ROWS, strict=True)
    return Data(*(part[:count].clone() for part, count in parts))


def _shuffled(table: NDArray[Any], seed: int) -> Data:
    """Split into 80 % training, 10 % validation and 10 % test rows, standardised by the first.

    Columns that repeat their values get the noise that a job would give them, once.
    """
    rows = torch.from_numpy(table.astype(np.float64))
    generator = torch.Generator().manual_seed(seed)
    rows = rows[torch.randperm(len(rows), generator=generator)]
    noise = torch.rand(rows.shape, generator=generator, dtype=torch.float64) - 0.5
    rows += column_noise(rows).widths * noise
    tenth = len(rows) // 10
    train = rows[: -2 * tenth]
    rows = (rows - train.mean(dim=0)) / train.std(dim=0)
    parts: list[Tensor] = [rows[: -2 * tenth], rows[-2 * tenth : -tenth], rows[-tenth:]]
    return Data(*(part.float() for part in parts))


STUDIES: dict[str, Study] = {
    study.name: study
    for study in (
        ComparisonStudy("thyroid", "normal rows of thyroid", _normal_rows("thyroid")),
        ComparisonStudy("pendigits", "normal rows of pendigits", _normal_rows("pendigits")),
        ComparisonStudy("mammography", "normal rows of mammography", _normal_rows("mammography")),
        ComparisonStudy("housing", "California housing", _housing),
        ComparisonStudy("shuttle", "normal rows of shuttle", _normal_rows("shuttle")),
        ComparisonStudy("bsds300", "the first 50,000 patches of BSDS300", _bsds300),
    )
}
