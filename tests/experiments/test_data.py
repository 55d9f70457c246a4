"""The data of the experiments: files of the forms in which they are had, and points that are made."""

import numpy as np
import pytest
import torch

from experiments import data
from experiments.recipes import RECIPES, DensityRecipe
from experiments.run import Place, run


@pytest.fixture
def folder(tmp_path):
    return tmp_path


@pytest.fixture
def generator():
    return np.random.default_rng(0)


def write_hepmass(folder, generator):
    for file, columns in (("1000_train.csv", 28), ("1000_test.csv", 29)):
        events = generator.normal(size=(300, columns))
        events[:, 0] = generator.integers(0, 2, 300)
        events[:, 3] = np.maximum(events[:, 3], 0.0)  # it repeats its smallest value: left out
        header = ",".join(f"f{i}" for i in range(columns))
        np.savetxt(folder / file, events, delimiter=",", header=header)
    return np.loadtxt(folder / "1000_train.csv", delimiter=",", skiprows=1)


def write_power(folder, generator):
    lines = [
        "Date;Time;Global_active_power;Global_reactive_power;Voltage;Global_intensity;s1;s2;s3"
    ]
    for row in range(400):
        values = f"{generator.gamma(2):.3f};0.000;{generator.normal(240, 3):.3f};4.600;1.000;0.000"
        meter = generator.integers(0, 20)
        time = f"{row % 24:02}:{row % 60:02}:00"
        lines.append(f"16/12/2006;{time};{values};{meter}.000")
        lines.append(f"16/12/2006;{time};?;?;?;?;?;?;")
    path = folder / "household_power_consumption.txt"
    path.write_text("\n".join(lines) + "\n", encoding="ascii")


def write_gas(folder, generator):
    sensors = generator.normal(size=(1200, 8))
    both = np.repeat(sensors, 2, axis=1) + 0.01 * generator.normal(size=(1200, 16))
    rows = np.column_stack([np.arange(1200) / 100, np.zeros((1200, 2)), both])
    np.savetxt(folder / "ethylene_CO.txt", rows, fmt="%.2f", header="Time (seconds), CO, ...")


def write_miniboone(folder, generator):
    signal, background = generator.normal(size=(211, 50)), generator.normal(5, 1, size=(90, 50))
    signal[:, 7] = np.maximum(signal[:, 7], 0.0)
    signal[:11] = -999.0
    with (folder / "MiniBooNE_PID.txt").open("w", encoding="ascii") as file:
        file.write(f"  {len(signal)} {len(background)}\n")
        np.savetxt(file, np.concatenate([signal, background]), fmt="%.6e", delimiter="  ")


WRITERS = {
    "hepmass": write_hepmass,
    "power": write_power,
    "gas": write_gas,
    "miniboone": write_miniboone,
}


@pytest.mark.parametrize(
    ("name", "dim", "rows"),
    [("power", 6, (324, 36, 40)), ("gas", 8, (243, 27, 30)), ("miniboone", 49, (162, 18, 20))],
)
def test_an_original_file_is_prepared_as_published(folder, generator, name, dim, rows):
    WRITERS[name](folder, generator)
    found = data.load(name, folder)
    parts = (found.train, found.validation, found.test)
    assert [part.shape for part in parts] == [(count, dim) for count in rows]
    known = torch.cat(parts[:2]) if name != "gas" else torch.cat(parts)
    torch.testing.assert_close(known.mean(dim=0), torch.zeros(dim), atol=1e-4, rtol=0)
    torch.testing.assert_close(known.std(dim=0), torch.ones(dim), atol=0.01, rtol=0)


def test_power_has_no_two_equal_values(folder, generator):
    write_power(folder, generator)
    for column in data.load("power", folder).train.T:
        assert len(column.unique()) > 0.99 * len(column)


def test_hepmass_keeps_the_signal_and_what_does_not_repeat(folder, generator):
    events = write_hepmass(folder, generator)
    signal = events[events[:, 0] == 1][:, 1:]
    kept = np.delete(signal, 2, axis=1)
    rows = data.load("hepmass", folder)
    expected = (kept - kept.mean(axis=0)) / kept.std(axis=0)
    everything = torch.cat([rows.train, rows.validation]).double().numpy()
    np.testing.assert_allclose(everything, expected, atol=1e-5)
    assert rows.test.shape[1] == 26


def test_the_cleaned_rows_of_miniboone_are_the_same(folder, generator):
    write_miniboone(folder, generator)
    original = data.load("miniboone", folder)
    rows = np.loadtxt(folder / "MiniBooNE_PID.txt", skiprows=1)[11:211]
    np.save(folder / "miniboone.npy", np.delete(rows, 7, axis=1))
    cleaned = data.load("miniboone", folder)
    torch.testing.assert_close(cleaned.train, original.train)


@pytest.mark.parametrize("name", WRITERS)
def test_prepared_rows_are_taken_as_they_are(folder, generator, name):
    parts = {part: generator.normal(size=(9, 4)) for part in ("train", "validation", "test")}
    np.savez(folder / f"{name}.npz", **parts)
    np.testing.assert_allclose(data.load(name, folder).test, parts["test"], rtol=1e-6)


@pytest.mark.parametrize("name", WRITERS)
def test_nothing_is_unpickled(folder, name):
    np.savez(folder / f"{name}.npz", train=np.array([{}], object))
    with pytest.raises(ValueError, match="allow_pickle"):
        data.load(name, folder)


@pytest.mark.parametrize(
    "name", ["hepmass-haf-256", "power-made-gaussian", "gas-realnvp", "miniboone-maf"]
)
def test_a_recipe_runs_on_a_file_of_its_form(folder, generator, name):
    recipe = RECIPES[name]
    assert isinstance(recipe, DensityRecipe)
    WRITERS[recipe.data](folder, generator)
    place = Place(folder, folder / "results", torch.device("cpu"))
    result = run(recipe, place, seed=0, quick=True, progress=lambda *_: None)
    assert np.isfinite(result["test_log_likelihood"])


@pytest.mark.parametrize("name", ["moons", "picture"])
def test_points_that_are_made_are_standardised(name):
    rows = data.load(name, None)
    assert rows.train.shape[1] == 2
    torch.testing.assert_close(rows.train.std(dim=0), torch.ones(2), atol=0.05, rtol=0)


@pytest.mark.parametrize("name", ["moons", "picture"])
def test_the_true_density_of_points_is_one(name):
    density = data.DENSITIES[name]
    side = np.linspace(-3, 3, 121)
    cells = np.stack(np.meshgrid(side, side), axis=-1).reshape(-1, 2)
    assert density(cells).sum() * 0.05**2 == pytest.approx(1, abs=0.03)
    rows = data.load(name, None).test.double().numpy()
    share = (rows < 0).all(axis=1).mean()
    quarter = ((cells < 0).all(axis=1) * density(cells)).sum() * 0.05**2
    assert share == pytest.approx(quarter, abs=0.04)
