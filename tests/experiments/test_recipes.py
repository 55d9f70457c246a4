"""The published experiments: recipes, data and runs."""

import dataclasses
import json

import numpy as np
import pytest
import torch

from experiments.__main__ import RESULTS
from experiments.data import DataMissingError
from experiments.recipes import RECIPES, DensityRecipe, VariationalRecipe
from experiments.run import Place, run
from experiments.studies import STUDIES
from models_store.requests.accept_training import accept_training
from models_store.requests.accept_variational import accept_variational
from models_store.requests.flow_limits import TrainingLimits
from models_store.requests.training import TrainingRequest
from models_store.requests.variational import VariationalRequest
from tests.jobs.requests.test_accept_training import dataset

_BITS = {"min": 0.0, "max": 1.0, "distinct": 2}


@pytest.fixture
def place(tmp_path):
    return Place(
        data=tmp_path / "data",
        results=tmp_path / "results",
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


LIMITS = TrainingLimits(
    max_parameters=10**9, max_layers=256, max_memory_bytes=2**40, max_model_bytes=2**40
)
DENSITIES = [recipe for recipe in RECIPES.values() if isinstance(recipe, DensityRecipe)]
VARIATIONAL = [recipe for recipe in RECIPES.values() if isinstance(recipe, VariationalRecipe)]


def test_every_recipe_is_a_job_of_the_service_too():
    for recipe in DENSITIES:
        table = dataset(rows=10_000, dim=180 if recipe.name.startswith("dna") else 784)
        table.columns[:] = [column | _BITS for column in table.columns]
        request = TrainingRequest.model_validate(recipe.request(table.id, seed=1))
        accepted = accept_training(request, table, limits=LIMITS)
        assert accepted.flow == recipe.flow
        wanted = recipe.options
        assert accepted.optimisation == dataclasses.replace(
            wanted, seed=1, patience=wanted.patience or wanted.max_epochs
        )


def test_every_variational_recipe_is_a_job_of_the_service_too():
    for recipe in VARIATIONAL:
        request = VariationalRequest.model_validate(recipe.request(seed=1))
        accepted = accept_variational(request, None, limits=LIMITS)
        assert accepted.flow == recipe.flow
        options = accepted.optimisation
        # Only so many reports are kept of a job.
        assert options.report_every >= recipe.options.report_every
        assert options == dataclasses.replace(
            recipe.options, seed=1, report_every=options.report_every
        )


def test_every_result_is_of_an_experiment():
    for path in RESULTS.glob("*.json"):
        result = json.loads(path.read_text(encoding="utf-8"))
        assert result["name"] == path.stem
        assert path.stem in RECIPES | STUDIES
