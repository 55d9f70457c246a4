"""Train a flow on the shuttle data, find the anomalies and draw samples, with the Python client.

Usage:  python examples/quickstart.py [http://127.0.0.1:8000]

A service that has API keys wants one in DENSITYD_API_KEY.
"""

import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from densityd.client import ApiError, Client, ClientError
from densityd.client.progress import ProgressBar

DATA = Path(__file__).parent / "shuttle"


def auroc(normal: NDArray[np.float64], anomalous: NDArray[np.float64]) -> float:
    """Return the chance that an anomaly is less likely than a normal row; ties count half."""
    lowest = -np.finfo(np.float64).max
    ordered = np.sort(np.nan_to_num(normal, nan=lowest, neginf=lowest))
    scores = np.nan_to_num(anomalous, nan=lowest, neginf=lowest)
    below = np.searchsorted(ordered, scores, side="left")
    not_above = np.searchsorted(ordered, scores, side="right")
    return float(1 - np.mean(below + not_above) / (2 * len(ordered)))


def main() -> None:
    """Run the whole example and print what it found."""
    with Client(sys.argv[1] if len(sys.argv) > 1 else None) as client:
        dataset = client.datasets.upload(DATA / "train.csv", name="shuttle")
        print(f"uploaded {dataset.rows} rows x {len(dataset.columns)} columns: {dataset.id}")
        for warning in dataset.warnings[:3]:
            print(f"  warning {warning.code} ({warning.column}): {warning.detail}")

        job = client.jobs.train("shuttle", dataset.id)
        print(f"accepted {job.id}: {job.request['flow']}")
        with ProgressBar() as bar:
            job = client.jobs.wait(job.id, on_progress=bar)
        model, metrics = str(job.ref), job.metrics or {}
        print(
            f"trained {model}: test log-likelihood {metrics['test_log_likelihood']:.3f}"
            f" +- {2 * metrics['test_standard_error']:.3f} nats per row (two standard errors)"
        )

        # The files stay on the disk: rows are sent as they are needed.
        normal = client.log_prob(model, np.load(DATA / "test_normal.npy", mmap_mode="r"))
        anomalous = client.log_prob(model, np.load(DATA / "test_anomalies.npy", mmap_mode="r"))
        print(f"AUROC of -log_prob on {len(normal) + len(anomalous)} rows:", end=" ")
        print(f"{auroc(normal, anomalous):.4f}")
        found = np.mean(~(anomalous > np.quantile(normal, 0.01)))
        print(f"{found:.1%} of the anomalies are less likely than 99 % of the normal rows")

        mean = client.sample(model, 100_000, seed=7).mean(axis=0)
        for column, ours in zip(dataset.columns, mean, strict=True):
            print(f"  {column.name}: mean {column.mean:8.2f}, of the samples {ours:8.2f}")


if __name__ == "__main__":
    try:
        main()
    except ApiError as error:
        if error.status == 401:
            print("Set DENSITYD_API_KEY to a key that `densityd keys create --scope write` makes.")
        raise SystemExit(f"{error} (request {error.request_id})") from None
    except ClientError as error:
        raise SystemExit(f"{error}; start a service with `make up`.") from None
