"""Noise of test rows under a flow beside a standard Gaussian: figures, and a test of each feature."""

from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from experiments.canvas import heading, save
from experiments.recipes.recipe import DensityRecipe
from flows import Flow

_ROWS = 2000
_QUANTILES = 200
_BIN = 0.1
_REACH = 4.5
_LEVEL = 0.05
_TERMS = 100
_CERTAIN = 0.3  # scaled distance below which a probability is 1 to six digits

Values = NDArray[np.float64]


def draw(recipe: DensityRecipe, flow: Flow, test: Tensor, path: Path) -> Path:
    """Draw all features' noise against a standard Gaussian, and the quantiles of each."""
    noise = noise_of(flow, test)
    shares = (np.arange(_QUANTILES) + 0.5) / _QUANTILES
    gaussian = np.array([NormalDist().inv_cdf(share) for share in shares])
    features = np.quantile(noise, shares, axis=0)
    bins = np.arange(-_REACH, _REACH + _BIN, _BIN)

    def plot(figure: Any) -> None:  # noqa: ANN401  matplotlib's
        left, right = figure.subplots(1, 2)
        left.hist(noise.ravel(), bins=bins, density=True, color="0.7", label="noise of test rows")
        left.plot(bins, np.exp(-0.5 * bins**2) / np.sqrt(2 * np.pi), label="standard Gaussian")
        left.set(xlabel="noise, all features", ylabel="density")
        left.legend(loc="upper right", fontsize=8)
        low, high = np.percentile(features, [5, 95], axis=1)
        right.fill_between(gaussian, low, high, color="0.8", label="90 % of the features")
        right.plot(gaussian, np.median(features, axis=1), label="the median feature")
        right.plot(gaussian, gaussian, "k:", linewidth=1)
        right.set(xlabel="quantile of the Gaussian", ylabel="quantile of the noise")
        right.set(xlim=(-3, 3), ylim=(-_REACH, _REACH))
        right.legend(loc="upper left", fontsize=8)
        figure.suptitle(heading(recipe.title))

    return save(path.with_name(f"{path.name}-noise.png"), plot, (9, 4))


def normality(noise: Values) -> dict[str, Any]:
    """Test each feature's noise against a standard Gaussian by its Kolmogorov-Smirnov distance.

    The probability of a larger distance is that of Kolmogorov's distribution, with the correction of
    Stephens (1970) for the number of rows. A feature is rejected at a level of 5 % for all features
    together (Bonferroni); one with noise that is not a number is, too.

    Args:
        noise: Noise of rows that were not trained on, `(rows, dim)`.
    """
    rows, features = noise.shape
    shares = torch.special.ndtr(torch.from_numpy(np.sort(noise, axis=0))).numpy()
    steps = np.arange(rows + 1)[:, None] / rows
    distances = np.maximum(steps[1:] - shares, shares - steps[:-1]).max(axis=0)
    scaled = (np.sqrt(rows) + 0.12 + 0.11 / np.sqrt(rows)) * distances
    order = np.arange(1, _TERMS + 1)[:, None]
    series = 2 * ((-1.0) ** (order - 1) * np.exp(-2 * (order * scaled) ** 2)).sum(axis=0)
    larger = np.where(scaled < _CERTAIN, 1.0, series)
    return {
        "noise_rows": rows,
        "noise_features": features,
        "noise_rejected": int((~(larger * features >= _LEVEL)).sum()),
        "noise_median_distance": float(np.median(distances)),
    }


@torch.no_grad()
def noise_of(flow: Flow, test: Tensor) -> Values:
    """Return the noise of up to 2000 test rows, `(rows, dim)`."""
    rows = test[:: -(-len(test) // _ROWS)]
    spread = flow.preprocessing.spread(rows, generator=torch.Generator().manual_seed(0))
    noise: Values = flow.inverse(spread)[0].double().numpy()
    return noise
