"""Train a flow on the shuttle data, find the anomalies and draw samples, with the Python client.

Usage:  python examples/client.py [http://127.0.0.1:8000]

A service that has API keys wants one in DENSITYD_API_KEY.
"""

import sys
from pathlib import Path

import numpy as np

from densityd.client import ApiError, Client, ClientError
from densityd.client.progress import ProgressBar

DATA = Path(__file__).parent / "shuttle"


def main() -> None:
    """Run the whole example and print what it found."""
    with Client(sys.argv[1] if len(sys.argv) > 1 else None) as client:
        dataset = client.datasets.upload(DATA / "train.csv", name="shuttle")
        print(f"uploaded {dataset.rows} rows x {len(dataset.columns)} columns: {dataset.id}")

        job = client.jobs.train("shuttle", dataset.id, optimisation={"max_seconds": 30})
        print(f"accepted {job.id}: {job.request['flow']}")
        with ProgressBar() as bar:
            job = client.jobs.wait(job.id, on_progress=bar)
        model = job.ref or "shuttle"
        print(f"trained {model}: {(job.metrics or {})['test_log_likelihood']:.3f} nats per row")

        # The files stay on the disk: rows are sent as they are needed.
        normal = client.log_prob(model, np.load(DATA / "test_normal.npy", mmap_mode="r"))
        anomalies = client.log_prob(model, np.load(DATA / "test_anomalies.npy", mmap_mode="r"))
        threshold = np.quantile(normal, 0.01)
        found = np.mean(~(anomalies > threshold))
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
