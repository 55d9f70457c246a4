"""Studies: detectors of anomalies, and the HAF beside others; and the command line."""

import json

import numpy as np
import pytest
import torch

from experiments import data, studies
from experiments.__main__ import main
from experiments.recipes import RECIPES, DensityRecipe
from experiments.run import Place, run
from experiments.studies import DETECTORS, FLOWS, GROUPS, STUDIES, Cell, Study, run_study
from flows import FAMILIES

CELLS = tuple({"letter": letter, "seed": seed} for seed in (0, 1) for letter in "ab")


def run_counting(folder, *, stop_at=None, quick=False):
    """Run a study that stops when it is told to; return what it measured, and its result."""
    measured: list[Cell] = []

    def measure(cell, _folder, _quick):
        if len(measured) == stop_at:
            raise KeyboardInterrupt
        measured.append(cell)
        return {"value": 1.5}

    study = Study("counting", "Counting", CELLS, measure)
    result = run_study(study, data=folder, results=folder, quick=quick, progress=lambda *_: None)
    return measured, result


def test_a_study_that_was_stopped_measures_what_is_missing(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        run_counting(tmp_path, stop_at=3)
    measured, result = run_counting(tmp_path)
    assert measured == [{"letter": "b", "seed": 1}]
    assert [run["letter"] for run in result["runs"]] == ["a", "b", "a", "b"]
    assert json.loads((tmp_path / "counting.json").read_text()) == result
    assert [path.name for path in tmp_path.iterdir()] == ["counting.json"]


def test_a_quick_study_measures_one_seed_and_writes_nothing(tmp_path):
    assert len(run_counting(tmp_path, quick=True)[1]["runs"]) == 2
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def table(tmp_path):
    """Normal rows about 0, anomalies far from them."""
    generator = np.random.default_rng(0)
    normal, odd = generator.normal(size=(240, 3)), generator.normal(9, 1, size=(20, 3))
    rows = np.concatenate([odd, normal]).astype(np.float32)
    labels = np.repeat([1, 0], [20, 240])
    np.savez(tmp_path / "anomaly_thyroid.npz", X=rows, y=labels)
    return tmp_path


def test_every_family_is_among_the_detectors():
    named = {flow["family"] for flow in FLOWS.values() if flow is not None}
    assert named == set(FAMILIES) - {
        "gaussian_mixture"
    }  # scikit-learn's mixture stands beside them
    assert set(FLOWS) < set(DETECTORS)


def test_the_first_half_follows_the_file_and_a_random_one_the_seed(table):
    first = studies.load_split(table, "thyroid", "first", 0)
    with np.load(table / "anomaly_thyroid.npz") as arrays:
        np.testing.assert_array_equal(first.train, arrays["X"][20:140])
    assert first.labels.tolist() == [0] * 120 + [1] * 20
    one, other = (studies.load_split(table, "thyroid", "random", seed) for seed in (0, 1))
    assert not np.array_equal(one.train, other.train)
    np.testing.assert_array_equal(
        np.sort(np.concatenate([one.train, one.test[:120]]), axis=0),
        np.sort(np.concatenate([first.train, first.test[:120]]), axis=0),
    )


@pytest.mark.parametrize("detector", ["isolation-forest", "neighbours", "mixture", "gaussian"])
def test_a_detector_ranks_far_rows_first(table, detector):
    study = STUDIES["anomaly-thyroid"]
    cell = {"detector": detector, "split": "first", "seed": 0}
    found = study.measure(cell, table, False)
    assert found["auroc"] > 99
    assert found["aupr"] > 95


@pytest.mark.parametrize("dim", [6, 9, 63])
@pytest.mark.parametrize("family", ["haf", "realnvp"])
def test_the_families_have_as_many_active_parameters(family, dim):
    _, wanted = studies.matched("maf", dim)
    _, found = studies.matched(family, dim)
    assert found == pytest.approx(wanted, rel=0.02)


def test_masked_weights_are_not_active():
    """A MADE of 3 features and one hidden layer of 100, five times, with its batch norms."""
    degrees = (np.arange(100) % 2) + 1  # of the hidden units
    weights = sum((degree + 2 * (3 - degree)) for degree in degrees)
    expected = 5 * (weights + 100 + 6 + 6)
    assert studies.matched("maf", 3)[1] == expected


@pytest.mark.parametrize("family", studies.FAMILIES)
def test_the_comparison_runs_on_a_file_of_its_form(table, family):
    study = STUDIES["haf-thyroid"]
    found = study.measure({"family": family, "seed": 0}, table, True)
    assert np.isfinite(found["test_log_likelihood"])
    assert found["train_rows"] == 192


def test_housing_is_standardised_by_the_training_rows(tmp_path):
    rows = np.random.default_rng(0).gamma(2, size=(300, 9))
    np.save(tmp_path / "cal_housing.npy", rows)
    study = STUDIES["haf-housing"]
    found = study.measure({"family": "maf", "seed": 0}, tmp_path, True)
    assert (found["dim"], found["train_rows"]) == (9, 240)


def test_the_body_of_a_job_is_printed(capsys):
    main(["planar-u1", "--request", "--seed", "3"])
    printed = json.loads(capsys.readouterr().out)
    assert printed["target"] == {"potential": "U1"}
    assert printed["optimisation"]["seed"] == 3
    main(["dna-made", "--request"])
    assert json.loads(capsys.readouterr().out)["dataset_id"] == "DATASET_ID"
    with pytest.raises(SystemExit) as ended:
        main(["haf-thyroid", "--request"])
    assert ended.value.code == 2
    assert "no single job" in capsys.readouterr().err


def test_every_name_is_listed_whole(capsys):
    main(["list"])
    names = [line.split()[0] for line in capsys.readouterr().out.splitlines()]
    assert names == [*RECIPES, *STUDIES, *GROUPS]


def test_a_study_is_run_by_name_and_by_group(table):
    threads = torch.get_num_threads()
    try:
        main(["haf-thyroid", "--data", str(table), "--out", str(table / "out"), "--quick"])
        with pytest.raises(SystemExit, match="anomaly_pendigits"):
            main(["haf-comparison", "--data", str(table), "--out", str(table / "out"), "--quick"])
    finally:
        torch.set_num_threads(threads)
    assert not (table / "out").exists()
    assert [study.name for group in GROUPS.values() for study in group] == list(STUDIES)


@pytest.mark.parametrize("posterior", studies.POSTERIORS)
def test_a_posterior_is_judged_by_bounds_of_test_rows(tmp_path, posterior):
    generator = np.random.default_rng(0)
    parts = {"train": 100, "valid": 10, "test": 40}
    rows = {name: generator.random((count, 24)) < 0.3 for name, count in parts.items()}
    train, valid, test = (np.packbits(bits, axis=1) for bits in rows.values())
    np.savez(tmp_path / "binarized_mnist.npz", train=train, valid=valid, test=test)
    study = STUDIES["amortised-mnist"]
    found = study.measure({"posterior": posterior, "seed": 0}, tmp_path, True)
    assert -60 < found["test_elbo"] <= found["test_bound"] < 0
    assert found["test_rows"] == 20
    assert found["curve"][-1][0] == found["iterations"]


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
    every = torch.cat([rows.train, rows.validation, rows.test])
    assert len(every.unique(dim=0)) == len(every)  # no row is in two parts


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
