"""The figures of the experiments."""

import dataclasses

from experiments import data, figures
from experiments.recipes import RECIPES, DensityRecipe
from flows import MadeSpec, build

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
