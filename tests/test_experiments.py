"""The published experiments: recipes, data, runs and the page of results."""

import json

import numpy as np
import pytest
import torch

from experiments import data, figures, page
from experiments.recipes import RECIPES, DensityRecipe, VariationalRecipe
from experiments.run import Place, run
from experiments.sources import DataMissingError
from flows import build
from models_store.schemas import TrainingRequest
from models_store.variational_schemas import VariationalRequest


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


@pytest.mark.parametrize("name", ["hepmass-maf", "hepmass-haf-256"])
def test_hepmass_runs_on_a_file_of_its_form(place, name):
    place.data.mkdir()
    generator = np.random.default_rng(0)
    for file, columns in (("1000_train.csv", 28), ("1000_test.csv", 29)):
        events = generator.normal(size=(300, columns))
        events[:, 0] = generator.integers(0, 2, 300)
        events[:, 3] = np.maximum(events[:, 3], 0.0)  # it repeats its smallest value: left out
        header = ",".join(f"f{i}" for i in range(columns))
        np.savetxt(place.data / file, events, delimiter=",", header=header)
    rows = data.load("hepmass", place.data)
    assert rows.train.shape[1] == rows.test.shape[1] == 26
    assert float(rows.train.mean().abs()) < 0.1
    assert np.isfinite(quick(name, place)["test_log_likelihood"])


def test_missing_data_is_named(place):
    with pytest.raises(DataMissingError, match=r"mnist\.npz"):
        quick("mnist-maf", place)


def test_a_run_that_was_stopped_goes_on_to_the_same_numbers(place, monkeypatch):
    write_bits(place.data, "dna", 180)
    whole = quick("dna-made", place)
    monkeypatch.setattr("experiments.run._SAVE_EVERY_S", 0)
    monkeypatch.setattr("experiments.run._QUICK_EPOCHS", 2)

    class StoppedError(Exception):
        pass

    def stop(done, _total, _text):
        if done == 2:
            raise StoppedError

    with pytest.raises(StoppedError):
        run(RECIPES["dna-made"], place, seed=0, quick=True, progress=stop)
    assert quick("dna-made", place)["test_log_likelihood"] == whole["test_log_likelihood"]
    assert list(place.state.glob("*.json")) == []


def test_the_results_and_figures_of_a_run_are_written(place):
    pytest.importorskip("matplotlib")
    recipe = RECIPES["planar-u5-k2"]
    assert isinstance(recipe, VariationalRecipe)
    quick(recipe.name, place)
    place.results.mkdir()
    flow = build(recipe.flow, 2, seed=0).eval()
    paths = figures.draw(recipe, flow, [[1, -3.0], [2, -2.0]], place.results)
    assert [path.name for path in paths] == [
        "planar-u5-k2-curve.png",
        "planar-u5-k2.png",
        "planar-u5-k2-layers.png",
    ]
    assert all(path.stat().st_size > 1000 for path in paths)


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=lambda recipe: recipe.name)
def test_every_recipe_is_a_job_of_the_service_too(recipe):
    if isinstance(recipe, DensityRecipe):
        body = recipe.request("ds_" + "0" * 32, seed=1)
        assert TrainingRequest.model_validate(body).flow == recipe.flow
    else:
        assert VariationalRequest.model_validate(recipe.request(seed=1)).flow == recipe.flow


@pytest.mark.parametrize("name", ["moons", "picture"])
def test_data_that_are_made_are_standardised_points(name):
    rows = data.load(name, None)
    assert rows.train.shape[1] == 2
    torch.testing.assert_close(rows.train.std(dim=0), torch.ones(2), atol=0.05, rtol=0)


def test_the_page_holds_what_the_results_say():
    assert page.PAGE.read_text(encoding="utf-8") == page.page(), "run: python -m experiments.page"


def test_every_result_is_of_a_recipe():
    for path in page.RESULTS.glob("*.json"):
        result = json.loads(path.read_text(encoding="utf-8"))
        assert result["name"] == path.stem
        assert path.stem in RECIPES
