"""Samples and densities of any folder of CSV files with the defaults, beside a mixture, zuko and SDV.

Per table and seed, a third of the rows, at most 5,000, is held out; each method is fitted to at most
`--rows` of the others on one core, and gives as many samples as rows are held out. densityd gets the
bytes of the file without one option, and is called as the service and its trainer call it. Mixtures of
Gaussians and zuko know tables of numbers without gaps alone. Each result is a JSON file of its own,
which a later run keeps, so that a stopped run continues.

The likelihoods of a table have the measure of its cells: a value has the probability of its step, the
smallest distance of two values, so that values with probabilities compare with densities. Rows whose
column `--label` is 1 are no training rows, and are told from the held-out ones by their density. A row
without a density, as one with a gap in a column that has none in training, is counted, and is in no mean.
"""

import argparse
import importlib.util
import io
import json
import math
import os
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import torch
from numpy.typing import NDArray
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.metrics import roc_auc_score
from sklearn.mixture import GaussianMixture
from sklearn.model_selection import StratifiedKFold, cross_val_predict

from experiments.local_job import run_job
from flows import compile_flow
from tabular.cells import decode_cells, encode_cells
from tabular.columns import Column

Doubles = NDArray[np.float64]
Result = dict[str, Any]

MOST_HELD_OUT = 5_000
SYNTHESIZERS = {
    "GaussianCopula": "GaussianCopulaSynthesizer",
    "CTGAN": "CTGANSynthesizer",
    "TVAE": "TVAESynthesizer",
}
_FEW_VALUES = 20  # whole numbers with no more values than these count as categories
_COMPONENTS = (1, 2, 4, 8, 16, 32)
_FOLDS = 5
_EPOCHS, _PATIENCE, _BATCH = 200, 20, 256
_COLUMNS = {
    "nats": "nats a row, in cells",
    "discrete": "nats: d",
    "continuous": "x given d",
    "unscored": "rows without one",
    "c2st": "C2ST",
    "variation": "total variation: mean, worst",
    "halves": "of two halves",
    "invalid": "invalid",
    "beyond": "beyond the range",
    "auroc": "AUROC",
    "seconds": "s",
}


@dataclass(frozen=True)
class Split:
    """Table as its rows to train on and its rows that are held out, and those of label 1."""

    train: pd.DataFrame
    held_out: pd.DataFrame
    anomalies: pd.DataFrame

    @property
    def all(self) -> pd.DataFrame:
        """All rows that are no anomalies."""
        return pd.concat([self.train, self.held_out], ignore_index=True)


@dataclass(frozen=True)
class Fitted:
    """What a method makes of a table.

    Attributes:
        parts: Function of rows that returns log P(d) and log p(x | d) of each; None if it has none.
        beside: Further facts for the result.
    """

    samples: pd.DataFrame
    parts: Callable[[pd.DataFrame], Doubles] | None = None
    beside: Result = field(default_factory=dict)


def measure(arguments: Sequence[str]) -> str:
    """Measure what has no result yet, and return a table of all results."""
    options = _parser().parse_args(arguments)
    options.output.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    results = []
    for name in options.tables or sorted(path.stem for path in options.data.glob("*.csv")):
        for seed in range(options.seeds):
            for method in options.methods:
                path = options.output / f"{name}-{method}-{seed}.json"
                if not path.exists():
                    split = load(options.data / f"{name}.csv", seed, options.rows, options.label)
                    result = measure_one(split, method, seed)
                    if result is None:
                        continue
                    result |= {"table": name, "method": method, "seed": seed}
                    path.write_text(json.dumps(result, indent=1))
                    print(f"{path}: C2ST {result['c2st']:.3f}", flush=True)
                results.append(json.loads(path.read_text()))
    return _format(results)


def measure_one(split: Split, method: str, seed: int) -> Result | None:
    """Return the figures of a method on a table; None if it does not know such tables."""
    began = time.perf_counter()
    fitted = METHODS[method](split.train, len(split.held_out), seed)
    if fitted is None:
        return None
    seconds = time.perf_counter() - began
    samples, table = fitted.samples, split.all
    result: Result = {"seconds": seconds, "c2st": detection_auroc(samples, split.held_out, seed)}
    names = categories(table)
    shuffled = table.sample(frac=1, random_state=seed)
    half = len(shuffled) // 2
    result["variation"] = total_variations(samples, table, names)
    result["halves"] = total_variations(shuffled[:half], shuffled[half:], names)
    result |= {"invalid": 1 - share_valid(samples, table), "beyond": share_beyond(samples, table)}
    if fitted.parts is not None:
        found = fitted.parts(split.held_out)
        cells = cell_sizes(split.held_out, table, fitted.beside.pop("atoms", {}))
        scores = found.sum(axis=1)
        result |= {
            "nats": float(np.nanmean(scores + cells)),
            "discrete": float(np.nanmean(found[:, 0])),
            "continuous": float(np.nanmean(found[:, 1])),
            "unscored": int(np.isnan(scores).sum()),
        }
        if len(split.anomalies):
            told = np.concatenate([scores, fitted.parts(split.anomalies).sum(axis=1)])
            labels = np.repeat([0, 1], [len(scores), len(split.anomalies)])
            result["auroc"] = float(roc_auc_score(labels, np.nan_to_num(-told, nan=1e9)))
    return result | fitted.beside


def densityd(train: pd.DataFrame, count: int, seed: int) -> Fitted:
    """Upload and train without one option, as plain calls of what the service and its trainer call."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "table.csv"
        train.to_csv(file, index=False, na_rep="NA")
        job = run_job(file, {"optimisation": {"seed": seed}})
    version, compiled = job.version, compile_flow(job.flow)
    modelled = [Column.from_dict(one) for one in version["types"]]

    def numbers(frame: pd.DataFrame) -> Doubles:
        text = frame.to_csv(index=False, na_rep="NA")
        cells = pd.read_csv(io.StringIO(text), dtype=str, keep_default_na=False)
        return np.column_stack(
            [encode_cells(pa.array(cells[c.name], pa.string()), c) for c in modelled]
        )

    rows = compiled.sample(count, seed=seed).T
    drawn = {
        column.name: decode_cells(rows[at], column).to_pandas()
        for at, column in enumerate(modelled)
    }
    atoms = {c.name: [*c.levels] if c.levels else [*c.spikes] for c in modelled}
    beside = {
        "atoms": {name: None if _are_texts(one) else one for name, one in atoms.items()},
        "flow": version["flow"].get("flow") or version["flow"],
        "epochs": version["metrics"]["epochs"],
    }
    return Fitted(
        pd.DataFrame(drawn), lambda frame: compiled.log_prob_parts(numbers(frame)), beside
    )


def mixture(train: pd.DataFrame, count: int, seed: int) -> Fitted | None:
    """Fit mixtures of Gaussians, of which a tenth of the rows chooses the number of components."""
    if not _are_numbers(train):
        return None
    rows = _spread(train, seed)
    mean, std = rows.mean(axis=0), rows.std(axis=0)
    scaled = (rows - mean) / std
    cut = len(scaled) // 10
    fits = [
        GaussianMixture(n, reg_covar=1e-4, random_state=seed).fit(scaled[cut:])
        for n in _COMPONENTS
        if 10 * n <= len(scaled)
    ]
    best = max(fits, key=lambda fit: fit.score(scaled[:cut]))
    drawn = best.sample(count)[0] * std + mean

    def parts(frame: pd.DataFrame) -> Doubles:
        found = best.score_samples((frame.to_numpy(np.float64) - mean) / std) - np.log(std).sum()
        return np.column_stack([np.zeros(len(found)), found])

    return Fitted(pd.DataFrame(drawn, columns=train.columns), parts)


def zuko_nsf(train: pd.DataFrame, count: int, seed: int) -> Fitted | None:
    """Train zuko's autoregressive splines with early stopping on a tenth of the rows."""
    if not _are_numbers(train):
        return None
    import zuko  # type: ignore[import-untyped]  # noqa: PLC0415  of the group bench

    torch.manual_seed(seed)
    rows = _spread(train, seed)
    mean, std = rows.mean(axis=0), rows.std(axis=0)
    scaled = torch.tensor((rows - mean) / std, dtype=torch.float32)
    cut = len(scaled) // 10
    known, validation = scaled[cut:], scaled[:cut]
    flow = zuko.flows.NSF(rows.shape[1], transforms=3, hidden_features=[64, 64])
    optimiser = torch.optim.Adam(flow.parameters(), lr=1e-3)
    best, kept, stale = -math.inf, flow.state_dict(), 0
    for _ in range(_EPOCHS):
        for batch in known[torch.randperm(len(known))].split(_BATCH):
            optimiser.zero_grad()
            (-flow().log_prob(batch).mean()).backward()
            torch.nn.utils.clip_grad_norm_(flow.parameters(), 5.0)
            optimiser.step()
        with torch.no_grad():
            reached = float(flow().log_prob(validation).mean())
        stale += 1
        if reached > best:
            best, stale = reached, 0
            kept = {name: value.clone() for name, value in flow.state_dict().items()}
        if stale >= _PATIENCE:
            break
    flow.load_state_dict(kept)

    def parts(frame: pd.DataFrame) -> Doubles:
        given = torch.tensor((frame.to_numpy(np.float64) - mean) / std, dtype=torch.float32)
        with torch.no_grad():
            found = flow().log_prob(given).double().numpy() - np.log(std).sum()
        return np.column_stack([np.zeros(len(found)), found])

    with torch.no_grad():
        drawn = flow().sample((count,)).double().numpy() * std + mean
    return Fitted(pd.DataFrame(drawn, columns=train.columns), parts)


def sdv(name: str, train: pd.DataFrame, count: int, seed: int) -> Fitted:
    """Fit a synthesizer to a table whose column types SDV detects, and sample from it."""
    os.environ["OMP_NUM_THREADS"] = "1"
    from sdv import single_table  # noqa: PLC0415  of the group bench
    from sdv.metadata import Metadata  # noqa: PLC0415

    warnings.filterwarnings("ignore", module="sdv|rdt|copulas|ctgan")
    torch.manual_seed(seed)
    np.random.seed(seed)  # noqa: NPY002 - SDV draws from the global generator
    tables = {"table": train}
    synthesizer = getattr(single_table, SYNTHESIZERS[name])(Metadata.detect_from_dataframes(tables))
    synthesizer.fit(tables)
    return Fitted(synthesizer.sample(count)["table"])


def _sdv_of(name: str) -> Callable[[pd.DataFrame, int, int], Fitted]:
    return lambda train, count, seed: sdv(name, train, count, seed)


METHODS: dict[str, Callable[[pd.DataFrame, int, int], Fitted | None]] = {
    "densityd": densityd,
    "mixture": mixture,
    "zuko": zuko_nsf,
    **{name: _sdv_of(name) for name in SYNTHESIZERS},
}


def load(path: Path, seed: int, rows: int, label: str) -> Split:
    """Return a table, split at random; a first column without a name has row numbers, as R writes them."""
    frame = pd.read_csv(path)
    if str(frame.columns[0]).startswith("Unnamed"):
        frame = frame.iloc[:, 1:]
    texts = frame.select_dtypes("bool").columns.drop(label, errors="ignore")
    frame = frame.astype(dict.fromkeys(texts, str))  # as samples have truth values
    anomalies = frame[:0]
    if label in frame:
        told = frame.pop(label) == 1
        frame, anomalies = frame[~told], frame[told]
    order = np.random.default_rng(seed).permutation(len(frame))
    held_out = min(MOST_HELD_OUT, len(frame) // 3)
    parts = (np.sort(order[held_out:][:rows]), np.sort(order[:held_out]))
    train, other = (frame.iloc[part].reset_index(drop=True) for part in parts)
    return Split(train, other, anomalies.reset_index(drop=True))


def cell_sizes(
    frame: pd.DataFrame, table: pd.DataFrame, atoms: dict[str, list[float] | None]
) -> Doubles:
    """Return for each row the logarithms of the steps of its values that are no atoms, summed."""
    total = np.zeros(len(frame))
    for name in frame:
        listed = atoms.get(name, [] if pd.api.types.is_numeric_dtype(frame[name]) else None)
        if listed is None:
            continue
        values = pd.to_numeric(frame[name], errors="coerce").to_numpy(np.float64)
        every = np.unique(pd.to_numeric(table[name], errors="coerce").dropna().to_numpy())
        step = float(np.diff(every).min()) if len(every) > 1 else 1.0
        total += np.where(np.isnan(values) | np.isin(values, listed), 0.0, math.log(step))
    return total


def categories(frame: pd.DataFrame) -> list[str]:
    """Return the columns of text and of few whole numbers."""
    return [name for name in frame if _is_category(frame[name])]


def share_valid(samples: pd.DataFrame, table: pd.DataFrame) -> float:
    """Return the share of rows whose every cell could stand in the table.

    A level must occur in its column, and a gap only where the column has gaps; a number has at most
    as many decimals as the column, and is not negative where the column never is.
    """
    valid = np.ones(len(samples), dtype=bool)
    for name in samples:
        valid &= _valid_cells(samples[name], table[name])
    return float(valid.mean())


def share_beyond(samples: pd.DataFrame, table: pd.DataFrame) -> float:
    """Return the share of rows with a number below the least or above the greatest one of its column."""
    beyond = np.zeros(len(samples), dtype=bool)
    for name in samples:
        if pd.api.types.is_numeric_dtype(table[name]):
            numbers = pd.to_numeric(samples[name], errors="coerce").to_numpy(np.float64)
            known = table[name].dropna().to_numpy(np.float64)
            beyond |= (numbers < known.min()) | (numbers > known.max())
    return float(beyond.mean())


def total_variations(
    first: pd.DataFrame, second: pd.DataFrame, names: Sequence[str]
) -> list[float]:
    """Return the total variation distance between the frequencies of each category column."""
    distances = []
    for name in (name for name in names if name in first and name in second):
        shares = [
            _texts(frame[name]).value_counts(normalize=True, dropna=False)
            for frame in (first, second)
        ]
        distances.append(float(shares[0].sub(shares[1], fill_value=0).abs().sum() / 2))
    return distances


def detection_auroc(samples: pd.DataFrame, held_out: pd.DataFrame, seed: int) -> float:
    """Return the AUROC of gradient boosting that tells samples from as many rows, cross-validated."""
    held_out = held_out[[name for name in held_out if name in samples]]
    count = min(len(samples), len(held_out), MOST_HELD_OUT)
    rows = pd.concat([samples[:count], held_out[:count]], ignore_index=True)[list(held_out)]
    labels = np.repeat([1, 0], count)
    coded = rows.copy()
    discrete = [name for name in held_out if not pd.api.types.is_numeric_dtype(held_out[name])]
    for name in discrete:
        codes = _texts(rows[name]).astype("category").cat.codes.astype(float).replace(-1, np.nan)
        coded[name] = codes % 255  # as many categories as the classifier knows
    model = HistGradientBoostingClassifier(
        categorical_features=[name in discrete for name in coded], random_state=seed
    )
    folds = StratifiedKFold(_FOLDS, shuffle=True, random_state=seed)
    told = cross_val_predict(
        model, coded.to_numpy(dtype=np.float64), labels, cv=folds, method="predict_proba"
    )
    return float(roc_auc_score(labels, told[:, 1]))


def _format(results: Sequence[Result]) -> str:
    lines = [f"| table | method | {' | '.join(_COLUMNS.values())} |"]
    lines.append("|" + " --- |" * (2 + len(_COLUMNS)))
    for table in dict.fromkeys(result["table"] for result in results):
        for method in dict.fromkeys(result["method"] for result in results):
            found = [r for r in results if (r["table"], r["method"]) == (table, method)]
            if found:
                cells = [_cell(name, [r[name] for r in found if name in r]) for name in _COLUMNS]
                lines.append(f"| {table} | {method} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _cell(name: str, found: list[Any]) -> str:
    if not found or found == [[]] * len(found):
        return ""
    if name in ("variation", "halves"):
        mean = statistics.mean(statistics.mean(one) for one in found)
        return f"{mean:.4f}, {max(map(max, found)):.4f}"
    mean = statistics.mean(found)
    if name in ("invalid", "beyond"):
        return f"{100 * mean:.2f} %"
    return f"{mean:.0f}" if name in ("seconds", "unscored") else f"{mean:.3f}"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m bench quality", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder of NAME.csv")
    parser.add_argument("--tables", nargs="+", metavar="NAME", help="tables to measure (all)")
    needs = {"zuko": "zuko", **dict.fromkeys(SYNTHESIZERS, "sdv")}
    known = [m for m in METHODS if m not in needs or importlib.util.find_spec(needs[m])]
    parser.add_argument(
        "--methods", nargs="+", choices=METHODS, default=known, help="(all that are installed)"
    )
    parser.add_argument("--seeds", type=int, default=1, help="number of random splits (1)")
    parser.add_argument("--rows", type=int, default=5_000, help="most rows to train on (5,000)")
    parser.add_argument("--label", default="anomaly", help="column of labels (anomaly)")
    parser.add_argument(
        "--output", type=Path, default=Path("data/bench/quality"), help="folder of the results"
    )
    return parser


def _are_texts(levels: Sequence[Any]) -> bool:
    return any(isinstance(level, str | bool) for level in levels)


def _are_numbers(frame: pd.DataFrame) -> bool:
    kinds = [pd.api.types.is_numeric_dtype(frame[name]) for name in frame]
    return all(kinds) and not frame.isna().any().any() and bool((frame.std() > 0).all())


def _spread(frame: pd.DataFrame, seed: int) -> Doubles:
    """Return numbers with noise of the width of the step of their column, as the cells' measure has it."""
    rows = frame.to_numpy(np.float64)
    noise = np.random.default_rng(seed).random(rows.shape) - 0.5
    steps = [float(np.diff(np.unique(column)).min()) for column in rows.T]
    return rows + noise * steps


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


def _valid_cells(cells: pd.Series, column: pd.Series) -> NDArray[np.bool_]:
    gaps = cells.isna().to_numpy()
    if _is_category(column):
        fits = _texts(cells).isin(_texts(column.dropna()).unique()).to_numpy()
    else:
        numbers = pd.to_numeric(cells, errors="coerce").to_numpy(dtype=np.float64)
        known = column.dropna().to_numpy(dtype=np.float64)
        decimals = next((d for d in range(13) if np.allclose(known, known.round(d), 0, 1e-12)), 13)
        fits = np.isfinite(numbers) & (np.abs(numbers - numbers.round(decimals)) < 1e-9)
        fits &= (numbers >= 0) | (known < 0).any()
        if len(np.unique(known)) * 20 <= len(known):  # a few values that many rows share
            fits &= np.isin(numbers.round(9), known.round(9))
    return np.where(gaps, column.isna().any(), fits)
