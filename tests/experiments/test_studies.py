"""Studies: detectors of anomalies, the HAF beside others, and their tables."""

import json

import numpy as np
import pytest
import torch
import typer

from densityd.admin.reproduce import GROUPS, STUDIES, list_recipes, print_request, reproduce
from experiments.recipes.catalogue import RECIPES
from experiments.studies import amortised, anomaly, comparison
from experiments.studies.detectors import DETECTORS, FLOWS
from experiments.studies.study import Study, run_study
from experiments.studies.tables import amortised_section, anomaly_section, comparison_section
from flows import FAMILIES


class Counting(Study):
    """A study that stops when it is told to."""

    def __init__(self, stop_at=None):
        self.name, self.title, self.data = "counting", "Counting", "none"
        self.cells = tuple({"letter": letter, "seed": seed} for seed in (0, 1) for letter in "ab")
        self.measured = []
        self.stop_at = stop_at

    def measure(self, cell, folder, *, quick):
        if len(self.measured) == self.stop_at:
            raise KeyboardInterrupt
        self.measured.append(cell)
        return {"value": 1.5}


def run_counting(study, folder, *, quick=False):
    return run_study(study, data=folder, results=folder, quick=quick, progress=lambda *_: None)


def test_a_study_that_was_stopped_measures_what_is_missing(tmp_path):
    first = Counting(stop_at=3)
    with pytest.raises(KeyboardInterrupt):
        run_counting(first, tmp_path)
    second = Counting()
    result = run_counting(second, tmp_path)
    assert second.measured == [{"letter": "b", "seed": 1}]
    assert [run["letter"] for run in result["runs"]] == ["a", "b", "a", "b"]
    assert json.loads((tmp_path / "counting.json").read_text()) == result
    assert [path.name for path in tmp_path.iterdir()] == ["counting.json"]


def test_a_quick_study_measures_one_seed_and_writes_nothing(tmp_path):
    assert len(run_counting(Counting(), tmp_path, quick=True)["runs"]) == 2
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
    first = anomaly.load_split(table, "thyroid", "first", 0)
    with np.load(table / "anomaly_thyroid.npz") as arrays:
        np.testing.assert_array_equal(first.train, arrays["X"][20:140])
    assert first.labels.tolist() == [0] * 120 + [1] * 20
    one, other = (anomaly.load_split(table, "thyroid", "random", seed) for seed in (0, 1))
    assert not np.array_equal(one.train, other.train)
    np.testing.assert_array_equal(
        np.sort(np.concatenate([one.train, one.test[:120]]), axis=0),
        np.sort(np.concatenate([first.train, first.test[:120]]), axis=0),
    )


@pytest.mark.parametrize("detector", ["isolation-forest", "neighbours", "mixture", "gaussian"])
def test_a_detector_ranks_far_rows_first(table, detector):
    pytest.importorskip("sklearn")
    study = anomaly.STUDIES["anomaly-thyroid"]
    cell = {"detector": detector, "split": "first", "seed": 0}
    found = study.measure(cell, table, quick=False)
    assert found["auroc"] > 99
    assert found["aupr"] > 95


@pytest.mark.parametrize("dim", [6, 9, 63])
@pytest.mark.parametrize("family", ["haf", "realnvp"])
def test_the_families_have_as_many_active_parameters(family, dim):
    _, wanted = comparison.matched("maf", dim)
    _, found = comparison.matched(family, dim)
    assert found == pytest.approx(wanted, rel=0.02)


def test_masked_weights_are_not_active():
    """A MADE of 3 features and one hidden layer of 100, five times, with its batch norms."""
    degrees = (np.arange(100) % 2) + 1  # of the hidden units
    weights = sum((degree + 2 * (3 - degree)) for degree in degrees)
    expected = 5 * (weights + 100 + 6 + 6)
    assert comparison.matched("maf", 3)[1] == expected


@pytest.mark.parametrize("family", comparison.FAMILIES)
def test_the_comparison_runs_on_a_file_of_its_form(table, family):
    study = comparison.STUDIES["haf-thyroid"]
    found = study.measure({"family": family, "seed": 0}, table, quick=True)
    assert np.isfinite(found["test_log_likelihood"])
    assert found["train_rows"] == 192


def test_housing_is_standardised_by_the_training_rows(tmp_path):
    rows = np.random.default_rng(0).gamma(2, size=(300, 9))
    np.save(tmp_path / "cal_housing.npy", rows)
    study = comparison.STUDIES["haf-housing"]
    found = study.measure({"family": "maf", "seed": 0}, tmp_path, quick=True)
    assert (found["dim"], found["train_rows"]) == (9, 240)


@pytest.mark.parametrize("name", ["planar-u1", "haf-thyroid", "anomaly"])
def test_mixed_precision_is_refused_where_it_means_nothing(name, tmp_path, capsys):
    with pytest.raises(typer.Exit) as ended:
        reproduce(name, data=tmp_path, out=tmp_path, seed=0, quick=True, mixed_precision=True)
    assert ended.value.exit_code == 2
    assert "only for densities of data" in capsys.readouterr().err


@pytest.mark.long
def test_progress_is_told_in_lines_where_there_is_no_terminal(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("densityd.admin.reproduce._LINE_PAUSE_S", 0)
    threads = torch.get_num_threads()
    try:
        reproduce("planar-u5-k2", data=None, out=tmp_path / "out", seed=0, quick=True)
    finally:
        torch.set_num_threads(threads)
    printed = capsys.readouterr()
    assert printed.err.splitlines()[-1].startswith("planar-u5-k2: 100%; ELBO ")
    assert printed.out.startswith("KL ")


def test_the_body_of_a_job_is_printed(capsys):
    print_request("planar-u1", seed=3)
    printed = json.loads(capsys.readouterr().out)
    assert printed["target"] == {"potential": "U1"}
    assert printed["optimisation"]["seed"] == 3
    print_request("dna-made", seed=3)
    assert json.loads(capsys.readouterr().out)["dataset_id"] == "DATASET_ID"
    with pytest.raises(typer.Exit) as ended:
        print_request("haf-thyroid", seed=3)
    assert ended.value.exit_code == 2
    assert "no single job" in capsys.readouterr().err


def test_every_name_is_listed_whole(capsys):
    list_recipes()
    names = [line.split()[0] for line in capsys.readouterr().out.splitlines() if line.strip()]
    assert set(RECIPES) | set(STUDIES) | set(GROUPS) <= set(names)


@pytest.mark.long
def test_a_study_is_reproduced_by_name_and_by_group(table, capsys):
    pytest.importorskip("sklearn")
    threads = torch.get_num_threads()
    try:
        reproduce("haf-thyroid", data=table, out=table / "out", seed=0, quick=True)
        with pytest.raises(typer.Exit):
            reproduce("haf-comparison", data=table, out=table / "out", seed=0, quick=True)
    finally:
        torch.set_num_threads(threads)
    printed = capsys.readouterr()
    assert printed.out.count("nothing was written") == 2
    assert "anomaly_pendigits.npz" in printed.err
    assert not (table / "out").exists()
    assert [study for group in GROUPS.values() for study in group] == list(STUDIES)


def runs_of_families(**values):
    return [
        {"family": family, "seed": seed, "dim": 6, "train_rows": 100, "active_parameters": 1000}
        | {"test_log_likelihood": None, "test_but_least_likely_log_likelihood": value}
        for family, found in values.items()
        for seed, value in enumerate(found)
    ]


def test_the_comparison_is_judged_by_the_differences_of_the_seeds():
    runs = runs_of_families(maf=[1.0, 2.0, 3.0], haf=[1.5, 2.5, 3.51], realnvp=[1.0, 2.9, 3.5])
    text = comparison_section(lambda name: runs if name == "haf-thyroid" else [])
    assert "| 2.000 ± 1.000 | 2.503 ± 1.005 |" in text
    assert "| ahead: +0.503 ± 0.014 | no difference: +0.037 ± 1.119 |" in text
    assert "NaN in 3 of 3" in text
    assert "Against MAF, HAF is ahead on 1 of 1 sets and behind on 0; on 0 there" in text
    one = comparison_section(lambda _: runs_of_families(maf=[1.0], haf=[1.5], realnvp=[1.0]))
    assert "too few seeds" in one


def test_the_detectors_table_holds_means_and_what_was_not_run():
    runs = [
        {"detector": name, "split": "first", "seed": seed, "auroc": value + seed, "aupr": 50.0}
        for name, value in (("defaults", 90.0), ("isolation-forest", 80.0))
        for seed in range(3)
    ]
    text = anomaly_section(lambda name: runs if name == "anomaly-thyroid" else [])
    assert "| `defaults` | 91.00 ± 1.00 | not run | not run | not run |" in text
    assert "above the isolation forest's on thyroid, and not on none." in text


@pytest.mark.parametrize("posterior", amortised.POSTERIORS)
def test_a_posterior_is_judged_by_bounds_of_test_rows(tmp_path, posterior):
    generator = np.random.default_rng(0)
    parts = {"train": 100, "valid": 10, "test": 40}
    rows = {name: generator.random((count, 24)) < 0.3 for name, count in parts.items()}
    train, valid, test = (np.packbits(bits, axis=1) for bits in rows.values())
    np.savez(tmp_path / "binarized_mnist.npz", train=train, valid=valid, test=test)
    study = amortised.STUDIES["amortised-mnist"]
    found = study.measure({"posterior": posterior, "seed": 0}, tmp_path, quick=True)
    assert -60 < found["test_elbo"] <= found["test_bound"] < 0
    assert found["test_rows"] == 20
    assert found["curve"][-1][0] == found["iterations"]


def amortised_runs(**elbos):
    return [
        {"posterior": name.replace("_", "-"), "seed": seed, "parameters": 1000}
        | {"test_elbo": value, "test_bound": value + 2, "training_processor_seconds": 60}
        | {"test_elbo_standard_error": 0.5}
        | {"curve": [[200 * at, -100 + at] for at in range(1, 31)]}
        for name, values in elbos.items()
        for seed, value in enumerate(values)
    ]


def test_the_posteriors_are_compared_with_the_diagonal_one(tmp_path):
    runs = amortised_runs(diagonal=[-100.0, -101.0], iaf_2=[-99.0, -99.5])
    text = amortised_section(lambda _: runs)
    assert "| -100.50 ± 0.71 | -98.50 ± 0.71 | +0.00 | 60 |" in text
    assert "| -99.25 ± 0.35 | -97.25 ± 0.35 | +1.25 | 60 |" in text
    assert "| flow, 4 layers | 4 | - | not run | not run | - | - |" in text
    pytest.importorskip("matplotlib")
    [path] = amortised.STUDIES["amortised-mnist"].draw({"runs": runs}, tmp_path)
    assert path.stat().st_size > 1000
