"""The tutorial and the guides of the documentation, as a reader runs them."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from densityd.cli import app
from densityd.client import Client, Optimisation
from tests.service.up import Up

DOCS = Path(__file__).parents[2] / "docs"
# `test_flow_family.py` runs the one that needs another package.
GUIDES = sorted(set((DOCS / "howto").glob("*.md")) - {DOCS / "howto" / "adding_a_flow.md"})
pytestmark = pytest.mark.timeout(600)


def code(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE)


def run_python(page: Path) -> None:
    lines = page.read_text().splitlines()
    python = False
    for number, line in enumerate(lines):
        fence = line.startswith("```")
        if fence or not python:
            lines[number] = ""  # an error then tells its line of the page
        python = line == "```python" if fence else python
    assert any(lines)
    exec(compile("\n".join(lines), str(page), "exec"), {})  # noqa: S102 - our own page


@pytest.fixture(scope="module")
def penguins(up: Up) -> None:
    """The model that a guide scores rows of, hardly trained."""
    with Client(up.url) as client:
        dataset = client.datasets.upload(DOCS.parent / "examples" / "penguins" / "penguins.csv")
        optimisation: Optimisation = {"max_epochs": 3}
        job = client.jobs.train("penguins", dataset.id, missing="any", optimisation=optimisation)
        client.jobs.wait(job.id)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The inplace keyword in DataFrame.set_index")  # Dask's own use
@pytest.mark.usefixtures("penguins")
@pytest.mark.parametrize("page", GUIDES, ids=lambda page: page.stem)
def test_guides_do_what_they_say(up, monkeypatch, page):
    monkeypatch.setenv("DENSITYD_URL", up.url)
    run_python(page)


@pytest.mark.slow
def test_the_tutorial_does_what_it_says(up, monkeypatch, tmp_path):
    tutorial = DOCS / "tutorial.md"
    monkeypatch.setenv("DENSITYD_URL", up.url)
    (tmp_path / "examples").symlink_to(DOCS.parent / "examples")
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    commands = "\n".join(code(tutorial, "sh")).replace("http://127.0.0.1:8000", up.url)

    run = subprocess.run(  # noqa: S603 - our own page
        ["bash", "-euo", "pipefail", "-c", commands],  # noqa: S607
        cwd=tmp_path,
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        check=False,
    )

    assert run.returncode == 0, run.stderr + run.stdout
    assert "quantile" in run.stdout
    assert (tmp_path / "marginals.svg").read_text().startswith("<?xml")
    run_python(tutorial)


@pytest.mark.slow  # as the commands of `test_up.py`
def test_the_demo_leaves_a_model_that_can_be_asked(up, monkeypatch):
    monkeypatch.setenv("DENSITYD_URL", up.url)
    result = CliRunner().invoke(app, ["demo", "--model", "shown"])
    assert result.exit_code == 0, result.output
    assert f"{up.url}/#/models/shown" in result.output
    # A value of the row, and the values that would be usual in its place.
    assert re.search(r"_(mm|g) +[\d.]+ +[\d.]+ to [\d.]+\n", result.output), result.output
    assert CliRunner().invoke(app, ["sample", "shown", "-n", "2"]).exit_code == 0
