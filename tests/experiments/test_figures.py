"""The figures of the experiments."""

import dataclasses
from statistics import NormalDist

import numpy as np
import pytest
import torch

from experiments.data import catalogue as data, images, noise
from experiments.figures import figures
from experiments.recipes.catalogue import RECIPES
from experiments.recipes.recipe import DensityRecipe
from flows import MadeSpec, build

CURVE = [[1.0, -3.0, -3.1], [2.0, -2.0, -2.2]]


def drawn(name, folder, *, flow, dim, test, shorter=2):
    pytest.importorskip("matplotlib")
    recipe = dataclasses.replace(RECIPES[name], flow=flow)
    preprocessing = recipe.preprocessing if isinstance(recipe, DensityRecipe) else None
    built = build(flow, dim, preprocessing=preprocessing, seed=0)
    curve = [line[: shorter + 1] for line in CURVE]
    paths = figures.draw(recipe, built, curve, test, folder)
    assert all(1000 < path.stat().st_size < 150_000 for path in paths)
    return [path.name.removeprefix(name).removesuffix(".png") for path in paths]


@pytest.mark.long
def test_a_potential_has_its_density_and_what_each_layer_does(tmp_path):
    flow = RECIPES["planar-u5-k2"].flow
    names = drawn("planar-u5-k2", tmp_path, flow=flow, dim=2, test=None, shorter=1)
    assert names == ["-curve", "", "-layers"]


@pytest.mark.long
def test_binary_pictures_have_samples_completions_and_reconstructions(tmp_path):
    test = (torch.rand(20, 784, generator=torch.Generator().manual_seed(0)) > 0.8).float()
    flow = MadeSpec(conditional="bernoulli", hidden=[8], order="random")
    names = drawn("mnist-made-bernoulli-500", tmp_path, flow=flow, dim=784, test=test)
    assert names == ["-curve", "-samples", "-completions", "-reconstructions"]


@pytest.mark.long
def test_grey_pictures_have_samples_and_their_noise(tmp_path):
    test = torch.randint(0, 256, (20, 784), generator=torch.Generator().manual_seed(0)).float()
    flow = MadeSpec(hidden=[8])
    names = drawn("mnist-made-gaussian", tmp_path, flow=flow, dim=784, test=test)
    assert names == ["-curve", "-samples", "-noise"]


@pytest.mark.long
def test_points_have_their_noise_and_both_densities(tmp_path):
    test = data.load("moons", None).test[:200]
    flow = MadeSpec(hidden=[8])
    names = drawn("moons-realnvp", tmp_path, flow=flow, dim=2, test=test)
    assert names == ["-curve", "-noise", ""]


@pytest.mark.parametrize("order", ["natural", "random"])
def test_completions_keep_what_is_given_and_draw_the_rest(order):
    flow = build(MadeSpec(conditional="bernoulli", hidden=[16], order=order), 40, seed=0).eval()
    rows = (torch.rand(5, 40, generator=torch.Generator().manual_seed(0)) > 0.5).float()
    completed, given = images.complete(flow, rows, 60)
    assert int(given.sum()) == 20
    assert given[:20].all() == (order == "natural")
    assert (completed[:, :, given] == rows[:, given]).all()
    assert set(completed.unique().tolist()) == {0.0, 1.0}
    # Among 60 completions of a half that is left open there are many kinds.
    assert len(completed[:, 0].unique(dim=0)) > 50


def test_the_last_half_is_drawn_by_its_probability():
    """Two features, one given: the other one's share of ones is what its density says."""
    flow = build(MadeSpec(conditional="bernoulli", hidden=[8]), 2, seed=3).eval()
    rows = torch.tensor([[0.0, 0.0], [1.0, 0.0]])
    completed, _ = images.complete(flow, rows, 4000)
    with torch.no_grad():
        joint = flow.log_prob(torch.tensor([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])).exp()
    expected = joint[1::2] / (joint[::2] + joint[1::2])
    torch.testing.assert_close(completed[:, :, 1].mean(dim=0), expected, atol=0.03, rtol=0)


def test_noise_is_that_of_the_rows():
    flow = build(MadeSpec(hidden=[8]), 3, seed=0).eval()
    u = torch.randn(4001, 3, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        rows, _ = flow.forward(u)
    found = noise.noise_of(flow, rows)
    assert found.shape == (1334, 3)
    np.testing.assert_allclose(found, u[::3], atol=1e-4)


@pytest.mark.parametrize(("shift", "rejected"), [(0.123, 0), (0.134, 1)])
def test_noise_is_rejected_beyond_the_distance_of_the_tables(shift, rejected):
    # For 100 rows the 5 % point of Stephens 1970 is 1.358 / (10 + 0.12 + 0.011) = 0.134.
    shares = (np.arange(100) + 0.5) / 100
    values = np.array([NormalDist().inv_cdf(share) for share in shares * (1 - shift)])
    found = noise.normality(values[:, None])
    assert found["noise_rejected"] == rejected
    assert found["noise_median_distance"] == pytest.approx(shift + 0.005 * (1 - shift), abs=1e-6)


def test_a_level_is_that_of_all_features_and_what_is_no_number_is_rejected():
    shares = (np.arange(100) + 0.5) / 100
    values = np.array([NormalDist().inv_cdf(share) for share in shares * (1 - 0.15)])
    exact = np.array([NormalDist().inv_cdf(share) for share in shares])
    assert noise.normality(values[:, None])["noise_rejected"] == 1
    many = np.stack([values, *[exact] * 9], axis=1)
    assert noise.normality(many)["noise_rejected"] == 0
    many[3, 4] = np.nan
    assert noise.normality(many)["noise_rejected"] == 1
