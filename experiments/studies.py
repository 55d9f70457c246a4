"""Studies: many small trainings over several data sets, whose results form one table each."""

import dataclasses
import json
import math
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from experiments import data
from experiments.data import Data, DataMissingError, read_arrays
from experiments.local_job import run_job
from experiments.run import Progress, log_densities, score_metrics
from flows import (
    EncoderSpec,
    FitOptions,
    Flow,
    GaussianSpec,
    HafSpec,
    IafSpec,
    LatentSpec,
    LatentTarget,
    MafSpec,
    RealNvpSpec,
    VariationalOptions,
    build,
    compile_flow,
    count_parameters,
    fit,
    fit_variational,
    row_evidence,
)
from flows.bijections.autoregressive.masked import MaskedLinear
from flows.specs.family import FamilySpec
from models_store.requests.encoding import encoded_columns, profile
from tabular.columns import Column

Cell = dict[str, Any]
Rows = NDArray[np.float32]
Scores = NDArray[np.float64]


@dataclass(frozen=True)
class Study:
    """List of cells, each measured on its own.

    Attributes:
        cells: Keys of the measurements, in the order in which they are made.
        measure: Function from a cell, the folder of the data sets and True for a smoke test of a few rows
            and steps, to the numbers of the cell. It raises `DataMissingError` if the data are not there.
    """

    name: str
    title: str
    cells: tuple[Cell, ...]
    measure: Callable[[Cell, Path, bool], dict[str, Any]]


def run_study(
    study: Study, *, data: Path, results: Path, quick: bool, progress: Progress
) -> dict[str, Any]:
    """Measure the cells that the study's result lacks; it is written after each of them.

    Args:
        results: Folder of `NAME.json`.
        quick: True for a few rows and steps of each cell with seed 0; nothing is written.

    Returns:
        The result: the study's name and its `runs`, each a cell with its numbers.

    Raises:
        DataMissingError: The data set is not there.
    """
    path = results / f"{study.name}.json"
    runs = (
        [] if quick or not path.is_file() else json.loads(path.read_text(encoding="utf-8"))["runs"]
    )
    cells = [cell for cell in study.cells if not quick or cell["seed"] == 0]
    result = {"name": study.name, "title": study.title, "runs": runs}
    result["versions"] = {name: version(name) for name in ("densityd", "torch", "numpy")}
    result["machine"] = f"{platform.machine()}, one thread"
    for count, cell in enumerate(cells, 1):
        if any(cell.items() <= run.items() for run in runs):
            continue
        runs.append(cell | study.measure(cell, data, quick))
        progress(count, len(cells), f"{study.name}: {_line(runs[-1])}")
        if not quick:
            results.mkdir(parents=True, exist_ok=True)
            unfinished = path.with_suffix(".partial")
            unfinished.write_text(_text(result), encoding="utf-8")
            unfinished.replace(path)
    return result


def _text(result: dict[str, Any]) -> str:
    """Return JSON with a line for each run."""
    rest = {key: value for key, value in result.items() if key != "runs"}
    lines = ",\n  ".join(json.dumps(run) for run in result["runs"])
    return json.dumps(rest, indent=1)[:-2] + f',\n "runs": [\n  {lines}\n ]\n}}\n'


def _line(run: dict[str, Any]) -> str:
    return ", ".join(
        f"{key} {value:.2f}" if isinstance(value, float) else f"{key} {value}"
        for key, value in run.items()
        if not isinstance(value, list)
    )


_CHUNK_ROWS = 4096
_MOST_COMPONENTS = 10


@dataclass(frozen=True)
class Ranked:
    """Result of a detector: scores, larger for odder rows, and its cost."""

    scores: Scores
    seconds: float
    epochs: int | None = None


Detector = Callable[[Rows, Rows, int], Ranked]

# Field `flow` of the requests; None leaves the choice to the service.
FLOWS: dict[str, dict[str, Any] | None] = {
    "defaults": None,
    "gaussian": {"family": "gaussian"},
    "made": {"family": "made"},
    "made-mixture": {"family": "made", "conditional": "mixture"},
    "maf": {"family": "maf"},
    "maf-mixture": {"family": "maf", "base": "made_mixture"},
    "realnvp": {"family": "realnvp"},
    "nice": {"family": "nice"},
    "haf": {"family": "haf"},
    "nsf": {"family": "nsf"},
    "nsf-coupling": {"family": "nsf", "coupling": True},
    "naf": {"family": "naf"},
    "planar": {"family": "planar"},
    "radial": {"family": "radial"},
    "sylvester": {"family": "sylvester"},
    "iaf": {"family": "iaf"},
}


def log_prob(flow: Flow, rows: Rows) -> Scores:
    """Return log densities in chunks; a density of 0 becomes the lowest float."""
    with torch.no_grad():
        chunks = torch.split(torch.from_numpy(rows), _CHUNK_ROWS)
        scores = torch.cat([flow.log_prob(chunk) for chunk in chunks])
    found: Scores = scores.double().numpy()
    return np.nan_to_num(found, nan=-np.finfo(np.float64).max)


def by_flow(flow: dict[str, Any] | None) -> Detector:
    """Rank by -log_prob of a flow that a job trained with the defaults for all other fields."""

    def rank(train: Rows, test: Rows, seed: int) -> Ranked:
        job = run_job(train, {"flow": flow, "optimisation": {"seed": seed}})
        return Ranked(-log_prob(job.flow, test), job.seconds, job.version["metrics"]["epochs"])

    return rank


def by_isolation_forest(train: Rows, test: Rows, seed: int) -> Ranked:
    """Rank by scikit-learn's isolation forest with its defaults."""
    from sklearn.ensemble import IsolationForest  # noqa: PLC0415  seconds to import

    return _timed(lambda: -IsolationForest(random_state=seed).fit(train).score_samples(test))


def by_neighbours(train: Rows, test: Rows, _seed: int) -> Ranked:
    """Rank by the distance to the fifth nearest training row, after standardisation."""
    from sklearn.neighbors import NearestNeighbors  # noqa: PLC0415  seconds to import

    def rank() -> Scores:
        known, new = _standardised(train, test)
        distances, _ = NearestNeighbors(n_neighbors=5).fit(known).kneighbors(new)
        last: Scores = distances[:, -1]
        return last

    return _timed(rank)


def by_mixture(train: Rows, test: Rows, seed: int) -> Ranked:
    """Rank by a mixture of Gaussians with full covariances, their number chosen by the BIC."""
    from sklearn.mixture import GaussianMixture  # noqa: PLC0415  seconds to import

    def rank() -> Scores:
        known, new = _standardised(train, test)
        fits = [
            GaussianMixture(count, reg_covar=1e-4, random_state=seed).fit(known)
            for count in range(1, _MOST_COMPONENTS + 1)
        ]
        best = min(fits, key=lambda mixture: mixture.bic(known))
        scores: Scores = -best.score_samples(new)
        return scores

    return _timed(rank)


def _standardised(train: Rows, test: Rows) -> tuple[Scores, Scores]:
    mean, std = train.mean(axis=0, dtype=np.float64), train.std(axis=0, dtype=np.float64)
    std[std == 0] = 1.0
    return (train - mean) / std, (test - mean) / std


def _timed(rank: Callable[[], Scores]) -> Ranked:
    began = time.perf_counter()
    scores = rank()
    return Ranked(scores, time.perf_counter() - began)


DETECTORS: dict[str, Detector] = {
    "isolation-forest": by_isolation_forest,
    "neighbours": by_neighbours,
    "mixture": by_mixture,
    **{name: by_flow(flow) for name, flow in FLOWS.items()},
}


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


def _compared(
    load: Callable[[Path, int], Data],
    cell: Cell,
    folder: Path,
    quick: bool,  # noqa: FBT001  as a study calls it
) -> dict[str, Any]:
    """Return the mean test log-likelihood in nats per row, with and without the least likely."""
    rows = load(folder, cell["seed"])
    epochs = round(STEPS / math.ceil(len(rows.train) / OPTIONS.batch_size))
    if quick:
        rows, epochs = rows.quick(), _QUICK_EPOCHS
    dim = rows.train.shape[1]
    spec, active = matched(cell["family"], dim)
    flow = build(spec, dim, seed=cell["seed"])
    options = dataclasses.replace(OPTIONS, max_epochs=epochs, seed=cell["seed"])
    *_, last = fit(flow, rows.train, rows.validation, options=options)
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
    columns = [Column(name=f"x{number}") for number in range(rows.shape[1])]
    statistics = profile(columns, rows.numpy())
    encoding = encoded_columns(columns, statistics, rows=len(rows), grids=True)
    rows += torch.tensor([max(one.step, one.noise) for one in encoding]) * noise
    tenth = len(rows) // 10
    train = rows[: -2 * tenth]
    rows = (rows - train.mean(dim=0)) / train.std(dim=0)
    parts: list[Tensor] = [rows[: -2 * tenth], rows[-2 * tenth : -tenth], rows[-tenth:]]
    return Data(*(part.float() for part in parts))


LATENTS, UNITS, FEATURES, IAF_UNITS = 32, 200, 100, 100
"""Latent variables, units of encoder and decoder, features of the encoded row, units of an IAF."""

POSTERIORS = {"diagonal": 0, "iaf-2": 2, "iaf-4": 4}
"""Posteriors by name, with their layers of inverse autoregressive flow."""

LATENT_SEEDS, TEST_ROWS, SAMPLES = 2, 2_000, 100
LATENT_OPTIONS = VariationalOptions(
    learning_rate=2e-3, schedule="cosine", batch_size=100, iterations=6_000, report_every=200
)
PUBLISHED_GAIN = 2.06
"""Nats by which two layers of IAF raise the bound of Kingma et al. 2016 (table 1, width 320)."""

_QUICK_ITERATIONS, _QUICK_TEST_ROWS = 20, 20


def posterior_of(name: str) -> FamilySpec:
    """Return the specification of q(z | x): every one has the same encoder.

    Args:
        name: Name of the posterior, one of `POSTERIORS`.
    """
    encoder = EncoderSpec(hidden=[UNITS], features=FEATURES)
    if layers := POSTERIORS[name]:
        return IafSpec(layers=layers, hidden=[IAF_UNITS], batch_norm=None, encoder=encoder)
    return GaussianSpec(covariance="diagonal", encoder=encoder)


def _amortised(cell: Cell, folder: Path, quick: bool) -> dict[str, Any]:  # noqa: FBT001  as a study calls it
    """Return mean ELBO and importance-weighted bound of test rows in nats, and the curve."""
    rows = data.load("binarized_mnist", folder)
    test = _spread(rows.test, _QUICK_TEST_ROWS if quick else TEST_ROWS)
    spec = LatentSpec(flow=posterior_of(cell["posterior"]), likelihood="bernoulli", hidden=[UNITS])
    columns = rows.train.shape[1]
    flow = build(spec, LATENTS, context_dim=columns, seed=cell["seed"])
    options = VariationalOptions(
        **vars(LATENT_OPTIONS)
        | {"seed": cell["seed"]}
        | ({"iterations": _QUICK_ITERATIONS} if quick else {})
    )
    began, curve, last = time.process_time(), [], None
    for last in fit_variational(flow, LatentTarget(flow, rows.train), options=options):
        curve.append([last.iteration, round(last.elbo, 3)])
    assert last is not None  # noqa: S101  there is one report at least
    seconds = time.process_time() - began
    elbo, bound = row_evidence(compile_flow(flow), test.numpy(), samples=SAMPLES, seed=cell["seed"])
    return {
        "test_elbo": float(elbo.mean()),
        "test_elbo_standard_error": float(elbo.std()) / len(test) ** 0.5,
        "test_bound": float(bound.mean()),
        "test_bound_standard_error": float(bound.std()) / len(test) ** 0.5,
        "test_rows": len(test),
        "samples": SAMPLES,
        "parameters": count_parameters(spec, LATENTS, columns),
        "iterations": last.iteration,
        "best_iteration": last.best_iteration,
        "training_processor_seconds": round(seconds, 1),
        "curve": curve,
    }


def _spread(rows: Tensor, count: int) -> Tensor:
    """Return rows from all parts of a table, whose order is no random one."""
    return rows[:: max(1, len(rows) // count)][:count]


SETS = ("thyroid", "mammography", "pendigits", "shuttle")
SPLITS: tuple["SplitName", ...] = ("first", "random")
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


def _ranked(name: str, cell: Cell, folder: Path, quick: bool) -> dict[str, Any]:  # noqa: FBT001  as a study calls it
    """Return areas under the ROC curve and average precision, in percent."""
    from sklearn.metrics import (  # noqa: PLC0415  seconds to import
        average_precision_score,
        roc_auc_score,
    )

    split = load_split(folder, name, cell["split"], cell["seed"])
    train = split.train[:_QUICK_ROWS] if quick else split.train
    ranked = DETECTORS[cell["detector"]](train, split.test, cell["seed"])
    return {
        "auroc": round(100 * float(roc_auc_score(split.labels, ranked.scores)), 3),
        "aupr": round(100 * float(average_precision_score(split.labels, ranked.scores)), 3),
        "seconds": round(ranked.seconds, 1),
        "epochs": ranked.epochs,
    }


COMPARISONS = [
    ("thyroid", "normal rows of thyroid", _normal_rows("thyroid")),
    ("pendigits", "normal rows of pendigits", _normal_rows("pendigits")),
    ("mammography", "normal rows of mammography", _normal_rows("mammography")),
    ("housing", "California housing", _housing),
    ("shuttle", "normal rows of shuttle", _normal_rows("shuttle")),
    ("bsds300", "the first 50,000 patches of BSDS300", _bsds300),
]
GROUPS: dict[str, list[Study]] = {
    "haf-comparison": [
        Study(
            f"haf-{name}",
            title,
            tuple({"family": family, "seed": n} for n in range(SEEDS) for family in FAMILIES),
            partial(_compared, load),
        )
        for name, title, load in COMPARISONS
    ],
    "anomaly": [
        Study(
            f"anomaly-{name}",
            f"Detectors of anomalies on {name}",
            tuple(
                {"detector": detector, "split": split, "seed": seed}
                for seed in range(SEEDS)
                for split in SPLITS
                for detector in DETECTORS
            ),
            partial(_ranked, name),
        )
        for name in SETS
    ],
    "amortised": [
        Study(
            "amortised-mnist",
            "Variational autoencoders of binarised MNIST",
            tuple({"posterior": p, "seed": n} for n in range(LATENT_SEEDS) for p in POSTERIORS),
            _amortised,
        )
    ],
}
STUDIES = {study.name: study for group in GROUPS.values() for study in group}
