"""Commands that submit jobs: what is sent, and what is refused before it is."""

import json
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
import typer

from densityd.client import Client
from densityd.terminal import options as choices
from tests.densityd.bodies import CLAIMS, JOB
from tests.densityd.commands.running import run
from tests.densityd.scripted import ScriptedServer, a_json


def test_a_training_is_accepted_and_its_id_printed(table: Path, url: str) -> None:
    options = ["--flow", "maf", "--set", "layers=2", "--set", "hidden=[8]", "--max-seconds", 5]
    more = ["--set", "optimisation.batch_size=10", "--context-column", "age", "--no-wait"]

    printed = run("train", table, "--model", "walk", *options, *more).stdout

    with Client(url) as client:
        job = client.jobs.get(printed.strip())
    assert (job.request["flow"]["layers"], job.request["flow"]["hidden"]) == (2, [8])
    assert job.request["optimisation"]["max_seconds"] == 5
    assert job.request["optimisation"]["batch_size"] == 10
    assert job.request["context_columns"] == ["age"]
    dataset = job.request["dataset_id"]
    columns = ["--column", "age", "--column", "height"]
    again = run("train", "--dataset", dataset, "--model", "walk", *columns, "--no-wait", "--json")
    printed_job = json.loads(again.stdout)
    assert printed_job["request"]["columns"] == ["age", "height"]
    assert "warnings" in printed_job["dataset"]
    assert f"columns: {dataset}\n" in again.stderr


def test_a_sweep_reads_its_ranges(table: Path, url: str) -> None:
    rates = "optimisation.learning_rate=3e-4:1e-2:log"
    ranges = ["--range", "layers=2:4", "--range", "hidden=[[8], [16]]", "--range", rates]
    more = ["--range", "activation=tanh,relu", "--trials", 5, "--seed", 2, "--no-wait"]
    printed = run("sweep", table, "--model", "walk", "--flow", "maf", *ranges, *more).stdout
    with Client(url) as client:
        job = client.jobs.get(printed.strip())
    points = job.request["points"] or []
    assert len(points) == 5
    for point in points:
        assert point["flow.layers"] in (2, 3, 4)
        assert point["flow.hidden"] in ([8], [16])
        assert point["flow.activation"] in ("tanh", "relu")
        assert 3e-4 <= point["optimisation.learning_rate"] <= 1e-2


@pytest.mark.parametrize("text", ["layers=2:many", "layers"])
def test_a_wrong_range_is_told_before_anything_is_sent(text: str) -> None:
    told = run("sweep", "--model", "m", "--dataset", "ds_1", "--range", text, status=2)
    assert "write" in told.stderr


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (["--model", "m"], "either FILE or --dataset"),
        (["--model", "m", "--dataset", "ds_1", "--set", "layers"], "NAME=VALUE"),
        (["--model", "m", "--dataset", "ds_1", "--set", "layers=1"], "--flow maf"),
        (["--model", "m", "--dataset", "ds_1", "--set", "split=1"], "split.FIELD=VALUE"),
        (["--dataset", "ds_1"], "--model"),
        (["--model", "m", "--dataset", "ds_1", "--na-values", "-9"], "--na-values says how a FILE"),
        (["--model", "m", "--dataset", "ds_1", "--no-header"], ": --no-header says how"),
        (["nowhere.csv", "--model", "m"], "does not exist"),
    ],
    ids=str,
)
def test_wrong_usage_is_told_before_anything_is_sent(arguments: list[str], hint: str) -> None:
    assert hint in run("train", *arguments, status=2).stderr


@pytest.mark.parametrize(
    ("options", "target"),
    [
        (["--potential", "U2"], {"potential": "U2"}),
        (["--log-density", "-z1^2", "--dim", 1], {"log_density": "-z1^2", "dim": 1}),
    ],
    ids=["potential", "formula"],
)
def test_an_inference_is_accepted(url: str, options: list[str], target: dict[str, object]) -> None:
    more = ["--flow", "planar", "--set", "layers=4", "--set", "optimisation.iterations=100"]

    printed = run("infer", "--model", "ring", *options, *more, "--no-wait").stdout

    with Client(url) as client:
        job = client.jobs.get(printed.strip())
    assert target.items() <= job.request["target"].items()
    assert job.request["flow"]["layers"] == 4
    assert job.request["optimisation"]["iterations"] == 100
    assert job.kind == "variational"


def test_an_inference_of_a_regression_uploads_its_table(table: Path) -> None:
    options = ["--regression", "linear", "--response", "age", "--max-seconds", 5, "--no-wait"]

    told = run("infer", table, "--model", "line", *options, "--json").stdout

    request = json.loads(told)["request"]
    assert request["target"]["posterior"]["columns"] == ["height", "weight"]
    assert request["optimisation"]["max_seconds"] == 5


def test_an_inference_of_latent_variables_uploads_its_table(table: Path, tmp_path: Path) -> None:
    learnt = ["--latent", "gaussian", "--dim", 2, "--hidden", 8, "--hidden", 4, "--column", "age"]
    learnt += ["--column", "height", "--max-seconds", 5, "--no-wait", "--json"]
    refused = run("infer", table, "--model", "factors", *learnt, status=1).stderr
    assert "The option is --held-out." in refused

    told = run("infer", table, "--model", "factors", *learnt, "--held-out", 0.2).stdout

    latent = json.loads(told)["request"]["target"]["latent"]
    assert latent["columns"] == ["age", "height"]
    assert (latent["dim"], latent["hidden"]) == (2, [8, 4])

    weights = tmp_path / "weights.csv"
    weights.write_text("1,0\n0.5,0.5\n0,1\n")
    known = ["--latent", "gaussian", "--loadings", weights, "--noise-scale", 2]
    dataset = latent["dataset_id"]
    more = ["--held-out", 0, "--no-wait", "--json"]
    told = run("infer", "--dataset", dataset, "--model", "known", *known, *more).stdout
    latent = json.loads(told)["request"]["target"]["latent"]
    assert latent["loadings"] == [[1, 0], [0.5, 0.5], [0, 1]]
    assert latent["noise_scale"] == 2
    weights.write_text("z1,z2\n1,0\n")
    wrong = run("infer", "--dataset", dataset, "--model", "known", *known, status=2)
    assert "numbers alone" in wrong.stderr


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        ([], "one of --potential"),
        (["--potential", "U1", "--log-density", "z1"], "one of --potential"),
        (["--log-density", "z1"], "--dim belong together"),
        (["--regression", "linear", "--dataset", "ds_1"], "--response belong together"),
        (["--regression", "linear", "--response", "y"], "FILE or --dataset belong together"),
        (["--potential", "U1", "--dataset", "ds_1"], "FILE or --dataset belong together"),
        (["--latent", "gaussian", "--dim", 1], "FILE or --dataset belong together"),
        (["--latent", "gaussian", "--dataset", "ds_1"], "--dim belong together"),
        (["--potential", "U1", "--hidden", 8], "are of --latent"),
    ],
    ids=str,
)
def test_wrong_usage_of_inference_is_told_before_anything_is_sent(
    arguments: list[str], hint: str
) -> None:
    told = " ".join(run("infer", "--model", "m", *arguments, status=2).stderr.split())
    assert hint in told


@pytest.mark.parametrize("as_json", [False, True])
def test_a_training_says_off_a_terminal_what_it_did(
    scripted: ScriptedServer, monkeypatch: pytest.MonkeyPatch, table: Path, as_json: bool
) -> None:
    monkeypatch.setenv("DENSITYD_URL", scripted.url)
    job = {**JOB, "metrics": {"test_log_likelihood": -16.5, "test_standard_error": 0.1}}
    none = a_json({"items": [], "next_cursor": None})  # of datasets of the same table
    scripted.replies = [none, a_json(CLAIMS, 201), a_json(job, 202), a_json(job)]
    options = ["--types", "zip=category", "--exclude", "id", "--na-values", "-999", "--any-gaps"]

    done = run("train", table, "--model", "m", *options, *(["--json"] if as_json else []))

    line = "m:1  test log-likelihood -16.500 +- 0.200 nats per row"
    assert done.stderr.splitlines() == [
        "uploaded 6 rows x 3 columns: ds_1",
        "  category: zip",
        "  number: amount",
        "  ignored: id (consecutive numbers)",
        "  warning missing: 2 rows were dropped.",
        "accepted job_1",
        line,
    ]
    query = parse_qs(urlsplit(scripted.asked[1].line.split()[1]).query)
    assert json.loads(query["types"][0]) == {"zip": "category"}
    assert json.loads(query["exclude"][0]) == ["id"]
    assert json.loads(query["na_values"][0]) == ["-999"]
    assert json.loads(scripted.asked[2].body)["missing"] == "any"
    if not as_json:
        assert done.stdout == f"{line}\n"
        return
    printed = json.loads(done.stdout)
    assert printed["metrics"] == job["metrics"]
    assert printed["dataset"]["warnings"] == CLAIMS["warnings"]
    assert [one["type"] for one in printed["dataset"]["columns"]] == [
        *["category", "number", "ignored"]
    ]


def test_settings_become_the_parts_of_a_request() -> None:
    texts = ["batch_norm.statistics=running", "flow.layers=3", "activation=tanh", "split.seed=4"]

    assert choices.build_request(texts, family="maf") == {
        "flow": {
            "family": "maf",
            "layers": 3,
            "activation": "tanh",
            "batch_norm": {"statistics": "running"},
        },
        "split": {"seed": 4},
    }
    with pytest.raises(typer.BadParameter):
        choices.build_request(["layers=1", "layers.more=2"], family="maf")
