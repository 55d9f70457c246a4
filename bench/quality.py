"""Tables of numbers, categories and gaps: samples and densities with the defaults, beside SDV.

A folder holds CSV files as R writes them. Per seed, at most 5,000 rows and at most a third are held
out; a method is fitted to the others with its defaults, on one core, and gives 10,000 samples.
densityd gets the bytes of the file over HTTP without one option. Each result is a JSON file of its
own, which a later run keeps, so that a stopped run continues.
"""

import argparse
import io
import json
import os
import statistics
import time
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pandas as pd
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedKFold, cross_val_predict

from bench.servers import finished_job, running_service

SYNTHESIZERS = {
    "GaussianCopula": "GaussianCopulaSynthesizer",
    "CTGAN": "CTGANSynthesizer",
    "TVAE": "TVAESynthesizer",
}
_TABLE = "table"
OURS = "densityd"
METHODS = (OURS, *SYNTHESIZERS)
Result = dict[str, Any]


@dataclass(frozen=True)
class Split:
    """Table as its rows to train on and its rows that are held out."""

    train: pd.DataFrame
    held_out: pd.DataFrame

    @property
    def all(self) -> pd.DataFrame:
        """The whole table."""
        return pd.concat([self.train, self.held_out], ignore_index=True)


def measure(arguments: Sequence[str]) -> str:
    """Measure what has no result yet, and return a table of all results."""
    options = _parser().parse_args(arguments)
    options.output.mkdir(parents=True, exist_ok=True)
    results = []
    for name in options.tables or sorted(path.stem for path in options.data.glob("*.csv")):
        for seed in range(options.seeds):
            for method in options.methods:
                path = options.output / f"{name}-{method}-{seed}.json"
                if not path.exists():
                    result = _measure_one(load(options.data / f"{name}.csv", seed), method, seed)
                    result |= {"table": name, "method": method, "seed": seed}
                    path.write_text(json.dumps(result, indent=1))
                    print(f"{path}: AUROC {result['auroc']:.3f}", flush=True)
                results.append(json.loads(path.read_text()))
    return _format(results)


def _measure_one(split: Split, method: str, seed: int) -> Result:
    if method == OURS:
        made = vars(train_and_measure(split.train, split.held_out, SAMPLES, seed))
    else:
        made = vars(fit_and_sample(method, split.train, SAMPLES, seed))
    samples = made.pop("samples")
    return {**_judge(samples, split, seed), **made}


def _judge(samples: pd.DataFrame, split: Split, seed: int) -> Result:
    names = categories(split.all)
    shuffled = split.all.sample(frac=1, random_state=seed)
    half = len(shuffled) // 2
    return {
        "valid": share_valid(samples, split.all),
        "variations": dict(zip(names, total_variations(samples, split.all, names), strict=True)),
        "halves": dict(
            zip(names, total_variations(shuffled[:half], shuffled[half:], names), strict=True)
        ),
        "auroc": detection_auroc(samples, split.held_out, seed),
    }


def _format(results: Sequence[Result]) -> str:
    lines = [
        (
            "| table | method | valid samples | total variation: mean, worst | of two halves |"
            " AUROC of a classifier | held-out log-likelihood | fit, s | rows/s: all, complete |"
        ),
        "|" + " --- |" * 9,
    ]
    for table in dict.fromkeys(result["table"] for result in results):
        for method in dict.fromkeys(result["method"] for result in results):
            found = [r for r in results if (r["table"], r["method"]) == (table, method)]
            if found:
                lines.append(_format_row(table, method, found))
    return "\n".join(lines) + "\n"


def _format_row(table: str, method: str, found: Sequence[Result]) -> str:
    def mean(values: Iterable[float]) -> float:
        return statistics.mean(values)

    variations = [list(result["variations"].values()) for result in found]
    halves = [list(result["halves"].values()) for result in found]
    cells = [
        table,
        method,
        f"{100 * mean(result['valid'] for result in found):.1f} %",
        f"{mean(map(mean, variations)):.4f}, {max(map(max, variations)):.4f}",
        f"{mean(map(mean, halves)):.4f}, {max(map(max, halves)):.4f}",
        f"{mean(result['auroc'] for result in found):.3f}",
        "none",
        f"{mean(result['fit_s'] for result in found):.0f}",
        "none",
    ]
    if method == OURS:
        cells[6] = f"{mean(result['log_likelihood'] for result in found):.3f}"
        speeds = [mean(r["rows_per_s"][kind] for r in found) for kind in ("all", "complete")]
        cells[8] = ", ".join(f"{speed:,.0f}" for speed in speeds)
    return f"| {' | '.join(cells)} |"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m bench quality", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder of NAME.csv")
    parser.add_argument("--tables", nargs="+", metavar="NAME", help="tables to measure (all)")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=METHODS, metavar="NAME")
    parser.add_argument("--seeds", type=int, default=1, help="number of random splits (1)")
    parser.add_argument(
        "--output", type=Path, default=Path("data/bench/quality"), help="folder of the results"
    )
    return parser


@dataclass(frozen=True)
class Drawn:
    """Samples, and the seconds that fitting and sampling took."""

    samples: pd.DataFrame
    fit_s: float
    sample_s: float


def fit_and_sample(name: str, train: pd.DataFrame, count: int, seed: int) -> Drawn:
    """Fit a synthesizer to a table whose column types SDV detects, and sample from it."""
    os.environ["OMP_NUM_THREADS"] = "1"
    import numpy as np  # noqa: PLC0415 - after the number of threads
    import torch  # noqa: PLC0415
    from sdv import single_table  # noqa: PLC0415
    from sdv.metadata import Metadata  # noqa: PLC0415

    warnings.filterwarnings("ignore", module="sdv|rdt|copulas|ctgan")
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    np.random.seed(seed)  # noqa: NPY002 - SDV draws from the global generator
    tables = {_TABLE: train}
    synthesizer = getattr(single_table, SYNTHESIZERS[name])(Metadata.detect_from_dataframes(tables))
    began = time.perf_counter()
    synthesizer.fit(tables)
    fitted = time.perf_counter()
    samples = synthesizer.sample(count)
    return Drawn(samples[_TABLE], fitted - began, time.perf_counter() - fitted)


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


MOST_HELD_OUT = 5_000
SAMPLES = 10_000
_FEW_VALUES = 20  # whole numbers with no more values than these count as categories
_FOLDS = 5


def load(path: Path, seed: int) -> Split:
    """Return a table as R writes it, without its row numbers, split at random.

    At most a third of the rows are held out.
    """
    frame = pd.read_csv(path).iloc[:, 1:]
    order = np.random.default_rng(seed).permutation(len(frame))
    held_out = min(MOST_HELD_OUT, len(frame) // 3)
    parts = (np.sort(order[held_out:]), np.sort(order[:held_out]))
    return Split(*(frame.iloc[part].reset_index(drop=True) for part in parts))


def categories(frame: pd.DataFrame) -> list[str]:
    """Return the columns of text and of few whole numbers."""
    return [name for name in frame if _is_category(frame[name])]


def share_valid(samples: pd.DataFrame, table: pd.DataFrame) -> float:
    """Return the share of rows whose every cell could stand in the table.

    A level must occur in its column, and a gap only where the column has gaps; a number has at most
    as many decimals as the column, and is not negative where the column never is.
    """
    valid = np.ones(len(samples), dtype=bool)
    for name in table:
        valid &= _valid_cells(samples[name], table[name])
    return float(valid.mean())


def total_variations(first: pd.DataFrame, second: pd.DataFrame, names: list[str]) -> list[float]:
    """Return the total variation distance between the frequencies of each category column."""
    distances = []
    for name in names:
        shares = [
            _texts(frame[name]).value_counts(normalize=True, dropna=False)
            for frame in (first, second)
        ]
        distances.append(float(shares[0].sub(shares[1], fill_value=0).abs().sum() / 2))
    return distances


def detection_auroc(samples: pd.DataFrame, held_out: pd.DataFrame, seed: int) -> float:
    """Return the AUROC of gradient boosting that tells samples from as many rows, cross-validated."""
    count = min(len(samples), len(held_out), MOST_HELD_OUT)
    rows = pd.concat([samples[:count], held_out[:count]], ignore_index=True)[list(held_out)]
    labels = np.repeat([1, 0], count)
    coded = rows.copy()
    discrete = [name for name in held_out if not pd.api.types.is_numeric_dtype(held_out[name])]
    for name in discrete:
        coded[name] = _texts(rows[name]).astype("category").cat.codes.replace(-1, np.nan)
    model = HistGradientBoostingClassifier(
        categorical_features=[name in discrete for name in coded], random_state=seed
    )
    folds = StratifiedKFold(_FOLDS, shuffle=True, random_state=seed)
    told = cross_val_predict(
        model, coded.to_numpy(dtype=np.float64), labels, cv=folds, method="predict_proba"
    )
    return float(roc_auc_score(labels, told[:, 1]))


def _is_category(cells: pd.Series) -> bool:
    if not pd.api.types.is_numeric_dtype(cells):
        return True
    known = cells.dropna()
    return bool((known % 1 == 0).all()) and known.nunique() <= _FEW_VALUES


def _texts(cells: pd.Series) -> pd.Series:
    """Return cells as text by which `1`, `1.0` and true, True are each the same; gaps stay."""
    numbers = pd.to_numeric(cells, errors="coerce")
    texts = cells.astype(str).str.strip().str.lower()
    texts = texts.where(numbers.isna(), numbers.map("{:.12g}".format))
    return texts.where(cells.notna(), None)


def _valid_cells(cells: pd.Series, column: pd.Series) -> np.ndarray:
    gaps = cells.isna().to_numpy()
    if _is_category(column):
        fits = _texts(cells).isin(_texts(column.dropna()).unique()).to_numpy()
    else:
        numbers = pd.to_numeric(cells, errors="coerce").to_numpy(dtype=np.float64)
        known = column.dropna().to_numpy(dtype=np.float64)
        decimals = next((d for d in range(13) if np.allclose(known, known.round(d), 0, 1e-12)), 13)
        fits = np.isfinite(numbers) & (np.abs(numbers - numbers.round(decimals)) < 1e-9)
        fits &= (numbers >= 0) | (known < 0).any()
    return np.where(gaps, column.isna().any(), fits)
