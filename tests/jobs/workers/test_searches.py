"""Searches whose children are trained here, one after the other: the version that comes out, and what is told of it."""

import math
from typing import Any

import numpy as np
import pytest
import torch

from flows import (
    CompiledFlow,
    EnsembleSpec,
    FitOptions,
    GaussianSpec,
    MafSpec,
    build,
    compile_flow,
    ensemble_of,
    fit,
    spec_from_dict,
)
from flows.training.comparison import Gain, Gains, column_distances, gains_of
from models_store.files.checkpoints import load_model
from models_store.job_states import JobKind, JobRole, JobState
from models_store.records import Dataset, Version
from models_store.requests.accept_search import accept_auto, accept_sweep
from models_store.requests.accept_training import HeldOut
from models_store.requests.search import AcceptedSearch, SweepRequest
from models_store.requests.training import TrainingRequest
from tabular.columns import Column
from tests.jobs.workers.place import LIMITS, PROJECT, Place, result, run
from tests.store.makers import claimed
from workers.protocol import EnsembleTask, Interrupted, Note, Tick, Trained
from workers.trainer.ensembles import assemble, choose
from workers.trainer.summary import is_rising, told_gains


def accepted(dataset: Dataset, **fields: Any) -> AcceptedSearch:
    body = {"model_name": "m", "dataset_id": dataset.id, "flow": "auto"} | fields
    request = TrainingRequest.model_validate(body)
    return accept_auto(request, dataset, limits=LIMITS, held_out=HeldOut())


def compiled(place: Place, version: Version) -> CompiledFlow:
    flow = load_model(
        place.blobs,
        version.checkpoint_key,
        version.checkpoint_sha256,
        spec=version.flow,
        columns=version.columns,
    )
    return compile_flow(flow)


def start(place: Place, search: AcceptedSearch) -> str:
    return place.start(JobKind.TRAINING, search, role=JobRole.PARENT)


OPTIONS = {"seed": 1, "max_epochs": 4, "batch_size": 100}
FEW: dict[str, Any] = {"quality": "fast", "flow": {"family": "auto", "ensemble": 2}}


def ensemble_task(place: Place) -> EnsembleTask:
    """Train the flows of a search, and return the task that chooses among them."""
    start(place, accepted(place.add_dataset(200), **FEW, optimisation=OPTIONS))
    while not isinstance(task := place.assigned(job := claimed(place.work)), EnsembleTask):
        place.finish(job)
    return task


def test_an_ensemble_tells_that_it_is_formed_and_ends_when_it_is_asked(place: Place) -> None:
    task = ensemble_task(place).model_copy(update={"tick_s": 0.0})
    messages = run(task)
    ticks = [message.progress for message in messages if isinstance(message, Tick)]
    chosen = next(at for at, message in enumerate(messages) if isinstance(message, Note))
    assert isinstance(messages[0], Tick), "of the first member"
    assert isinstance(messages[chosen + 1], Tick), "of the likelihoods"
    assert [one["rows"] for one in ticks] == sorted(one["rows"] for one in ticks)
    assert ticks[-1]["rows"] == ticks[-1]["total_rows"]
    assert ticks[-1]["fraction"] == 1.0
    assert isinstance(messages[-1], Trained)

    twice = task.request | {"members": task.request["members"][:1] * 2}
    messages = run(task.model_copy(update={"request": twice}))
    [note] = [message.text for message in messages if isinstance(message, Note)]
    assert note.startswith("The best flow alone")
    assert result(messages).version["flow"] == twice["members"][0]["flow"]
    last = [message.progress for message in messages if isinstance(message, Tick)][-1]
    assert last["rows"] == last["total_rows"] < ticks[-1]["total_rows"]

    for ends in (Tick, Note):  # while members are scored, and after the choice
        messages = []

        def interrupted(end: type = ends, told: list[Any] = messages) -> bool:
            return any(isinstance(message, end) for message in told)

        assemble(task, messages.append, interrupted=interrupted)
        assert isinstance(messages[-1], Interrupted)
        assert sum(isinstance(message, ends) for message in messages) == 1


def test_a_search_makes_an_ensemble_or_the_best_flow_a_version(place: Place) -> None:
    dataset = place.add_dataset(200)
    everything = accepted(dataset)
    assert {trial.flow.family for trial in everything.trials} == {
        *("gaussian_mixture", "maf", "nsf")
    }
    search = accepted(dataset, **FEW, optimisation=OPTIONS)
    job_id = start(place, search)
    done = place.carry_out()
    assert done[-1].kind is JobKind.ENSEMBLE
    job = place.job(job_id)
    assert (job.state, job.model_version) == (JobState.SUCCEEDED, 1)
    progress = job.progress or {}
    assert progress["stage"] == progress["stages"] == len(search.stages)
    version = place.registry.version(PROJECT, "m", 1)
    spec = spec_from_dict(version.flow)
    members = spec.members if isinstance(spec, EnsembleSpec) else [spec]
    assert len(version.metrics["members"]) == len(members)
    rows = np.random.default_rng(1).normal(size=(50, 3)).astype(np.float32)
    flow = compiled(place, version)
    assert np.isfinite(flow.log_prob(rows)).all()
    samples = flow.sample(200, seed=3)
    assert np.allclose(samples[:70], flow.sample(70, seed=3), atol=1e-5)
    assert np.isfinite(samples).all()
    assert version.held_out is not None
    assert version.metrics["summary"][0].startswith("On held-out rows the model is")


def test_a_budget_that_the_default_uses_up_ends_the_search(place: Place) -> None:
    dataset = place.add_dataset(200)
    # It never stops for itself, however fast the machine is.
    endless = {"max_epochs": 100_000, "patience": 100_000}
    fields = OPTIONS | endless | {"max_seconds": 1.0}
    search = accepted(dataset, quality="fast", optimisation=fields)
    job_id = start(place, search)
    (only,) = place.carry_out()
    assert only.request["optimisation"]["max_seconds"] == 1.0
    job = place.job(job_id)
    assert job.state is JobState.SUCCEEDED
    assert job.metrics is not None
    assert job.metrics["trials"][-1]["epochs"] < 100_000


def test_a_mixed_table_is_searched_by_the_flows_of_its_numbers(place: Place) -> None:
    draw = np.random.default_rng(0)
    table = draw.normal(size=(200, 3)).astype(np.float32)
    table[:, 2] = draw.integers(0, 3, 200)
    types = [
        Column(name="x1"),
        Column(name="x2"),
        Column(name="x3", type="category", levels=("a", "b", "c")),
    ]
    dataset = place.add_table(table, types)
    search = accepted(dataset, **FEW, optimisation=OPTIONS)
    assert search.mixed is not None
    start(place, search)
    place.carry_out()
    version = place.registry.version(PROJECT, "m", 1)
    flow = compiled(place, version)
    parts = flow.log_prob_parts(table[:20])
    assert np.allclose(parts.sum(axis=1), flow.log_prob(table[:20]), atol=1e-5)
    assert set(flow.sample(100, seed=0)[:, 2]) <= {0.0, 1.0, 2.0}
    assert np.isfinite(flow.explain(table[:5])[:, 2]).all()


def test_the_best_point_of_a_sweep_becomes_the_version(place: Place) -> None:
    dataset = place.add_dataset(200)
    body = {
        "model_name": "m",
        "dataset_id": dataset.id,
        "flow": {"family": "maf", "layers": 1},
        "ranges": {"optimisation.learning_rate": {"values": [1e-7, 5e-3]}},
        "optimisation": OPTIONS | {"max_epochs": 30},
        "reduction": 2,
        "seed": 1,
    }
    request = SweepRequest.model_validate(body)
    search = accept_sweep(request, dataset, limits=LIMITS, held_out=HeldOut())
    job_id = start(place, search)
    done = place.carry_out()
    job = place.job(job_id)
    assert (job.state, job.model_version, len(done)) == (JobState.SUCCEEDED, 1, 3)
    trials = (job.metrics or {})["trials"]
    assert trials[-1]["values"] == {"optimisation.learning_rate": 5e-3}
    assert trials[-1]["stage"] == 2


def test_weights_follow_the_validation_rows_and_bad_members_are_left_out() -> None:
    generator = torch.Generator().manual_seed(0)
    good, other = torch.randn(2, 400, generator=generator, dtype=torch.float64)
    choice = choose(torch.stack([good, other - 0.5, good - 5.0]), 30.0)
    assert choice.members == [0, 1]
    assert choice.weights[0] > choice.weights[1] > 0.1
    assert math.isclose(sum(choice.weights), 1.0)
    assert choice.gain > 0.03
    same = choose(torch.stack([good, good]), 30.0)
    assert (same.members, same.weights, same.gain) == ([0], [1.0], 0.0)
    few = choose(torch.tensor([[0.0, 0.0], [-1.5, 0.1]], dtype=torch.float64), None)
    assert few.members == [0, 1]
    assert few.weights[1] > 0.1, "two rows alone decide"


def test_one_far_row_does_not_make_a_worse_ensemble_worth_taking() -> None:
    best = torch.randn(400, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    worse = best - 0.9
    best[0], worse[0] = -500.0, -5.0
    assert choose(torch.stack([best, worse]), 30.0).members == [0]


@pytest.mark.parametrize("bad", [-math.inf, math.nan])
def test_rows_without_a_density_do_not_spoil_an_ensemble(bad: float) -> None:
    scores = torch.zeros(2, 50, dtype=torch.float64)
    scores[:, 0] = bad
    scores[0, 1:25] = bad
    scores[1, 25:] = -3.0
    assert choose(torch.full_like(scores, bad), 30.0).weights == [1.0]
    choice = choose(scores, 30.0)
    assert all(math.isfinite(weight) for weight in choice.weights)


def bananas(rows: int, *, seed: int) -> torch.Tensor:
    noise = torch.randn(rows, 2, generator=torch.Generator().manual_seed(seed)).double()
    noise[:, 1] = noise[:, 0].square() + 0.3 * noise[:, 1]
    return noise * 5 + 40


def test_a_gaussian_gains_nothing_over_a_gaussian_and_a_flow_gains_where_data_bend():
    train, held_out = bananas(2000, seed=0), bananas(1000, seed=1)
    moments = train.mean(dim=0), train.std(dim=0)
    gains, flows = [], []
    for spec in (GaussianSpec(), MafSpec(layers=2, hidden=[16], batch_norm=None)):
        flow = build(spec, 2, standardise=moments, seed=0)
        options = FitOptions(learning_rate=0.03, batch_size=250, max_epochs=10)
        for _ in fit(flow, train, held_out, options=options):
            pass
        gains.append(gains_of(flow, train, held_out, seed=0))
        flows.append(flow)
    plain, bent = gains
    assert plain.gaussian is not None
    assert bent.gaussian is not None
    assert plain.independent is not None
    assert bent.independent is not None
    assert (
        plain.independent.mean < 0
    )  # what bends is not correlated, and its margins are no Gaussians
    assert bent.independent.is_sure
    assert bent.independent.mean > 0.3
    assert plain.gaussian.mean == pytest.approx(0, abs=0.05)
    assert plain.mixture is not None
    assert plain.mixture.mean < -0.3
    assert bent.gaussian.mean > 0.5
    both = gains_of(ensemble_of(flows, [0.5, 0.5]), train, held_out, seed=0)
    assert both.gaussian is not None
    assert bent.gaussian.mean - math.log(2) < both.gaussian.mean < bent.gaussian.mean + 0.5


def test_gains_are_those_over_densities_given_a_single_context_column():
    rows = torch.randn(2000, 2, generator=torch.Generator().manual_seed(0)).double()
    flow = build(GaussianSpec(), 1, context_dim=1, seed=0).eval()
    torch.nn.init.zeros_(flow.get_parameter("transform.context_weight"))
    gains = gains_of(flow, rows[:1000], rows[1000:], seed=0)
    for gain in (gains.gaussian, gains.mixture):
        assert gain is not None
        assert gain.mean == pytest.approx(0, abs=0.5)


def test_the_columns_that_fit_badly_are_named_and_no_others():
    flow = build(GaussianSpec(), 3, seed=0)
    rows = np.random.default_rng(0).normal(size=(1000, 3))
    rows[:, 1] = np.exp(rows[:, 1])
    assert list(column_distances(compile_flow(flow), rows, seed=0)) == [1]
    rows[:, 2] += 9
    rows[5:, 0] = np.nan
    assert list(column_distances(compile_flow(flow), rows, seed=0)) == [2, 1]


@pytest.mark.parametrize(
    ("gain", "error", "rises"),
    [(0.5, 0.2, True), (0.04, 0.28, False), (0.5, None, False), (None, 0.01, False)],
)
def test_more_training_is_advised_where_it_is_expected_to_gain_more_than_chance(gain, error, rises):
    metrics = {"epoch": 40, "expected_gain": gain, "validation_standard_error": error}
    assert is_rising(metrics) == rises


def expected_gain(rows, max_epochs, **options):
    flow = build(MafSpec(layers=2, hidden=[16], batch_norm=None), 2, seed=0)
    wanted = FitOptions(max_epochs=max_epochs, batch_size=100, **options)
    *_, last = fit(flow, rows[:1000], rows[1000:], options=wanted)
    return last.expected_gain


def test_a_training_that_was_cut_short_expects_to_gain_and_one_that_has_learnt_all_does_not():
    rows = (bananas(2000, seed=0) - 40) / 5
    slow = expected_gain(rows, 6, learning_rate=0.001)
    assert slow > 0.05
    done = expected_gain(rows, 60, learning_rate=0.01, patience=None)
    assert done is None or done < 0.02
    assert expected_gain(rows, 60, learning_rate=0.01, patience=1) is None


@pytest.mark.parametrize(
    ("gaussian", "mixture", "part", "told"),
    [
        (
            Gain(0.5, 0.1),
            None,
            "test",
            "On held-out rows the model is 0.50 nats per row better than one Gaussian.",
        ),
        (
            Gain(0.04, 0.28),
            Gain(-0.3, 0.2),
            "validation",
            (
                "On the validation rows, which chose the epoch, the model is as good as one Gaussian and"
                " as good as a mixture of Gaussians."
            ),
        ),
        (
            Gain(0.5, 0.1),
            Gain(-0.5, 0.1),
            "test",
            (
                "On held-out rows the model is 0.50 nats per row better than one Gaussian and 0.50 nats per"
                " row worse than a mixture of Gaussians. Train longer, or train a mixture of Gaussians"
                " instead."
            ),
        ),
    ],
)
def test_a_gain_within_its_error_is_told_as_none(gaussian, mixture, part, told):
    assert told_gains(Gains(gaussian, mixture, None), part) == [told]
