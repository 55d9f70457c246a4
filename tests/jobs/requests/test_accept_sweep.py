"""Sweeps: their ranges, the points that are drawn of them, and what is refused."""

import json
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st
from pydantic import ValidationError

from flows import MafSpec
from models_store.errors import RequestError
from models_store.plans.search import trial_training
from models_store.requests import accept_search
from models_store.requests.accept_search import accept_auto, accept_sweep, draw_points
from models_store.requests.accept_training import HeldOut
from models_store.requests.search import AcceptedSearch, SweepRequest
from models_store.requests.training import AcceptedTraining, TrainingRequest
from tests.jobs.requests.test_accept_training import LIMITS, dataset

LAYERS = {"flow.layers": {"low": 2, "high": 8}}
RATES = {"optimisation.learning_rate": {"low": 1e-4, "high": 1e-2, "scale": "log"}}
MAF = {"family": "maf", "hidden": [8]}


def request(ranges: dict[str, Any], **fields: Any) -> SweepRequest:
    body = {"model_name": "m", "dataset_id": "ds_" + 32 * "0", "flow": MAF, "ranges": ranges}
    return SweepRequest.model_validate_json(json.dumps(body | fields), strict=True)


def accepted(ranges: dict[str, Any], **fields: Any) -> AcceptedSearch:
    wanted = request(ranges, **fields)
    return accept_sweep(wanted, dataset(), limits=LIMITS, held_out=HeldOut())


def test_each_trial_is_a_training_at_its_point() -> None:
    search = accepted({**LAYERS, **RATES}, seed=3, trials=8, optimisation={"max_epochs": 50})
    assert search.points is not None
    assert len(search.trials) == len(search.points) == 8
    for trial, point in zip(search.trials, search.points, strict=True):
        assert isinstance(trial.flow, MafSpec)
        assert trial.flow.layers == point["flow.layers"]
        assert trial.flow.hidden == [8]
        assert trial.optimisation.learning_rate == point["optimisation.learning_rate"]
        assert trial.optimisation.max_epochs == 50
    assert len({trial.optimisation.seed for trial in search.trials}) == 1
    child = trial_training(search.model_dump(mode="json"), 3, max_epochs=7, max_seconds=None)
    assert AcceptedTraining.model_validate(child).flow == search.trials[3].flow


@pytest.mark.parametrize(
    ("trials", "reduction", "ensemble", "stages"),
    [
        (16, 3, 1, [(16, 1 / 27), (6, 1 / 9), (2, 1 / 3), (1, 1.0)]),
        (9, 3, 3, [(9, 1 / 3), (3, 1.0)]),
        (8, 1, 1, [(8, 1.0)]),
        (
            64,
            2,
            1,
            [(64, 0.02), (32, 1 / 32), (16, 1 / 16), (8, 1 / 8), (4, 0.25), (2, 0.5), (1, 1.0)],
        ),
    ],
)
def test_stages_halve_the_trials_and_lengthen_their_training(
    trials: int, reduction: int, ensemble: int, stages: list[tuple[int, float]]
) -> None:
    search = accepted(RATES, trials=trials, reduction=reduction, ensemble=ensemble)
    found = [(stage.trials, stage.share) for stage in search.stages]
    assert [count for count, _ in found] == [count for count, _ in stages]
    assert [share for _, share in found] == pytest.approx([share for _, share in stages])


@given(
    low=st.integers(-100, 100),
    width=st.integers(1, 50),
    method=st.sampled_from(["sobol", "random"]),
    seed=st.integers(0, 2**63 - 1),
)
@settings(max_examples=30, deadline=None)
def test_points_lie_within_their_ranges_and_differ(
    low: int, width: int, method: str, seed: int
) -> None:
    wanted = request(LAYERS, method=method, seed=seed, trials=32)
    for name, range_ in (("low", low), ("high", low + width)):
        object.__setattr__(wanted.ranges["flow.layers"], name, range_)
    points = draw_points(wanted)
    values = [point["flow.layers"] for point in points]
    assert len(set(values)) == len(values) <= width + 1
    assert all(type(value) is int and low <= value <= low + width for value in values)
    assert draw_points(wanted) == points


def test_sobol_points_fill_a_logarithmic_range_evenly() -> None:
    points = draw_points(request(RATES, trials=32, seed=0))
    rates = [point["optimisation.learning_rate"] for point in points]
    assert sum(rate < 1e-3 for rate in rates) == 16
    assert all(1e-4 <= rate <= 1e-2 for rate in rates)


def test_whole_specs_of_several_families_are_a_range() -> None:
    families = {"flow": {"values": [{"family": "nsf"}, {"family": "realnvp"}]}}
    search = accepted(families, flow=None, trials=16)
    assert sorted(trial.flow.family for trial in search.trials) == ["nsf", "realnvp"]


@pytest.mark.parametrize(
    ("ranges", "fields", "reason"),
    [
        ({"flow.layers": {"low": 0, "high": 8}}, {}, "`flow.layers` cannot be 0"),
        ({"flow.depth": {"values": [1]}}, {}, "`flow.depth` cannot be 1"),
        ({"optimisation.max_epochs": {"values": ["many" * 999]}}, {}, "..."),
        ({"flow.layers": {"low": 3, "high": 3}}, {}, "high must be above low"),
        (LAYERS, {"flow": None}, "family"),
        ({**LAYERS, "flow": {"values": [MAF]}}, {}, "not both"),
        ({f"flow.{'a' * n}": {"values": [1] * 64} for n in range(1, 6)}, {}, "256 values"),
        (LAYERS, {"flow": "auto"}, "flow"),
    ],
)
def test_wrong_ranges_are_refused(
    ranges: dict[str, Any], fields: dict[str, Any], reason: str
) -> None:
    with pytest.raises(ValidationError, match=r"ranges|flow|trials") as caught:
        request(ranges, **fields)
    assert reason in str(caught.value)
    assert all(len(one["msg"]) < 700 for one in caught.value.errors())


def test_values_that_do_not_fit_together_or_are_too_large_name_the_point() -> None:
    grown = {"flow.hidden": {"values": [[2**31]]}}
    with pytest.raises(RequestError) as caught:
        accepted(grown)
    assert (caught.value.slug, caught.value.pointer) == ("limit-parameters", "/ranges")
    assert "flow.hidden" in caught.value.detail


def test_a_wide_table_may_have_fewer_trials() -> None:
    wanted = request(RATES, trials=5)
    with pytest.raises(RequestError, match="at most 4 trials"):
        accept_sweep(wanted, dataset(dim=4096), limits=LIMITS, held_out=HeldOut())


def test_trials_that_repeat_long_levels_are_few(monkeypatch: pytest.MonkeyPatch) -> None:
    size = len(json.dumps(accepted(RATES, trials=1).model_dump(mode="json")))
    monkeypatch.setattr(accept_search, "MAX_REQUESTS_BYTES", 4 * size)
    most = len(accepted(RATES, trials=2).trials)
    with pytest.raises(RequestError, match=r"at most [2-9] trials") as caught:
        accepted(RATES, trials=16)
    assert (most, caught.value.pointer) == (2, "/trials")
    training = TrainingRequest.model_validate(
        {"model_name": "m", "dataset_id": "ds_" + 32 * "0", "flow": "auto"}
    )
    search = accept_auto(training, dataset(), limits=LIMITS, held_out=HeldOut())
    assert 1 < len(search.trials) < 10
    monkeypatch.setattr(accept_search, "MAX_REQUESTS_BYTES", 1)
    search = accept_auto(training, dataset(), limits=LIMITS, held_out=HeldOut())
    assert [stage.trials for stage in search.stages] == [1]
