"""Anomaly detection with the defaults alone, beside scikit-learn's isolation forest.

A folder holds `anomaly_NAME.npz` files with `X`, the rows, and `y`, 1 for an anomaly. Per seed, a
random half of the normal rows is the table of a job, which splits it further by its own defaults;
the other half and all anomalies are ranked by -log_prob. One thread. `densityd reproduce anomaly`
measures all families in the same way, and keeps the results.
"""

import argparse
import statistics
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from sklearn.metrics import roc_auc_score

from experiments.local_job import Job, run_job
from experiments.studies.anomaly import SETS, load_split
from experiments.studies.detectors import Rows, by_isolation_forest, log_prob

SPEED_ROWS, SPEED_COLUMNS = 50_000, 9


def measure(arguments: Sequence[str]) -> str:
    """Train on each set and seed and return a table of areas under the ROC curve."""
    options = _parser().parse_args(arguments)
    torch.set_num_threads(1)
    lines = [
        "| set | seed | AUROC | isolation forest | epochs | seconds |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    ours: list[float] = []
    theirs: list[float] = []
    for name in options.sets:
        for seed in range(options.seeds):
            split = load_split(options.data, name, "random", seed)
            job = _run_job(split.train, seed)
            forest = by_isolation_forest(split.train, split.test, seed)
            ours.append(100 * roc_auc_score(split.labels, -log_prob(job.flow, split.test)))
            theirs.append(100 * roc_auc_score(split.labels, forest.scores))
            lines.append(
                f"| {name} | {seed} | {ours[-1]:.2f} | {theirs[-1]:.2f} |"
                f" {job.epochs} | {job.seconds:.0f} |"
            )
    lines.append(f"| mean | | {statistics.mean(ours):.2f} | {statistics.mean(theirs):.2f} | | |")
    if options.speed:
        job = _run_job(_speed_table(), 0)
        lines += ["", f"{SPEED_ROWS:,} rows x {SPEED_COLUMNS}: {job.epochs} epochs,"]
        lines[-1] += f" {job.seconds:.0f} s."
    return "\n".join(lines) + "\n"


def _run_job(rows: Rows, seed: int) -> Job:
    return run_job(rows, {"optimisation": {"seed": seed}})


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m bench anomaly", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder of anomaly_NAME.npz")
    parser.add_argument("--sets", nargs="+", default=SETS, metavar="NAME")
    parser.add_argument("--seeds", type=int, default=3, help="number of random halves (3)")
    parser.add_argument("--speed", action="store_true", help="also time a job on 50,000 x 9")
    return parser


def _speed_table() -> Rows:
    generator = np.random.default_rng(0)
    mixing = generator.normal(size=(SPEED_COLUMNS, SPEED_COLUMNS))
    rows = np.tanh(generator.normal(size=(SPEED_ROWS, SPEED_COLUMNS)) @ mixing)
    noise = generator.normal(size=rows.shape)
    return (rows + 0.1 * noise).astype(np.float32)
