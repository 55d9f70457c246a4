"""Recipes: their data, jobs, figures, and samples of the defaults."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from starlette.testclient import TestClient

from app.main import create_app
from app.settings import ApiSettings
from experiments import data, figures
from experiments.__main__ import RESULTS
from experiments.data import DataMissingError
from experiments.local_job import run_job
from experiments.recipes import RECIPES, DensityRecipe, VariationalRecipe
from experiments.run import Place, log_densities, run, score_metrics
from experiments.studies import STUDIES
from flows import MadeSpec, build, compile_flow
from models_store.database.database import Database
from models_store.requests.accept_training import accept_training
from models_store.requests.accept_variational import accept_variational
from models_store.requests.flow_limits import TrainingLimits
from models_store.requests.training import TrainingRequest
from models_store.requests.variational import VariationalRequest
from tests.jobs.requests.test_accept_training import dataset
from tests.jobs.workers.crash_child import InlineTrainers
from tests.tables.files import npy
from workers.settings import WorkerSettings
from workers.supervisor.supervisor import Supervisor

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


def test_test_densities_are_those_before_standardisation():
    rows, std = torch.tensor([[0.0, 0.0], [1.0, -2.0]]), torch.tensor([2.0, 4.0])
    flow = build(MadeSpec(hidden=[4]), 2, standardise=(torch.zeros(2), std), seed=0)
    expected = flow.log_prob(rows * std).detach().double()
    torch.testing.assert_close(log_densities(flow, rows), expected)


def test_the_least_likely_thousandth_of_the_test_rows_is_left_out_of_a_second_mean():
    scores = torch.cat([torch.linspace(-1, 1, 999), torch.tensor([-1e3])]).double()
    found = score_metrics(scores)
    assert (found["test_rows"], found["test_left_out"]) == (1000, 1)
    assert found["test_log_likelihood"] == pytest.approx(-1)
    assert found["test_but_least_likely_log_likelihood"] == pytest.approx(0, abs=1e-6)


def test_every_result_is_of_an_experiment():
    for path in RESULTS.glob("*.json"):
        result = json.loads(path.read_text(encoding="utf-8"))
        assert result["name"] == path.stem
        assert path.stem in RECIPES | STUDIES


Rows = NDArray[np.float64]
RANDOM = np.random.default_rng(0)
COUNT = 300


def with_an_outlier() -> Rows:
    return np.vstack([RANDOM.normal(size=(COUNT - 1, 2)), [[1e12, -1e12]]])


def with_shared_values() -> Rows:
    zeros = np.where(RANDOM.random(COUNT) < 0.7, 0, RANDOM.exponential(size=COUNT))
    return np.column_stack([RANDOM.integers(0, 3, COUNT), zeros])


@pytest.mark.parametrize(
    "rows",
    [
        pytest.param(RANDOM.standard_cauchy((COUNT, 3)), id="heavy tails"),
        pytest.param(RANDOM.standard_cauchy((COUNT, 70)), id="more columns than splines take"),
        pytest.param(with_an_outlier(), id="an outlier"),
        pytest.param(with_shared_values(), id="shared values"),
    ],
)
def test_samples_of_the_defaults_are_finite(rows: Rows) -> None:
    flow = compile_flow(run_job(rows.astype(np.float32), {"optimisation": {"seed": 0}}).flow)
    assert np.isfinite(flow.sample(10_000, seed=1)).all()
    assert not np.isnan(flow.log_prob(rows)).any()


CURVE = [[1.0, -3.0, -3.1], [2.0, -2.0, -2.2]]


def drawn(name, folder, *, flow, dim, test, shorter=2):
    recipe = dataclasses.replace(RECIPES[name], flow=flow)
    preprocessing = recipe.preprocessing if isinstance(recipe, DensityRecipe) else None
    built = build(flow, dim, preprocessing=preprocessing, seed=0)
    curve = [line[: shorter + 1] for line in CURVE]
    paths = figures.draw(recipe, built, curve, test, folder)
    assert all(1000 < path.stat().st_size < 150_000 for path in paths)
    return [path.name.removeprefix(name).removesuffix(".png") for path in paths]


def test_a_potential_has_its_density_and_what_each_layer_does(tmp_path):
    flow = RECIPES["planar-u5-k2"].flow
    names = drawn("planar-u5-k2", tmp_path, flow=flow, dim=2, test=None, shorter=1)
    assert names == ["-curve", "", "-layers"]


def test_points_have_both_densities(tmp_path):
    test = data.load("moons", None).test[:200]
    flow = MadeSpec(hidden=[8])
    names = drawn("moons-realnvp", tmp_path, flow=flow, dim=2, test=test)
    assert names == ["-curve", ""]


NPY = {"Content-Type": "application/x-npy"}


def binary(generator):
    return generator.integers(0, 2, size=(60, 40)).astype(np.float32)


def grey(generator):
    return generator.integers(0, 256, size=(60, 40)).astype(np.float32)


@pytest.mark.parametrize(
    ("name", "rows"),
    [
        pytest.param("dna-made", binary, marks=pytest.mark.slow, id="binary"),
        pytest.param("mnist-made-gaussian", grey, id="logit"),
    ],
)
def test_a_recipe_is_a_job_whose_model_scores_its_rows(tmp_path, sqlite_template, name, rows):
    shutil.copy(sqlite_template, tmp_path / "densityd.sqlite3")
    settings = WorkerSettings(data_dir=tmp_path, trainer_nice=0)
    recipe = RECIPES[name]
    assert isinstance(recipe, DensityRecipe)
    table = npy(rows(np.random.default_rng(0)))
    with TestClient(create_app(ApiSettings(data_dir=tmp_path))) as client:
        dataset = client.post("/v1/datasets", content=table, headers=NPY)
        assert dataset.status_code == 201, dataset.text
        body = recipe.request(dataset.json()["id"], seed=1)
        body["optimisation"]["max_epochs"] = 1
        job = client.post("/v1/jobs/training", json=body)
        assert job.status_code == 202, job.text
        database = Database(settings.resolved_database_url)
        assert Supervisor(database, settings, worker="w", trainers=InlineTrainers()).run_next()
        database.dispose()
        ended = client.get(f"/v1/jobs/{job.json()['id']}").json()
        assert ended["state"] == "succeeded", ended
        scores = client.post(f"/v1/models/{name}/log_prob", content=table, headers=NPY)
        assert scores.status_code == 200, scores.text
        assert np.isfinite(scores.json()["log_prob"]).all()
