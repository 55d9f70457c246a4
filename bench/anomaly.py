"""Anomaly detection with the defaults alone, beside scikit-learn's isolation forest.

A folder holds `anomaly_NAME.npz` files with `X`, the rows, and `y`, 1 for an anomaly. Per seed, a
random half of the normal rows is the table of a job, which splits it further by its own defaults;
the other half and all anomalies are ranked by -log_prob. One thread.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.ensemble import IsolationForest
from sklearn.metrics import roc_auc_score

from flows import Flow
from models_store.acceptance import TrainingLimits, accept_training
from models_store.blobs import BlobStore, table_key
from models_store.checkpoints import load_model
from models_store.ids import new_id
from models_store.records import Dataset
from models_store.schemas import TrainingRequest
from workers.protocol import DatasetRef, Message, Trained, TrainingTask
from workers.training import train

SETS = ("shuttle", "mammography", "pendigits", "thyroid")
SPEED_ROWS, SPEED_COLUMNS = 50_000, 9
CHUNK_ROWS = 4096

Rows = NDArray[np.float32]

_LIMITS = TrainingLimits(max_parameters=10**9, max_layers=256, max_memory_bytes=2**40)


@dataclass(frozen=True)
class Split:
    """Normal rows to train on, and rows to rank, with 1 for an anomaly."""

    train: Rows
    test: Rows
    labels: NDArray[np.int64]


@dataclass(frozen=True)
class Job:
    """What a job with two fields in its request came to."""

    flow: Flow
    seconds: float
    epochs: int


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
            split = load_split(options.data / f"anomaly_{name}.npz", seed)
            job = run_job(split.train, seed)
            ours.append(100 * roc_auc_score(split.labels, -log_prob(job.flow, split.test)))
            theirs.append(100 * forest_auroc(split, seed))
            lines.append(
                f"| {name} | {seed} | {ours[-1]:.2f} | {theirs[-1]:.2f} |"
                f" {job.epochs} | {job.seconds:.0f} |"
            )
    lines.append(f"| mean | | {statistics.mean(ours):.2f} | {statistics.mean(theirs):.2f} | | |")
    if options.speed:
        job = run_job(_speed_table(), 0)
        lines += ["", f"{SPEED_ROWS:,} rows x {SPEED_COLUMNS}: {job.epochs} epochs,"]
        lines[-1] += f" {job.seconds:.0f} s."
    return "\n".join(lines) + "\n"


def load_split(path: Path, seed: int) -> Split:
    """A random half of the normal rows, and all others."""
    with np.load(path, allow_pickle=False) as arrays:
        rows, labels = arrays["X"].astype(np.float32), arrays["y"]
    normal, anomalies = rows[labels == 0], rows[labels == 1]
    order = np.random.default_rng(seed).permutation(len(normal))
    half = len(normal) // 2
    held_out = normal[order[half:]]
    return Split(
        train=normal[order[:half]],
        test=np.concatenate([held_out, anomalies]),
        labels=np.repeat([0, 1], [len(held_out), len(anomalies)]),
    )


def run_job(rows: Rows, seed: int) -> Job:
    """What the trainer makes of a request that names a dataset and a model; timed as a whole."""
    with tempfile.TemporaryDirectory(prefix="densityd-bench-") as folder:
        blobs = BlobStore(Path(folder))
        dataset = _add_dataset(blobs, rows)
        fields = {"model_name": "bench", "dataset_id": dataset.id, "optimisation": {"seed": seed}}
        accepted = accept_training(TrainingRequest.model_validate(fields), dataset, limits=_LIMITS)
        task = TrainingTask(
            job_id=new_id("job"),
            attempt=1,
            request_id=None,
            parent_pid=1,
            log_level="INFO",
            blob_root=folder,
            request=accepted.model_dump(mode="json"),
            dataset=DatasetRef(
                id=dataset.id,
                key=dataset.key,
                sha256=dataset.sha256,
                columns=[column["name"] for column in dataset.columns],
            ),
            validation_dataset=None,
            test_dataset=None,
            checkpoints=[],
            device="cpu",
            threads=1,
            nice=0,
            memory_bytes=None,
            checkpoint_interval_s=30.0,
        )
        messages: list[Message] = []
        started = time.perf_counter()
        train(task, messages.append, interrupted=lambda: False)
        seconds = time.perf_counter() - started
        trained = messages[-1]
        assert isinstance(trained, Trained)
        version = trained.version
        flow = load_model(blobs, version["checkpoint_key"], version["checkpoint_sha256"])
        return Job(flow, seconds, trained.metrics["epochs"])


def log_prob(flow: Flow, rows: Rows) -> NDArray[np.float64]:
    """Log densities in chunks; a density of 0 is the lowest number that there is."""
    with torch.no_grad():
        scores = [flow.log_prob(chunk) for chunk in torch.from_numpy(rows).split(CHUNK_ROWS)]
    return np.nan_to_num(torch.cat(scores).double().numpy(), nan=-np.finfo(np.float64).max)


def forest_auroc(split: Split, seed: int) -> float:
    """The area that scikit-learn's isolation forest reaches with its defaults."""
    forest = IsolationForest(random_state=seed).fit(split.train)
    return float(roc_auc_score(split.labels, -forest.score_samples(split.test)))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m bench anomaly", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder of anomaly_NAME.npz")
    parser.add_argument("--sets", nargs="+", default=SETS, metavar="NAME")
    parser.add_argument("--seeds", type=int, default=3, help="how many random halves (3)")
    parser.add_argument("--speed", action="store_true", help="also time a job on 50,000 x 9")
    return parser


def _add_dataset(blobs: BlobStore, rows: Rows) -> Dataset:
    dataset_id = new_id("ds")
    with blobs.staged(".npy") as staged:
        np.save(staged, rows)
        blob = blobs.commit(staged, table_key(dataset_id))
    return Dataset(
        id=dataset_id,
        project="default",
        name=None,
        rows=len(rows),
        dtype="float32",
        columns=[
            {"name": f"x{index + 1}", "dtype": "float32", "std": float(column.std())}
            for index, column in enumerate(rows.astype(np.float64).T)
        ],
        warnings=[],
        source_format="npy",
        source_sha256=blob.sha256,
        key=blob.key,
        sha256=blob.sha256,
        bytes=blob.bytes,
        created_at=datetime.now(tz=UTC),
    )


def _speed_table() -> Rows:
    generator = np.random.default_rng(0)
    mixing = generator.normal(size=(SPEED_COLUMNS, SPEED_COLUMNS))
    rows = np.tanh(generator.normal(size=(SPEED_ROWS, SPEED_COLUMNS)) @ mixing)
    noise = generator.normal(size=rows.shape)
    return (rows + 0.1 * noise).astype(np.float32)
