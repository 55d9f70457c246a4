"""Recipes as ordinary jobs: the dataset, the job and the scores by way of the API."""

import shutil

import numpy as np
import pytest
from starlette.testclient import TestClient

from app.main import create_app
from app.settings import ApiSettings
from experiments.recipes import RECIPES, DensityRecipe
from models_store.database.database import Database
from tests.jobs.workers.crash_child import InlineTrainers
from tests.tables.files import npy
from workers.settings import WorkerSettings
from workers.supervisor.supervisor import Supervisor

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
