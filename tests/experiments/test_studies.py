"""Studies: detectors of anomalies, and the HAF beside others; and the command line."""

import json

import numpy as np
import pytest
import torch

from experiments import studies
from experiments.__main__ import main
from experiments.recipes import RECIPES
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
