"""Train a flow on the shuttle data over HTTP, score held-out rows, sample from it.

Usage:  python examples/quickstart.py [http://127.0.0.1:8000]

A service that has API keys wants one in DENSITYD_API_KEY.
"""

import io
import os
import sys
import time
from pathlib import Path

import httpx
import numpy as np
from numpy.typing import NDArray

DATA = Path(__file__).parent / "shuttle"
NPY = "application/x-npy"


def upload(client: httpx.Client) -> str:
    """Upload the training table and return the dataset's id."""
    with (DATA / "train.csv").open("rb") as table:
        response = client.post(
            "/v1/datasets",
            params={"name": "shuttle"},
            content=table,
            headers={"Content-Type": "text/csv"},
        )
    response.raise_for_status()
    dataset = response.json()
    print(f"uploaded {dataset['rows']} rows x {len(dataset['columns'])} columns: {dataset['id']}")
    for warning in dataset["warnings"][:3]:
        print(f"  warning {warning['code']} ({warning['column']}): {warning['detail']}")
    return str(dataset["id"])


def train(client: httpx.Client, dataset_id: str) -> str:
    """Train with the defaults, follow the progress, return ``name:version``."""
    body = {"model_name": "shuttle", "dataset_id": dataset_id}
    response = client.post("/v1/jobs/training", json=body)
    response.raise_for_status()
    job = response.json()
    print(f"accepted {job['id']}: {job['request']['flow']}")
    shown = 0
    while job["state"] in ("queued", "running"):
        time.sleep(1)
        job = client.get(f"/v1/jobs/{job['id']}").raise_for_status().json()
        metrics = job["metrics"] or {}
        if metrics.get("epoch", 0) >= shown + 10:
            shown = metrics["epoch"]
            print(
                f"  epoch {shown:4d}: validation log-likelihood"
                f" {metrics['validation_log_likelihood']:8.3f} nats,"
                f" {metrics['rows_per_second']:,.0f} rows/s"
            )
    if job["state"] != "succeeded":
        raise SystemExit(f"training {job['state']}: {job['error']}")
    metrics = job["metrics"]
    print(
        f"trained: test log-likelihood {metrics['test_log_likelihood']:.3f}"
        f" +- {2 * metrics['test_standard_error']:.3f} nats per row (two standard errors)"
    )
    return f"{job['model']['name']}:{job['model']['version']}"


def log_prob(client: httpx.Client, model: str, file: str) -> NDArray[np.float64]:
    """Score the rows of an npy file; the answer is npy too."""
    response = client.post(
        f"/v1/models/{model}/log_prob",
        content=(DATA / file).read_bytes(),
        headers={"Content-Type": NPY, "Accept": NPY},
    )
    response.raise_for_status()
    scores: NDArray[np.float64] = np.load(io.BytesIO(response.content), allow_pickle=False)
    return scores


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
    url = sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8000"
    started = time.monotonic()
    key = os.environ.get("DENSITYD_API_KEY")
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    with httpx.Client(base_url=url, headers=headers, timeout=60) as client:
        model = train(client, upload(client))
        normal = log_prob(client, model, "test_normal.npy")
        anomalous = log_prob(client, model, "test_anomalies.npy")
        print(
            f"median log_prob: normal {np.median(normal):.2f}, anomalies {np.median(anomalous):.2f}"
        )
        print(
            f"AUROC of -log_prob on {len(normal) + len(anomalous)} rows: "
            f"{auroc(normal, anomalous):.4f}"
        )
        body = {"n": 1000, "seed": 7}
        sample = client.post(f"/v1/models/{model}/sample", json=body).raise_for_status().json()
    rows = np.array(sample["rows"])
    data = np.load(DATA / "test_normal.npy")
    print(f"sampled {len(rows)} rows; medians of samples against held-out data:")
    for column, ours, theirs in zip(
        sample["columns"], np.median(rows, axis=0), np.median(data, axis=0), strict=True
    ):
        print(f"  {column}: {ours:8.2f} {theirs:8.2f}")
    print(f"done in {time.monotonic() - started:.0f} s")


if __name__ == "__main__":
    try:
        main()
    except httpx.ConnectError as error:
        raise SystemExit(f"No service answers ({error}); start one with `make up`.") from None
    except httpx.HTTPStatusError as error:
        if error.response.status_code == httpx.codes.UNAUTHORIZED:
            print("Set DENSITYD_API_KEY to a key that `densityd keys create --scope write` makes.")
        raise SystemExit(f"{error}\n{error.response.text}") from None
