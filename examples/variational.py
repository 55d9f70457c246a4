"""Fit flows to densities, without data or with: a potential, a formula, a posterior.

Usage:  python examples/variational.py [http://127.0.0.1:8000 [ITERATIONS]]

A service that has API keys wants one in DENSITYD_API_KEY.
"""

import math
import sys
from typing import Any

import numpy as np

from densityd.client import ApiError, Client, ClientError
from densityd.client.progress import ProgressBar

RING: Any = {"potential": "U1"}
BANANA: Any = {
    "log_density": "-0.5 * (z1 / 2)^2 - 0.5 * ((z2 - z1^2 / 4) / 0.5)^2",
    "dim": 2,
    "window": {"lower": [-8, -3], "upper": [8, 18]},
}
BANANA_EVIDENCE = math.log(2 * math.pi * 2 * 0.5)
TRUTH = {"intercept": 1.0, "x1": 2.0, "x2": -0.5}
NOISE = 0.5


def infer(client: Client, name: str, target: Any, iterations: int | None) -> dict[str, Any]:  # noqa: ANN401  a target
    """Fit a flow to a target and return the metrics of the job."""
    job = client.jobs.variational(name, target, optimisation={"iterations": iterations})
    print(f"{name}: accepted {job.id}: {job.request['flow']}")
    with ProgressBar() as bar:
        metrics = client.jobs.wait(job.id, on_progress=bar).metrics or {}
    print(
        f"  log evidence {metrics['log_evidence']:.3f}"
        f" +- {2 * metrics['log_evidence_standard_error']:.3f} (two standard errors),"
        f" ELBO {metrics['elbo']:.3f}: {metrics['verdict']}"
    )
    return metrics


def upload_regression(client: Client) -> str:
    """Make up 200 rows, upload them and return the dataset's id."""
    random = np.random.default_rng(0)
    x = random.normal(size=(200, 2))
    y = TRUTH["intercept"] + x @ [TRUTH["x1"], TRUTH["x2"]] + NOISE * random.normal(size=200)
    rows = [
        dict(zip(("x1", "x2", "y"), (*row, value), strict=True))
        for row, value in zip(x, y, strict=True)
    ]
    return client.datasets.upload(rows).id


def main() -> None:
    """Run the whole example and print what it found."""
    iterations = int(sys.argv[2]) if len(sys.argv) > 2 else None
    with Client(sys.argv[1] if len(sys.argv) > 1 else None) as client:
        ring = infer(client, "ring", RING, iterations)
        print(f"  KL(q || p) on the window {ring['kl']:.4f} nats")
        banana = infer(client, "banana", BANANA, iterations)
        print(f"  KL(q || p) on the window {banana['kl']:.4f} nats")
        print(f"  log evidence in closed form {BANANA_EVIDENCE:.3f}")
        posterior = {
            "kind": "linear",
            "dataset_id": upload_regression(client),
            "response": "y",
            "noise_scale": NOISE,
        }
        line = infer(client, "line", {"posterior": posterior}, iterations)
        print(f"  log evidence in closed form {line['exact_log_evidence']:.3f}")
        rows = client.sample("line", 10_000, seed=0)
    for (coefficient, truth), values in zip(TRUTH.items(), rows.T, strict=True):
        print(f"  {coefficient}: {values.mean():.3f} +- {values.std():.3f}, in truth {truth}")


if __name__ == "__main__":
    try:
        main()
    except ApiError as error:
        if error.status == 401:
            print("Set DENSITYD_API_KEY to a key that `densityd keys create --scope write` makes.")
        raise SystemExit(f"{error} (request {error.request_id})") from None
    except ClientError as error:
        raise SystemExit(f"{error}; start a service with `make up`.") from None
