"""Tables through a service of their own: the bytes of a CSV file in, samples and densities out."""

import io
import json
import time
from dataclasses import dataclass
from typing import Any

import httpx
import pandas as pd

from bench.service import finished_job, running_service

_CSV = {"Content-Type": "text/csv"}
_SPEED_ROWS, _SPEED_ROUNDS = 20_000, 5


@dataclass(frozen=True)
class Served:
    """Results of the service with its defaults.

    Args:
        samples: Rows drawn from the model.
        fit_s: Seconds of the training job, without the upload.
        sample_s: Seconds of the response with the samples.
        log_likelihood: Mean log density of the held-out rows, in nats.
        unscored: Number of held-out rows without a finite log density.
        rows_per_s: Rows that are scored a second, by the kind of rows: `all` or `complete`.
        types: Type of each column of the file.
        flow: Flow of the accepted request.
    """

    samples: pd.DataFrame
    fit_s: float
    sample_s: float
    log_likelihood: float
    unscored: int
    rows_per_s: dict[str, float]
    types: dict[str, str]
    flow: dict[str, Any]


def train_and_measure(train: pd.DataFrame, held_out: pd.DataFrame, count: int, seed: int) -> Served:
    """Upload a table as R writes it, train on it without one option, sample, and score."""
    with running_service() as service:
        client = service.client
        dataset = _post_csv(client, "/v1/datasets", train).json()
        request = {"model_name": "table", "dataset_id": dataset["id"]}
        began = time.perf_counter()
        job = finished_job(client, request)
        fit_s = time.perf_counter() - began
        began = time.perf_counter()
        drawn = client.post(
            "/v1/models/table/sample",
            json={"n": count, "seed": seed},
            headers={"Accept": "text/csv"},
        ).raise_for_status()
        sample_s = time.perf_counter() - began
        scores = _log_prob(client, held_out)
        return Served(
            samples=pd.read_csv(io.BytesIO(drawn.content)),
            fit_s=fit_s,
            sample_s=sample_s,
            log_likelihood=float(scores.mean()),
            unscored=int(scores.isna().sum()),
            rows_per_s={
                "all": _rows_per_s(client, held_out),
                "complete": _rows_per_s(client, held_out.dropna()),
            },
            types={one["name"]: one.get("type", "number") for one in dataset["columns"]},
            flow=job["request"]["flow"],
        )


def _post_csv(client: httpx.Client, path: str, frame: pd.DataFrame) -> httpx.Response:
    """Send a frame as R writes it: row numbers in a column without a name, gaps as NA."""
    text = frame.to_csv(index_label="", na_rep="NA")
    response = client.post(path, content=text.encode(), headers=_CSV)
    if response.is_error:
        raise RuntimeError(f"{path}: {json.dumps(response.json(), indent=1)}")
    return response


def _log_prob(client: httpx.Client, frame: pd.DataFrame) -> pd.Series:
    headers = {**_CSV, "Accept": "application/json"}
    found = client.post(
        "/v1/models/table/log_prob", content=frame.to_csv(na_rep="NA").encode(), headers=headers
    )
    if found.is_error:
        raise RuntimeError(json.dumps(found.json(), indent=1))
    return pd.Series(found.json()["log_prob"], dtype=float)


def _rows_per_s(client: httpx.Client, frame: pd.DataFrame) -> float:
    """Return rows of CSV scored a second, the best of some rounds."""
    many = pd.concat([frame] * (_SPEED_ROWS // max(1, len(frame)) + 1), ignore_index=True)
    text = many[:_SPEED_ROWS].to_csv(index=False, na_rep="NA").encode()
    seconds = []
    for _ in range(_SPEED_ROUNDS):
        began = time.perf_counter()
        client.post(
            "/v1/models/table/log_prob",
            content=text,
            headers={**_CSV, "Accept": "application/x-npy"},
        ).raise_for_status()
        seconds.append(time.perf_counter() - began)
    return _SPEED_ROWS / min(seconds)
