"""A density estimator for scikit-learn, which trains a normalising flow in this process: no service runs.

It needs scikit-learn: ``pip install 'densityd[sklearn]'``.
"""

from typing import Any, Literal, Self

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, OutlierMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data

from flows import CompiledFlow, build, compile_flow, fit, spec_from_dict
from flows.defaults import default_flow
from models_store.requests.accept_training import choose_optimisation
from models_store.requests.training import OptimisationRequest

Doubles = NDArray[np.float64]


class DensityEstimator(OutlierMixin, BaseEstimator):  # type: ignore[misc] # scikit-learn has no types
    """Density of the rows of a table of numbers, by a normalising flow.

    The flow and its training are those that the service chooses for a table of this size. Scores are log
    densities in nats, in the units of the data. `predict` calls the least likely rows outliers; with
    `decision_scores_`, `labels_` and `threshold_` the results of a fit are what users of PyOD expect.
    For text, dates and missing values train by a service: `densityd.client.Client.fit`.

    Args:
        flow: Specification of the flow, such as `{"family": "maf", "layers": 5}`; None for one that suits
            the number of rows and columns.
        quality: `fast` takes a quarter of the epochs, `best` four times as many.
        optimisation: Options of the training, such as `{"max_epochs": 50}`; those left out suit the data.
        contamination: Share of the training rows that `predict` calls outliers, above 0 and at most 0.5.
        validation_fraction: Share of the rows that early stopping watches, above 0 and below 1.
        random_state: Seed of the split, the weights and the order of the rows, or a generator of seeds.

    Attributes:
        flow_: Trained flow (`flows.Flow`).
        n_features_in_: Number of columns.
        offset_: Log density below which a row is an outlier: `decision_function` is `score_samples` minus it.
        decision_scores_: Minus the log density of each training row: the higher, the more unusual.
        labels_: 1 for each training row that is an outlier, else 0.
        threshold_: Score above which `labels_` is 1, which is `-offset_`.

    Example:
        >>> import numpy as np
        >>> from densityd.sklearn import DensityEstimator
        >>> rows = np.random.default_rng(0).normal(size=(200, 2))
        >>> density = DensityEstimator(quality="fast", random_state=0).fit(rows)
        >>> bool(np.subtract(*density.score_samples([[0, 0], [5, 5]])) > 0)
        True
    """

    def __init__(
        self,
        *,
        flow: dict[str, Any] | None = None,
        quality: Literal["fast", "balanced", "best"] = "balanced",
        optimisation: dict[str, Any] | None = None,
        contamination: float = 0.1,
        validation_fraction: float = 0.1,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.flow = flow
        self.quality = quality
        self.optimisation = optimisation
        self.contamination = contamination
        self.validation_fraction = validation_fraction
        self.random_state = random_state

    def fit(self, X: ArrayLike, y: object = None) -> Self:
        """Train the flow on rows of shape (n, columns), n at least 4.

        Raises:
            ValueError: The rows are not finite numbers, or an option is none that the service takes.
        """
        if not 0 < self.contamination <= 0.5:
            raise ValueError(f"contamination={self.contamination} is not above 0 and at most 0.5")
        if not 0 < self.validation_fraction < 1:
            raise ValueError(
                f"validation_fraction={self.validation_fraction} is not between 0 and 1"
            )
        rows: Doubles = validate_data(self, X, dtype=np.float64, ensure_min_samples=4)
        random = check_random_state(self.random_state)
        seed = int(random.randint(2**31 - 1))
        shuffled = torch.from_numpy(rows[random.permutation(len(rows))])
        held_out = min(max(2, round(self.validation_fraction * len(rows))), len(rows) - 2)
        train, validation = shuffled[held_out:], shuffled[:held_out]
        dim = rows.shape[1]
        spec = default_flow(len(train), dim) if self.flow is None else spec_from_dict(self.flow)
        request = OptimisationRequest.model_validate({"seed": seed, **(self.optimisation or {})})
        options = choose_optimisation(
            request, quality=self.quality, flow=spec, train_rows=len(train), dim=dim
        )
        self.flow_ = build(spec, dim, standardise=_moments(train), seed=seed)
        for _ in fit(self.flow_, train, validation, options=options):
            pass
        self._compiled = compile_flow(self.flow_)
        self.decision_scores_ = -self._scores(rows)
        self.offset_ = float(np.quantile(-self.decision_scores_, self.contamination))
        self.threshold_ = -self.offset_
        self.labels_ = (self.decision_scores_ > self.threshold_).astype(int)
        return self

    def score_samples(self, X: ArrayLike) -> Doubles:
        """Return the log density of each row in nats."""
        check_is_fitted(self)
        return self._scores(validate_data(self, X, dtype=np.float64, reset=False))

    def score(self, X: ArrayLike, y: object = None) -> float:
        """Return the mean log density of rows, by which searches and cross-validation compare models."""
        return float(np.mean(self.score_samples(X)))

    def decision_function(self, X: ArrayLike) -> Doubles:
        """Return the log density of each row minus `offset_`: below 0 for outliers."""
        return self.score_samples(X) - self.offset_

    def predict(self, X: ArrayLike) -> NDArray[np.int_]:
        """Return -1 for each row that is an outlier, and 1 for the others."""
        return np.where(self.decision_function(X) < 0, -1, 1)

    def sample(self, n_samples: int = 1, random_state: int | None = None) -> Doubles:
        """Return rows that the flow draws, of shape (n_samples, columns).

        Args:
            n_samples: Number of rows.
            random_state: Seed that gives the same rows again; None for a random one.
        """
        check_is_fitted(self)
        seed = int(check_random_state(random_state).randint(2**31 - 1))
        return self._loaded().sample(n_samples, seed=seed)

    def _scores(self, rows: Doubles) -> Doubles:
        return self._loaded().log_prob(rows)

    def _loaded(self) -> CompiledFlow:
        """Return the compiled flow, which a copy that was pickled lacks."""
        if not hasattr(self, "_compiled"):
            self._compiled = compile_flow(self.flow_)
        return self._compiled

    def __getstate__(self) -> dict[str, Any]:
        state: dict[str, Any] = super().__getstate__()
        return {name: value for name, value in state.items() if name != "_compiled"}


def _moments(rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the mean and the standard deviation of each column; 1 for a column of one value."""
    std, mean = torch.std_mean(rows, dim=0, correction=0)
    return mean.float(), torch.where(std > 0, std, torch.ones_like(std)).float()
