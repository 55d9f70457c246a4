"""Searches whose children are trained here, one after the other: the version that comes out."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from flows import CompiledFlow, EnsembleSpec, compile_flow, spec_from_dict
from models_store.files.checkpoints import load_model
from models_store.job_states import Job, JobKind, JobRole, JobState, NewJob
from models_store.records import Dataset, Version
from models_store.requests.accept_search import accept_auto, accept_sweep
from models_store.requests.accept_training import HeldOut
from models_store.requests.search import AcceptedSearch, SweepRequest
from models_store.requests.training import TrainingRequest
from tabular.columns import Column
from tests.workers.place import LIMITS, PROJECT, Place
from workers.protocol import EnsembleTask, Interrupted, Note, Tick, Trained, TrainingTask
from workers.supervisor.assignment import task_of
from workers.trainer.ensembles import assemble, choose
from workers.trainer.training import train


def accepted(dataset: Dataset, **fields: Any) -> AcceptedSearch:
    body = {"model_name": "m", "dataset_id": dataset.id, "flow": "auto"} | fields
    request = TrainingRequest.model_validate(body)
    return accept_auto(request, dataset, limits=LIMITS, held_out=HeldOut())


def start(place: Place, search: AcceptedSearch) -> str:
    new = NewJob(
        project=PROJECT,
        kind=JobKind.TRAINING,
        model_name="m",
        dataset_id=search.dataset_id,
        request=search.model_dump(mode="json"),
        role=JobRole.PARENT,
    )
    return place.jobs.submit(new).job.id


def carry_out(place: Place) -> list[Job]:
    """Do the work of every child; return them in their order."""
    done = []
    while (job := place.work.claim("here", lease_s=600)) is not None:
        task = task_of(job, registry=place.registry, settings=place.settings)
        messages: list[Any] = []
        if isinstance(task, EnsembleTask):
            assemble(task, messages.append, interrupted=lambda: False)
        else:
            assert isinstance(task, TrainingTask)
            train(task, messages.append, interrupted=lambda: False)
        assert isinstance(messages[-1], Trained)
        trained = messages[-1]
        place.work.finish_child(
            job.id, job.attempt, metrics=trained.metrics, product=trained.version
        )
        done.append(job)
    return done


def compiled(place: Place, version: Version) -> CompiledFlow:
    flow = load_model(
        place.blobs,
        version.checkpoint_key,
        version.checkpoint_sha256,
        spec=version.flow,
        columns=version.columns,
    )
    return compile_flow(flow)


OPTIONS = {"seed": 1, "max_epochs": 4, "batch_size": 100}
FEW: dict[str, Any] = {"quality": "fast", "flow": {"family": "auto", "ensemble": 2}}


def ensemble_task(place: Place) -> EnsembleTask:
    """Train the flows of a search, and return the task that chooses among them."""
    start(place, accepted(place.add_dataset(200), **FEW, optimisation=OPTIONS))
    while True:
        job = place.work.claim("here", lease_s=600)
        assert job is not None
        task = task_of(job, registry=place.registry, settings=place.settings)
        if isinstance(task, EnsembleTask):
            return task
        assert isinstance(task, TrainingTask)
        messages: list[Any] = []
        train(task, messages.append, interrupted=lambda: False)
        end = {"metrics": messages[-1].metrics, "product": messages[-1].version}
        place.work.finish_child(job.id, job.attempt, **end)


def test_an_ensemble_tells_that_it_is_formed_and_ends_when_it_is_asked(place: Place) -> None:
    task = ensemble_task(place).model_copy(update={"tick_s": 0.0})
    messages: list[Any] = []
    assemble(task, messages.append, interrupted=lambda: False)
    ticks = [message.progress for message in messages if isinstance(message, Tick)]
    chosen = next(at for at, message in enumerate(messages) if isinstance(message, Note))
    assert isinstance(messages[0], Tick), "of the first member"
    assert isinstance(messages[chosen + 1], Tick), "of the likelihoods"
    assert [one["rows"] for one in ticks] == sorted({one["rows"] for one in ticks})
    assert ticks[-1]["rows"] == ticks[-1]["total_rows"]
    assert ticks[-1]["fraction"] == 1.0
    assert isinstance(messages[-1], Trained)

    for ends in (Tick, Note):  # while members are scored, and after the choice
        messages = []

        def interrupted(end: type = ends, told: list[Any] = messages) -> bool:
            return any(isinstance(message, end) for message in told)

        assemble(task, messages.append, interrupted=interrupted)
        assert isinstance(messages[-1], Interrupted)
        assert sum(isinstance(message, ends) for message in messages) == 1


@pytest.mark.long
def test_a_search_makes_an_ensemble_or_the_best_flow_a_version(place: Place) -> None:
    dataset = place.add_dataset(200)
    everything = accepted(dataset)
    assert {trial.flow.family for trial in everything.trials} == {
        *("gaussian_mixture", "maf", "nsf", "realnvp", "naf")
    }
    search = accepted(dataset, **FEW, optimisation=OPTIONS)
    job_id = start(place, search)
    done = carry_out(place)
    assert done[-1].kind is JobKind.ENSEMBLE
    job = place.job(job_id)
    assert (job.state, job.model_version) == (JobState.SUCCEEDED, 1)
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


@pytest.mark.long
def test_a_budget_that_the_default_uses_up_ends_the_search(place: Place) -> None:
    dataset = place.add_dataset(200)
    # It never stops for itself, however fast the machine is.
    endless = {"max_epochs": 100_000, "patience": 100_000}
    fields = OPTIONS | endless | {"max_seconds": 1.0}
    search = accepted(dataset, quality="fast", optimisation=fields)
    job_id = start(place, search)
    (only,) = carry_out(place)
    assert only.request["optimisation"]["max_seconds"] == 1.0
    job = place.job(job_id)
    assert job.state is JobState.SUCCEEDED
    assert job.metrics is not None
    assert job.metrics["trials"][-1]["epochs"] < 100_000


@pytest.mark.long
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
    carry_out(place)
    version = place.registry.version(PROJECT, "m", 1)
    flow = compiled(place, version)
    parts = flow.log_prob_parts(table[:20])
    assert np.allclose(parts.sum(axis=1), flow.log_prob(table[:20]), atol=1e-5)
    assert set(flow.sample(100, seed=0)[:, 2]) <= {0.0, 1.0, 2.0}
    assert np.isfinite(flow.explain(table[:5])[:, 2]).all()


def test_flows_that_pass_a_limit_are_left_out(place: Place) -> None:
    dataset = place.add_dataset(300)
    request = TrainingRequest.model_validate(
        {"model_name": "m", "dataset_id": dataset.id, "flow": "auto", "quality": "best"}
    )
    everything = accept_auto(request, dataset, limits=LIMITS, held_out=HeldOut())

    few = accept_auto(
        request, dataset, limits=replace(LIMITS, max_parameters=20_000), held_out=HeldOut()
    )
    assert 1 <= len(few.trials) < len(everything.trials)
    assert few.ensemble <= len(few.trials)


@pytest.mark.long
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
    done = carry_out(place)
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
    choice = choose(scores, 30.0)
    assert all(math.isfinite(weight) for weight in choice.weights)
