"""Fit flows to densities over HTTP, without data or with: a potential, a formula, a posterior.

Usage:  python examples/variational.py [http://127.0.0.1:8000 [ITERATIONS]]

A service that has API keys wants one in DENSITYD_API_KEY.
"""

import io
import math
import os
import sys
import time
from typing import Any

import httpx
import numpy as np
from numpy.typing import NDArray

NPY = "application/x-npy"
RING = {"potential": "U1"}
BANANA = {
    "log_density": "-0.5 * (z1 / 2)^2 - 0.5 * ((z2 - z1^2 / 4) / 0.5)^2",
    "dim": 2,
    "window": {"lower": [-8, -3], "upper": [8, 18]},
}
BANANA_EVIDENCE = math.log(2 * math.pi * 2 * 0.5)
TRUTH = {"intercept": 1.0, "x1": 2.0, "x2": -0.5}
NOISE = 0.5


def infer(
    client: httpx.Client, name: str, target: dict[str, Any], iterations: int | None
) -> dict[str, Any]:
    """Fit a flow to a target, follow the ELBO, return the finished job."""
    body = {"model_name": name, "target": target, "optimisation": {"iterations": iterations}}
    job = client.post("/v1/jobs/variational", json=body).raise_for_status().json()
    print(f"{name}: accepted {job['id']}: {job['request']['flow']}")
    shown = 0.0
    while job["state"] in ("queued", "running"):
        time.sleep(1)
        job = client.get(f"/v1/jobs/{job['id']}").raise_for_status().json()
        progress, metrics = job["progress"] or {}, job["metrics"] or {}
        if "elbo" in metrics and progress["fraction"] >= shown + 0.2:
            shown = progress["fraction"]
            print(f"  iteration {metrics['iteration']:5d}: ELBO {metrics['elbo']:10.3f} nats")
    if job["state"] != "succeeded":
        raise SystemExit(f"{name}: {job['state']}: {job['error']}")
    metrics = job["metrics"]
    print(
        f"  log evidence {metrics['log_evidence']:.3f}"
        f" +- {2 * metrics['log_evidence_standard_error']:.3f} (two standard errors),"
        f" ELBO {metrics['elbo']:.3f}: {metrics['verdict']}"
    )
    finished: dict[str, Any] = job
    return finished


def upload_regression(client: httpx.Client) -> str:
    """Make up 200 rows, upload them and return the dataset's id."""
    random = np.random.default_rng(0)
    x = random.normal(size=(200, 2))
    y = TRUTH["intercept"] + x @ [TRUTH["x1"], TRUTH["x2"]] + NOISE * random.normal(size=200)
    text = "x1,x2,y\n" + "\n".join(
        f"{row[0]},{row[1]},{value}" for row, value in zip(x.tolist(), y.tolist(), strict=True)
    )
    response = client.post(
        "/v1/datasets", content=text.encode(), headers={"Content-Type": "text/csv"}
    )
    return str(response.raise_for_status().json()["id"])


def sample(client: httpx.Client, name: str, n: int) -> NDArray[np.float64]:
    """Draw rows of a model."""
    response = client.post(
        f"/v1/models/{name}/sample", json={"n": n, "seed": 0}, headers={"Accept": NPY}
    )
    rows: NDArray[np.float64] = np.load(
        io.BytesIO(response.raise_for_status().content), allow_pickle=False
    )
    return rows


def main() -> None:
    """Run the whole example and print what it found."""
    url = sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8000"
    iterations = int(sys.argv[2]) if len(sys.argv) > 2 else None
    key = os.environ.get("DENSITYD_API_KEY")
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    with httpx.Client(base_url=url, headers=headers, timeout=60) as client:
        ring = infer(client, "ring", RING, iterations)
        print(f"  KL(q || p) on the window {ring['metrics']['kl']:.4f} nats")
        banana = infer(client, "banana", BANANA, iterations)
        print(f"  KL(q || p) on the window {banana['metrics']['kl']:.4f} nats")
        print(f"  log evidence in closed form {BANANA_EVIDENCE:.3f}")
        posterior = {
            "kind": "linear",
            "dataset_id": upload_regression(client),
            "response": "y",
            "noise_scale": NOISE,
        }
        line = infer(client, "line", {"posterior": posterior}, iterations)
        print(f"  log evidence in closed form {line['metrics']['exact_log_evidence']:.3f}")
        rows = sample(client, "line", 10_000)
    for (coefficient, truth), values in zip(TRUTH.items(), rows.T, strict=True):
        print(f"  {coefficient}: {values.mean():.3f} +- {values.std():.3f}, in truth {truth}")


if __name__ == "__main__":
    try:
        main()
    except httpx.ConnectError as error:
        raise SystemExit(f"No service answers ({error}); start one with `make up`.") from None
    except httpx.HTTPStatusError as error:
        if error.response.status_code == httpx.codes.UNAUTHORIZED:
            print("Set DENSITYD_API_KEY to a key that `densityd keys create --scope write` makes.")
        raise SystemExit(f"{error}\n{error.response.text}") from None
