"""`densityd-flows`: built from the tree, installed alone, used as its README says."""

import re
from pathlib import Path

import pytest

from tests.client.test_distribution import ROOT, declared, installed_alone, run

SOURCE = ROOT / "flows"
_USE = """
import importlib.util
import torch
from flows import FAMILIES, FitOptions, PlanarSpec, build, fit

rows = torch.randn(200, 2).cumsum(dim=1)
flow = build(PlanarSpec(layers=2), 2, seed=0)
reports = list(fit(flow, rows[:150], rows[150:], options=FitOptions(max_epochs=2)))
assert flow.log_prob(rows).isfinite().all()
torch.save(flow.state_dict(), "flow.pt")
again = build(PlanarSpec(layers=2), 2, seed=1)
again.load_state_dict(torch.load("flow.pt"))
samples = [one.sample(3, generator=torch.Generator().manual_seed(0)) for one in (flow, again)]
assert torch.equal(*samples)
others = ["app", "densityd", "fastapi", "models_store", "onnx", "pyarrow", "pydantic", "tabular"]
assert [name for name in others if importlib.util.find_spec(name)] == []
"""


def test_the_library_installed_alone_trains_saves_and_loads(tmp_path: Path) -> None:
    python, packages = installed_alone(SOURCE, "densityd_flows", tmp_path)

    run(python, "-I", "-c", f"import os; os.chdir({str(tmp_path)!r}){_USE}")

    modules = {path.relative_to(SOURCE) for path in SOURCE.rglob("*.py")}
    assert {
        path.relative_to(packages / "flows") for path in packages.rglob("flows/**/*.py")
    } == modules


def test_the_requirements_and_the_version_are_those_of_the_service() -> None:
    library, service = declared(SOURCE), declared(ROOT)
    assert library["version"] == service["version"]
    assert isinstance(library["dependencies"], list)
    assert isinstance(service["dependencies"], list)
    assert set(library["dependencies"]) <= set(service["dependencies"])


def test_the_readme_does_what_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    [code] = re.findall(r"```python\n(.*?)```", (SOURCE / "README.md").read_text(), re.DOTALL)
    names: dict[str, object] = {}
    exec(compile(code, "flows/README.md", "exec"), names)  # noqa: S102 - our own page
    flow, again = names["flow"], names["again"]
    assert (tmp_path / "flow.pt").exists()
    assert flow is not again
