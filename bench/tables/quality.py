"""Quality of models at equal processor time, beside zuko, scikit-learn's mixture, forest and neighbours.

Each method gets the same seconds of processor time of one thread, and the table shows what it took:
ours as `optimisation.max_seconds`, over all children of a search; a peer stops when they are over,
with the weights that were best on the validation rows, or when those have not improved for 30 epochs.
All clocks are those of the processor, so that other work on the machine takes no method's time. Tables give the log density of held-out rows, sets of
anomalies the area under the ROC curve and the average precision of -log p. A file keeps what was
measured, so that a run that was ended continues where it was.
"""

import argparse
import json
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.ensemble import IsolationForest
from sklearn.metrics import average_precision_score, roc_auc_score
from sklearn.mixture import GaussianMixture
from sklearn.neighbors import NearestNeighbors
from torch import Tensor

from bench.tables.wide import MADE
from experiments.local_job import run_job
from experiments.studies.anomaly import SETS, load_split
from experiments.studies.detectors import log_prob

Rows = NDArray[np.float32]
Scores = NDArray[np.float64]
Score = Callable[[Rows], Scores]

TABLES = ("housing", *MADE)
_COMPONENTS = (1, 2, 4, 8, 16, 32)
_PATIENCE, _BATCH, _RATE, _WIDTH = 30, 256, 1e-3, 64
_WORST = 0.01
_LOWEST = -1e30


@dataclass(frozen=True)
class Task:
    """Rows to train on, rows to score, and 1 for an anomaly, if there are any.

    Attributes:
        name: Name of the table or set.
        seed: Seed of the split and of the methods.
        train: Rows to train on; a method takes its validation rows of them.
        test: Rows to score.
        labels: Anomalies among them; None: they are held-out rows of a table.
    """

    name: str
    seed: int
    train: Rows
    test: Rows
    labels: NDArray[np.int64] | None = None


def measure(arguments: Sequence[str]) -> str:
    """Measure what is not in the file yet, and return the tables."""
    options = _parser().parse_args(arguments)
    torch.set_num_threads(1)
    done: dict[str, Any] = (
        json.loads(options.results.read_text()) if options.results.exists() else {}
    )
    for name in (*options.tables, *options.sets):
        for seed in range(options.seeds):
            task: Task | None = None
            for method in options.methods:
                key = f"{name} {seed} {method} {options.seconds:g}"
                if key in done:
                    continue
                task = task or _task(options.data, name, seed)
                if task.labels is None and method in ("forest", "neighbours"):
                    continue
                done[key] = _measured(task, method, options.seconds)
                options.results.write_text(json.dumps(done, indent=1))
    return _tables(done, options)


def _measured(task: Task, method: str, seconds: float) -> dict[str, float]:
    began = time.process_time()
    with patch("time.monotonic", time.process_time):
        score = METHODS[method](task, seconds)
    spent = time.process_time() - began
    scores = np.nan_to_num(score(task.test), nan=_LOWEST, neginf=_LOWEST, posinf=-_LOWEST)
    if task.labels is None:
        kept = np.sort(scores)[int(_WORST * len(scores)) :]
        found = {"mean": scores.mean(), "median": np.median(scores), "trimmed": kept.mean()}
    else:
        found = {
            "auroc": 100 * roc_auc_score(task.labels, -scores),
            "precision": 100 * average_precision_score(task.labels, -scores),
        }
    return {name: round(float(value), 3) for name, value in (found | {"seconds": spent}).items()}


def _ours(flow: dict[str, Any] | str | None) -> Callable[[Task, float], Score]:
    def fit(task: Task, seconds: float) -> Score:
        optimisation = {"seed": task.seed, "max_seconds": seconds}
        job = run_job(task.train, {"flow": flow, "optimisation": optimisation})
        return lambda rows: log_prob(job.flow, rows)

    return fit


def _zuko(kind: str) -> Callable[[Task, float], Score]:
    """Return the training of a flow of zuko, as wide as our default of a table of medium size."""

    def fit(task: Task, seconds: float) -> Score:
        import zuko  # noqa: PLC0415  a peer, which the other methods do without

        torch.manual_seed(task.seed)
        dim = task.train.shape[1]
        scale = _Scale(task.train)
        flow = getattr(zuko.flows, kind)(dim, transforms=5, hidden_features=[_WIDTH, _WIDTH])
        _train(flow, scale(task.train), seconds, task.seed)

        def score(rows: Rows) -> Scores:
            with torch.no_grad():
                chunks = torch.split(scale(rows), 4096)
                found = torch.cat([flow().log_prob(chunk) for chunk in chunks])
            return found.double().numpy() - scale.log_volume

        return score

    return fit


class _Scale:
    """Standardisation by the training rows."""

    def __init__(self, train: Rows) -> None:
        self._mean, self._std = train.mean(axis=0), train.std(axis=0)
        self.log_volume = float(np.log(self._std.astype(np.float64)).sum())

    def __call__(self, rows: Rows) -> Tensor:
        return torch.from_numpy((rows - self._mean) / self._std)


def _train(flow: Any, rows: Tensor, seconds: float, seed: int) -> None:  # noqa: ANN401  zuko's
    """Train by Adam until the time is over, and keep the best weights."""
    until = time.monotonic() + seconds
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed))
    held_out, train = rows[order[: len(rows) // 10]], rows[order[len(rows) // 10 :]]
    optimiser = torch.optim.Adam(flow.parameters(), lr=_RATE)
    best, kept, behind = -np.inf, flow.state_dict(), 0
    while time.monotonic() < until and behind < _PATIENCE:
        for batch in train[torch.randperm(len(train))].split(_BATCH):
            loss = -flow().log_prob(batch).mean()
            optimiser.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(flow.parameters(), 5.0)
            optimiser.step()
        with torch.no_grad():
            reached = float(flow().log_prob(held_out).mean())
        behind += 1
        if reached > best:
            kept = {name: value.clone() for name, value in flow.state_dict().items()}
            best, behind = reached, 0
    flow.load_state_dict(kept)


def _mixture(task: Task, seconds: float) -> Score:
    """Return the mixture with the least criterion, of as many sizes as the time allows."""
    until, scale = time.monotonic() + seconds, _Scale(task.train)
    rows, found = scale(task.train).double().numpy(), []
    for components in _COMPONENTS:
        model = GaussianMixture(components, random_state=task.seed, reg_covar=1e-4, max_iter=300)
        found.append((model.fit(rows).bic(rows), components, model))
        if time.monotonic() > until:
            break
    model = min(found, key=lambda one: one[:2])[2]

    def score(rows: Rows) -> Scores:
        scores: Scores = model.score_samples(scale(rows).double().numpy())
        return scores - scale.log_volume

    return score


def _forest(task: Task, _seconds: float) -> Score:
    model = IsolationForest(random_state=task.seed).fit(task.train)
    return lambda rows: np.asarray(model.score_samples(rows))


def _neighbours(task: Task, _seconds: float) -> Score:
    scale = _Scale(task.train)
    model = NearestNeighbors(n_neighbors=5).fit(scale(task.train).numpy())
    return lambda rows: -model.kneighbors(scale(rows).numpy())[0][:, -1].astype(np.float64)


# Families with their default hyperparameters. (An IAF takes one pass a column to give a density: it is for variational inference.)
_FAMILIES = ("gaussian", "made", "haf", "naf", "nice", "planar", "radial", "sylvester")

METHODS: dict[str, Callable[[Task, float], Score]] = {
    "defaults": _ours(None),
    "auto": _ours("auto"),
    "maf": _ours({"family": "maf", "activation": "tanh", "batch_norm": None}),
    "nsf": _ours({"family": "nsf", "layers": 3, "hidden": [_WIDTH, _WIDTH]}),
    "realnvp": _ours({"family": "realnvp", "layers": 8, "hidden": [_WIDTH], "batch_norm": None}),
    "gaussian mixture": _ours({"family": "gaussian_mixture"}),
    **{family: _ours({"family": family}) for family in _FAMILIES},
    "zuko MAF": _zuko("MAF"),
    "zuko NSF": _zuko("NSF"),
    "scikit-learn mixture": _mixture,
    "forest": _forest,
    "neighbours": _neighbours,
}


def _task(folder: Path, name: str, seed: int) -> Task:
    if name in SETS:
        split = load_split(folder, name, "random", seed)
        return Task(name, seed, split.train, split.test, split.labels)
    table = MADE[name](folder) if name in MADE else np.load(folder / "cal_housing.npy")
    rows: Rows = table.astype(np.float32)
    rows = rows[np.random.default_rng(seed).permutation(len(rows))]
    held_out = len(rows) // 10
    return Task(name, seed, rows[held_out:], rows[:held_out])


def _tables(done: dict[str, Any], options: argparse.Namespace) -> str:
    lines: list[str] = []
    for names, members in (
        (options.tables, ("mean", "median", "trimmed", "seconds")),
        (options.sets, ("auroc", "precision", "seconds")),
    ):
        if names:
            told = " / ".join(members)
            lines += [f"| method | {' | '.join(f'{name}, {told}' for name in names)} |"]
            lines += ["| --- " * (1 + len(names)) + "|", *_lines(done, options, names, members), ""]
    return "\n".join(lines)


def _lines(
    done: dict[str, Any], options: argparse.Namespace, names: Sequence[str], members: Sequence[str]
) -> Iterator[str]:
    found = defaultdict(list)
    for key, values in done.items():
        name, rest = key.split(" ", 1)
        seed, rest = rest.split(" ", 1)
        method, seconds = rest.rsplit(" ", 1)
        if seconds == f"{options.seconds:g}" and int(seed) < options.seeds:
            found[name, method].append(values)
    for method in options.methods:
        cells = [
            " / ".join(f"{statistics.mean(v[m] for v in found[name, method]):.2f}" for m in members)
            if found[name, method]
            else ""
            for name in names
        ]
        yield f"| {method} | {' | '.join(cells)} |"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m bench quality", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder of the data sets")
    parser.add_argument("--results", type=Path, default=Path("data/quality.json"))
    parser.add_argument("--seconds", type=float, default=60.0, help="time of each method (60)")
    parser.add_argument("--seeds", type=int, default=1, help="number of splits (1)")
    parser.add_argument("--tables", nargs="*", default=TABLES, choices=TABLES, metavar="NAME")
    parser.add_argument("--sets", nargs="*", default=SETS, choices=SETS, metavar="NAME")
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=list(METHODS))
    return parser
