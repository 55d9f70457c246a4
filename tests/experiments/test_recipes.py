"""The published experiments: recipes, data and runs."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from experiments.__main__ import RESULTS, STUDIES
from experiments.data.sources import DataMissingError
from experiments.recipes import RECIPES, DensityRecipe, VariationalRecipe
from experiments.run import Place, run
from models_store.requests.accept_training import accept_training
from models_store.requests.accept_variational import accept_variational
from models_store.requests.flow_limits import TrainingLimits
from models_store.requests.training import TrainingRequest
from models_store.requests.variational import VariationalRequest
from tests.models_store.requests.test_accept_training import dataset

_BITS = {"min": 0.0, "max": 1.0, "distinct": 2}


@pytest.fixture
def place(tmp_path):
    return Place(
        data=tmp_path / "data",
        results=tmp_path / "results",
        state=tmp_path / "state",
        device=torch.device("cpu"),
    )


def write_bits(folder, name, dim):
    folder.mkdir(exist_ok=True)
    bits = np.random.default_rng(0).integers(0, 2, size=(60, dim), dtype=np.uint8)
    np.savez(folder / f"{name}.npz", train=bits, valid=bits[:20], test=bits[:20])


def quick(name, place, **changes):
    lines: list[str] = []
    result = run(
        RECIPES[name],
        place,
        seed=0,
        progress=lambda _done, _total, text: lines.append(text),
        **({"quick": True} | changes),
    )
    assert lines
    return result


@pytest.mark.parametrize("name", ["dna-made", "dna-made-masks"])
def test_a_recipe_on_bits_runs(place, name):
    write_bits(place.data, "dna", 180)
    result = quick(name, place)
    assert -400 < result["test_log_likelihood"] < -50
    assert not place.results.exists()


def test_a_variational_recipe_runs(place):
    result = quick("planar-u5-k2", place)
    assert result["kl"] > 0
    assert 0 < result["effective_sample_size"] <= result["samples"]


def test_missing_data_is_named(place):
    with pytest.raises(DataMissingError, match=r"mnist\.npz"):
        quick("mnist-maf", place)


class StoppedError(Exception):
    pass


def test_a_run_that_was_stopped_goes_on_to_the_same_numbers(place, monkeypatch):
    write_bits(place.data, "dna", 180)
    whole = quick("dna-made", place)
    monkeypatch.setattr("experiments.run._SAVE_EVERY_S", 0)

    def stop(done, _total, _text):
        if done == 2:
            raise StoppedError

    with pytest.raises(StoppedError):
        run(RECIPES["dna-made"], place, seed=0, quick=True, progress=stop)
    [index] = place.state.glob("*.json")
    saved = json.loads(index.read_text(encoding="utf-8"))
    index.write_text(json.dumps(saved | {"seconds": 1e6}), encoding="utf-8")
    resumed = quick("dna-made", place)
    assert resumed["test_log_likelihood"] == whole["test_log_likelihood"]
    assert resumed["wall_seconds"] >= 1e6
    assert [path for path in place.state.rglob("*") if path.is_file()] == []


def test_a_run_that_was_killed_while_it_saved_goes_on(place, monkeypatch):
    monkeypatch.setattr("experiments.run._SAVE_EVERY_S", 0)
    monkeypatch.setattr("experiments.run._QUICK_ITERATIONS", 300)
    whole = quick("planar-u5-k2", place)
    replace, saved = Path.replace, []

    def killed(path, target):
        if target.suffix == ".json":
            saved.append(target)
            if len(saved) == 2:
                raise StoppedError
        return replace(path, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", killed)
        with pytest.raises(StoppedError):
            quick("planar-u5-k2", place)
    resumed = quick("planar-u5-k2", place)
    assert resumed["kl"] == whole["kl"]
    assert resumed["curve"] == whole["curve"]


LIMITS = TrainingLimits(
    max_parameters=10**9, max_layers=256, max_memory_bytes=2**40, max_model_bytes=2**40
)
DENSITIES = [recipe for recipe in RECIPES.values() if isinstance(recipe, DensityRecipe)]
VARIATIONAL = [recipe for recipe in RECIPES.values() if isinstance(recipe, VariationalRecipe)]


@pytest.mark.parametrize("recipe", DENSITIES, ids=lambda recipe: recipe.name)
def test_every_recipe_is_a_job_of_the_service_too(recipe):
    table = dataset(rows=10_000, dim=180 if recipe.name.startswith("dna") else 784)
    table.columns[:] = [column | _BITS for column in table.columns]
    request = TrainingRequest.model_validate(recipe.request(table.id, seed=1))
    accepted = accept_training(request, table, limits=LIMITS)
    assert accepted.flow == recipe.flow
    wanted = recipe.options
    assert accepted.optimisation == dataclasses.replace(
        wanted, seed=1, patience=wanted.patience or wanted.max_epochs
    )


@pytest.mark.parametrize("recipe", VARIATIONAL, ids=lambda recipe: recipe.name)
def test_every_variational_recipe_is_a_job_of_the_service_too(recipe):
    request = VariationalRequest.model_validate(recipe.request(seed=1))
    accepted = accept_variational(request, None, limits=LIMITS)
    assert accepted.flow == recipe.flow
    options = accepted.optimisation
    # Only so many reports are kept of a job.
    assert options.report_every >= recipe.options.report_every
    assert options == dataclasses.replace(recipe.options, seed=1, report_every=options.report_every)


def test_every_result_is_of_an_experiment():
    for path in RESULTS.glob("*.json"):
        result = json.loads(path.read_text(encoding="utf-8"))
        assert result["name"] == path.stem
        assert path.stem in RECIPES | STUDIES
