"""The estimator as scikit-learn and PyOD use one."""

import copy

import numpy as np
import pytest
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from densityd.sklearn import DensityEstimator

SMALL = {"family": "maf", "layers": 1, "hidden": [8]}
QUICK = {"max_epochs": 3}
ROWS = np.random.default_rng(0).normal([10, -3], [2, 0.5], size=(300, 2))


def quick(**options: object) -> DensityEstimator:
    return DensityEstimator(flow=SMALL, optimisation=QUICK, random_state=0, **options)  # type: ignore[arg-type] # by name


@pytest.mark.slow
@parametrize_with_checks([quick()])  # it fails none
def test_scikit_learn_checks_the_estimator(estimator, check, monkeypatch):
    monkeypatch.setenv("SCIPY_ARRAY_API", "1")  # else the checks of other arrays skip
    check(estimator)


def test_scores_samples_and_outliers_of_a_fit() -> None:
    density = quick(contamination=0.05).fit(ROWS)
    far = [[10, -3], [30, 9]]
    usual, unusual = density.score_samples(far)
    assert usual > unusual
    assert density.predict(far).tolist() == [1, -1]
    assert density.sample(5, random_state=1).shape == (5, 2)
    np.testing.assert_array_equal(
        density.sample(5, random_state=1), density.sample(5, random_state=1)
    )
    copied = copy.deepcopy(density)  # as it goes to other processes
    assert "_compiled" not in vars(copied)
    np.testing.assert_array_equal(copied.score_samples(ROWS), density.score_samples(ROWS))
    # As PyOD tells of the training rows.
    np.testing.assert_array_equal(density.decision_scores_, -density.score_samples(ROWS))
    other = DensityEstimator(flow=SMALL, optimisation=QUICK | {"seed": 9}, random_state=0)
    assert (other.fit(ROWS).score_samples(ROWS) != density.score_samples(ROWS)).any()
    assert density.labels_.sum() == 15
    assert ((density.decision_scores_ > density.threshold_) == density.labels_).all()
    np.testing.assert_array_equal(density.predict(ROWS), 1 - 2 * density.labels_)


def test_it_is_searched_in_a_pipeline() -> None:
    pipeline = make_pipeline(StandardScaler(), quick())
    search = GridSearchCV(
        pipeline, {"densityestimator__flow": [SMALL, {"family": "gaussian"}]}, cv=2
    )
    search.fit(ROWS)
    assert search.best_estimator_.score_samples(ROWS).shape == (300,)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"contamination": 0.7}, "contamination=0.7"),
        ({"validation_fraction": 1.0}, "validation_fraction=1.0"),
    ],
)
def test_options_out_of_range_are_named(options: dict[str, float], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        quick(**options).fit(ROWS)
