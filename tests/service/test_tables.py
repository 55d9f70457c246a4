"""An ordinary CSV file from its bytes to scored rows, and the recipes of the documentation."""

import io
import json
import re
import shutil
import subprocess

import pandas as pd
import pytest

from tests.service.up import EXAMPLES

PAGE = (EXAMPLES.parent / "docs" / "datasets.md").read_text()
RECIPES = dict(
    re.findall(r"^### ([^\n]+)\n[^#]*?```python\n(.*?)```", PAGE, re.DOTALL | re.MULTILINE)
)
TABLE = EXAMPLES / "penguins" / "penguins.csv"
pytestmark = pytest.mark.timeout(600)


@pytest.mark.skipif(not shutil.which("curl"), reason="needs curl")
@pytest.mark.slow  # the web page trains the same table
def test_the_bytes_of_a_file_become_scores_and_samples_without_one_option(up):
    run = subprocess.run(  # noqa: S603 - our own script
        [str(EXAMPLES / "penguins.sh"), up.url], capture_output=True, text=True, check=False
    )

    assert run.returncode == 0, run.stderr + run.stdout
    scores, explained, samples = re.split(r"^(\{.*\})\n", run.stdout, flags=re.MULTILINE)
    scored = pd.read_csv(io.StringIO(scores))
    assert list(scored) == ["log_prob", "discrete", "continuous"]
    assert len(scored) == 5
    assert scored.notna().all(axis=None)
    assert scored["continuous"][3] == 0  # all four numbers of this row are missing
    assert (scored["discrete"] < 0).all()
    assert json.loads(explained)["quantile"][0] < 0.1
    table, drawn = pd.read_csv(TABLE), pd.read_csv(io.StringIO(samples))
    assert list(drawn) == list(table)
    for name in ("species", "island", "sex", "year"):
        assert drawn[name].isin([*table[name].dropna(), None]).all()


@pytest.mark.slow  # the penguins above tell that the service works
@pytest.mark.parametrize("name", RECIPES)
def test_the_recipes_of_the_documentation_work(up, monkeypatch, name):
    monkeypatch.setenv("DENSITYD_URL", up.url)

    exec(compile(RECIPES[name], f"docs/datasets.md, {name}", "exec"), {})  # noqa: S102 - our own page


def test_every_recipe_is_found():
    assert len(RECIPES) == PAGE.count("```python") == 3
