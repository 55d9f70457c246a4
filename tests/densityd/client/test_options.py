"""The typed dictionaries of options have the fields of the service's requests, and checkers use them."""

import subprocess
import sys
from pathlib import Path
from typing import Any, get_args

import pytest

from densityd.client import options, targets
from tests.app.conftest import openapi_document

ROOT = Path(__file__).parents[3]
PAIRS = {
    "OptimisationRequest": options.Optimisation,
    "VariationalOptimisationRequest": options.VariationalOptimisation,
    "Preprocessing": options.Preprocessing,
    "ColumnOptions": options.ColumnOptions,
    "DiscreteOptions": options.DiscreteOptions,
    "SplitRequest": options.Split,
    "Resources": options.Resources,
    "Logit": options.Logit,
    "Levels": options.Levels,
    "StepFactor": options.StepFactor,
    "EncoderSpec": options.EncoderOptions,
    "BatchNormSpec": options.BatchNormOptions,
    "PotentialTarget": targets.PotentialTarget,
    "DensityTarget": targets.FormulaTarget,
    "Window": targets.Window,
    "PosteriorTarget": targets.PosteriorTarget,
    "Interval": targets.Interval,
    "Choices": targets.Choices,
}
SNIPPET = """
from densityd.client import Client

with Client() as client:
    client.jobs.train("walk", "ds_0", optimisation={"max_epochs": 3}, flow={"family": "maf"})
    client.jobs.train("walk", "ds_0", optimisation={"max_epoch": 3})
    client.jobs.train("walk", "ds_0", flow={"family": "mafs"})
    client.jobs.train("walk", "ds_0", preprocessing={"logit": {"margin": 0.1}})
    client.jobs.variational("ring", {"potential": "U1"})
    client.jobs.variational("ring", {"potentials": "U1"})
    client.jobs.sweep("walk", "ds_0", {"flow.layers": {"low": 2, "high": 8, "scale": "log"}})
    client.jobs.sweep("walk", "ds_0", {"flow.layers": {"low": 2, "highest": 8}})
"""


def fields(name: str) -> set[str]:
    return set(openapi_document()["components"]["schemas"][name]["properties"])


@pytest.mark.parametrize("name", PAIRS)
def test_typed_dictionaries_have_the_fields_of_requests(name: str) -> None:
    typed: Any = PAIRS[name]
    assert set(typed.__annotations__) == fields(name)


def test_the_fields_of_a_posterior_are_those_of_both_regressions() -> None:
    found = fields("LinearPosterior") | fields("LogisticPosterior")
    assert set(targets.Posterior.__annotations__) == found


def test_the_fields_of_flows_are_those_of_all_families() -> None:
    mapping = openapi_document()["components"]["schemas"]["TrainingRequest"]["properties"]["flow"]
    found: set[str] = set()
    families = set()
    for part in mapping["anyOf"]:
        for family, ref in part.get("discriminator", {}).get("mapping", {}).items():
            families.add(family)
            found |= fields(ref.rpartition("/")[2])
    assert families - {"auto"} == set(get_args(options.Family))
    assert set(options.FlowOptions.__annotations__) == found


@pytest.mark.long
def test_a_checker_finds_a_misspelt_option(tmp_path: Path) -> None:
    (tmp_path / "snippet.py").write_text(SNIPPET)
    command = [sys.executable, "-m", "mypy", "--strict", f"--cache-dir={tmp_path}", "snippet.py"]
    done = subprocess.run(  # noqa: S603 - our own command
        command,
        cwd=tmp_path,
        env={"MYPYPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    found = [line for line in done.stdout.splitlines() if line.startswith("snippet.py")]
    assert [line.split(":")[1] for line in found if "error" in line] == ["6", "7", "8", "10", "12"]
    assert "max_epoch" in found[0]
