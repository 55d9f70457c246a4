"""The work of a variational job as a plain call, on real files."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from models_store.files.checkpoints import load_model
from models_store.records import Dataset
from models_store.requests.accept_variational import accept_variational
from models_store.requests.variational import VariationalRequest
from tests.jobs.workers.place import FLOW, LIMITS, Place, attempt_fields, epochs, ref, result, run
from workers.errors import TrainingError
from workers.protocol import Interrupted, Tick, VariationalTask
from workers.trainer.variational import samples_of

ITERATIONS = 60
BANANA = {
    "log_density": "-0.5 * (z1 / 2)^2 - 0.5 * ((z2 - z1^2 / 4) / 0.5)^2",
    "dim": 2,
    "window": {"lower": [-8, -3], "upper": [8, 18]},
}


def task_of(
    place: Place, target: dict[str, Any], *, dataset: Dataset | None = None, **changes: Any
) -> VariationalTask:
    fields: dict[str, Any] = {
        "model_name": "m",
        "target": target,
        "flow": FLOW,
        "optimisation": {"seed": 1, "iterations": ITERATIONS, "report_every": 20},
    } | changes.pop("request", {})
    request = VariationalRequest.model_validate(fields)
    accepted = accept_variational(request, dataset, limits=LIMITS)
    return VariationalTask(
        **attempt_fields(place),
        request=accepted.model_dump(mode="json"),
        dataset=None if dataset is None else ref(dataset),
    ).model_copy(update=changes)


def binary_table(place: Place) -> Dataset:
    """A response of 0 and 1 in the middle, which both of its neighbours separate to some extent."""
    table = np.random.default_rng(0).normal(size=(400, 3)).astype(np.float32)
    table[:, 1] = table[:, 0] + table[:, 2] + table[:, 1] > 0
    return place.add_table(table)


def regression(dataset: Dataset, kind: str = "linear", **fields: Any) -> dict[str, Any]:
    posterior = {"kind": kind, "dataset_id": dataset.id, "response": "x2"} | fields
    return {"posterior": posterior}


def test_a_fit_tells_each_report_and_ends_with_a_judged_model(place: Place) -> None:
    messages = run(task_of(place, {"potential": "U1"}, tick_s=0.0))

    ticks = [message.progress["iteration"] for message in messages if isinstance(message, Tick)]
    assert ticks == [*range(1, ITERATIONS + 1)]
    told = [message.metrics["iteration"] for message in epochs(messages)]
    assert told == [20, 40, 60]
    assert epochs(messages)[0].checkpoint is not None
    assert epochs(messages)[-1].checkpoint is None, "the model itself follows the last report"
    assert epochs(messages)[-1].progress["fraction"] == 1.0
    trained = result(messages)
    metrics = trained.metrics
    assert metrics["iterations"] == ITERATIONS
    assert metrics["kl_window"] == {"lower": [-4.0, -4.0], "upper": [4.0, 4.0]}
    assert metrics["kl"] > 0
    assert metrics["elbo"] < metrics["log_evidence"]
    assert metrics["verdict"] in {"good", "ok", "unreliable"}
    assert 1 <= metrics["effective_sample_size"] <= metrics["samples"]
    version = trained.version
    assert version["metrics"] == metrics
    assert version["columns"] == ["z1", "z2"]
    assert version["dataset_id"] is version["dataset_sha256"] is None
    assert version["target"] == {"potential": "U1"}
    assert version["preprocessing"]["standardise"] is False
    flow = load_model(place.blobs, version["checkpoint_key"], version["checkpoint_sha256"])
    assert flow.sample(5, generator=torch.Generator()).shape == (5, 2)


def test_a_formula_is_approximated_and_its_evidence_found(place: Place) -> None:
    request = {
        "flow": {"family": "realnvp", "layers": 4, "hidden": [16], "batch_norm": None},
        "optimisation": {"seed": 1, "iterations": 400, "learning_rate": 1e-2, "annealing": 0},
    }
    metrics = result(run(task_of(place, BANANA, request=request))).metrics

    exact = math.log(2 * math.pi * 2 * 0.5)
    assert metrics["log_evidence_inside"] == pytest.approx(exact, abs=0.01)
    assert metrics["log_evidence"] == pytest.approx(exact, abs=0.1)
    assert metrics["kl"] < 0.2


def test_a_logistic_regression_starts_where_its_mass_is(place: Place) -> None:
    dataset = binary_table(place)
    trained = result(run(task_of(place, regression(dataset, "logistic"), dataset=dataset)))

    assert trained.version["preprocessing"]["standardise"] is True
    assert trained.metrics["effective_sample_size"] > 0.1 * trained.metrics["samples"]
    assert trained.version["target"]["posterior"]["columns"] == ["x1", "x3"]


def log_density(rows: NDArray[np.float64], covariance: NDArray[np.float64]) -> float:
    """Mean log density of rows under a Gaussian around zero."""
    squares = np.einsum("ij,ij->i", rows, np.linalg.solve(covariance, rows.T).T)
    normaliser = np.linalg.slogdet(2 * np.pi * covariance)[1]
    return float(np.mean(-0.5 * (squares + normaliser)))


def test_a_linear_regression_and_known_loadings_tell_their_exact_evidence(place: Place) -> None:
    table = np.random.default_rng(0).normal(size=(50, 3))
    table[:, 1] += 2 * table[:, 0] + 1
    dataset = place.add_table(table.astype(np.float32))
    linear = regression(dataset, noise_scale=0.5, prior_scale=2.0)
    design = np.column_stack([np.ones(50), table[:, [0, 2]]])
    evidence = log_density(table[:, 1][None], 4.0 * design @ design.T + 0.25 * np.eye(50))
    loadings, offset = np.array([[1.0], [2.0], [0.5]]), [0.0, 1.0, 0.0]
    known = {"likelihood": "gaussian", "loadings": loadings.tolist(), "offset": offset}
    latent = {"dataset_id": dataset.id, "held_out": 0.0, "noise_scale": 0.8} | known
    a_row = log_density(table - offset, loadings @ loadings.T + 0.64 * np.eye(3))
    for target, exact in ((linear, evidence), ({"latent": latent}, a_row)):
        task = task_of(place, target, dataset=dataset, request={"flow": {"family": "gaussian"}})
        metrics = result(run(task)).metrics
        assert metrics["exact_log_evidence"] == pytest.approx(exact, rel=1e-5)


def test_latent_variables_are_judged_by_rows_that_they_were_not_fitted_to(place: Place) -> None:
    table = np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32)
    found = []
    for moved in (0, 5):
        table[np.random.default_rng(1).permutation(50)[:10]] += moved  # the optimisation's seed
        dataset = place.add_table(table)
        latent = {"dataset_id": dataset.id, "likelihood": "gaussian", "dim": 2, "held_out": 0.2}
        found.append(result(run(task_of(place, {"latent": latent}, dataset=dataset))))
    assert len({one.version["checkpoint_sha256"] for one in found}) == 1
    assert [one.metrics["judged_rows"] for one in found] == [10, 10]
    assert found[0].metrics["log_evidence"] > found[1].metrics["log_evidence"] + 1


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The hash of the model of a fit of the banana that nobody disturbed."""
    place = Place(tmp_path_factory.mktemp("undisturbed"))
    messages = run(task_of(place, BANANA))
    place.database.dispose()
    return str(result(messages).version["checkpoint_sha256"])


@pytest.mark.parametrize("iteration", [1, 33])
def test_interrupted_at_any_iteration_it_makes_the_same_model(place, iteration, undisturbed):
    asked = iter(range(1, 10_000))

    messages = run(task_of(place, BANANA), lambda: next(asked) == iteration)

    last = messages[-1]
    assert isinstance(last, Interrupted)
    assert last.checkpoint is not None
    assert last.checkpoint.epoch == iteration
    resumed = run(task_of(place, BANANA, attempt=2, checkpoints=[last.checkpoint]))
    assert result(resumed).version["checkpoint_sha256"] == undisturbed
    told = [message.metrics["iteration"] for message in epochs(messages) + epochs(resumed)]
    assert sorted(set(told)) == [20, 40, 60]


def test_checkpoints_between_reports_make_the_same_model(place: Place, undisturbed: str) -> None:
    messages = run(task_of(place, BANANA, long_epoch_s=0))

    saved = [told.checkpoint for told in epochs(messages) if told.checkpoint is not None]
    steps = [at.step for at in saved]
    assert steps == sorted(steps)
    between = [at for at in saved if at.step % 20]
    assert between
    assert len({at.key for at in saved}) == len(saved)
    resumed = run(task_of(place, BANANA, attempt=2, checkpoints=[between[-1]]))
    assert result(resumed).version["checkpoint_sha256"] == undisturbed


def test_a_target_that_is_nowhere_finite_is_told(place: Place) -> None:
    with pytest.raises(TrainingError, match="iteration") as failure:
        run(task_of(place, {"log_density": "log(-1 - z1^2)", "dim": 2}))

    assert failure.value.code == "diverged"
    assert place.blobs.keys("models") == []


def test_a_posterior_that_cannot_be_computed_is_told(place: Place) -> None:
    table = np.zeros((12, 3), dtype=np.float32)
    table[:6] = [1e15, 1.0, 1e15]
    dataset = place.add_table(table)
    target = regression(dataset, "logistic", prior_scale=1e6)

    with pytest.raises(TrainingError) as failure:
        run(task_of(place, target, dataset=dataset))

    assert failure.value.code == "ill_conditioned"


LATENT = {"likelihood": "bernoulli", "dim": 2, "hidden": [8]}


def test_latent_variables_resume_to_the_same_model(place: Place) -> None:
    table = (np.random.default_rng(0).random((200, 3)) < [0.8, 0.5, 0.1]).astype(np.float32)
    dataset = place.add_table(table)
    target = {"latent": {"dataset_id": dataset.id} | LATENT}
    undisturbed = result(run(task_of(place, target, dataset=dataset)))
    assert undisturbed.version["columns"] == ["z1", "z2"]
    assert undisturbed.version["context_columns"] == ["x1", "x2", "x3"]
    assert undisturbed.metrics["judged_rows"] == 20
    assert undisturbed.metrics["elbo"] <= undisturbed.metrics["log_evidence"]

    calls = iter(range(10**6))
    messages = run(
        task_of(place, target, dataset=dataset, attempt=2), interrupted=lambda: next(calls) >= 30
    )
    [stopped] = [message for message in messages if isinstance(message, Interrupted)]
    assert stopped.checkpoint is not None
    rest = task_of(place, target, dataset=dataset, attempt=3, checkpoints=[stopped.checkpoint])
    resumed = result(run(rest))
    assert resumed.version["checkpoint_sha256"] == undisturbed.version["checkpoint_sha256"]
    assert resumed.metrics["log_evidence"] == undisturbed.metrics["log_evidence"]


def test_samples_that_judge_a_regression_are_fewer_the_more_rows_it_has() -> None:
    assert samples_of(100, 3) == 10_000
    assert samples_of(500_000, 11) == 1_818
    assert samples_of(50_000_000, 2) == 100, "which takes minutes"
