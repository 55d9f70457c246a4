"""Measures of samples of a table of numbers, categories and gaps, beside rows that were held out."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedKFold, cross_val_predict

MOST_HELD_OUT = 5_000
SAMPLES = 10_000
_FEW_VALUES = 20  # whole numbers with no more values than these count as categories
_FOLDS = 5


@dataclass(frozen=True)
class Split:
    """Table as its rows to train on and its rows that are held out."""

    train: pd.DataFrame
    held_out: pd.DataFrame

    @property
    def all(self) -> pd.DataFrame:
        """The whole table."""
        return pd.concat([self.train, self.held_out], ignore_index=True)


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
