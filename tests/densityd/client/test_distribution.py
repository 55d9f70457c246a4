"""`densityd-client`: built from the tree, installed alone, used against a real service."""

import importlib.metadata
import json
import shutil
import subprocess
import sys
import sysconfig
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from tests.densityd.conftest import Service

ROOT = Path(__file__).parents[3]
SOURCE = ROOT / "densityd" / "client"
_USE = """
import importlib.util, json, sys
from densityd.client import Client

with Client(sys.argv[1]) as client:
    scores = client.log_prob("people", [[170.0, 70.0, 40.0]])
others = ["app", "densityd.cli", "fastapi", "flows", "pyarrow", "rich", "sqlalchemy", "torch"]
found = [name for name in others if importlib.util.find_spec(name)]
print(json.dumps([scores.tolist(), found]))
"""


def declared(project: Path) -> dict[str, object]:
    text = (project / "pyproject.toml").read_text(encoding="utf-8")
    found: dict[str, object] = tomllib.loads(text)["project"]
    return found


def run(*command: str | Path) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def requirements_of(lines: list[str]) -> set[str]:
    """The distributions that these requirements bring, without extras."""
    needed: set[str] = set()
    waiting = [Requirement(line) for line in lines]
    while waiting:
        one = waiting.pop()
        if one.name not in needed and (one.marker is None or one.marker.evaluate({"extra": ""})):
            needed.add(one.name)
            more = importlib.metadata.requires(one.name) or []
            waiting += [Requirement(line) for line in more]
    return needed


def link_installed(names: set[str], target: Path) -> None:
    """Make distributions of this environment importable in another one, and nothing else."""
    packages = Path(sysconfig.get_path("purelib"))
    for name in names:
        files = importlib.metadata.files(name) or []
        for top in {file.parts[0] for file in files} - {"..", "__pycache__"}:
            if not (target / top).exists():
                (target / top).symlink_to(packages / top)


@pytest.mark.long
def test_the_client_installed_alone_scores(service: Service, tmp_path: Path) -> None:
    source = tmp_path / "source"
    shutil.copytree(SOURCE, source, ignore=shutil.ignore_patterns("__pycache__"))
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    build = [*pip, "wheel", "--no-deps", "--no-build-isolation", "--no-index"]
    run(*build, "--wheel-dir", tmp_path / "wheels", source)
    (wheel,) = (tmp_path / "wheels").iterdir()
    run(sys.executable, "-m", "venv", "--without-pip", tmp_path / "alone")
    python = tmp_path / "alone" / "bin" / "python"
    run(*pip, "--python", python, "install", "--no-deps", "--no-index", wheel)
    packages = Path(
        run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))")[:-1]
    )
    lines = importlib.metadata.Distribution.at(next(packages.glob("densityd_client*"))).requires
    link_installed(requirements_of(lines or []), packages)

    scores, others = json.loads(run(python, "-I", "-c", _USE, service.url))

    assert len(scores) == 1
    assert others == []
    assert (packages / "densityd/client/py.typed").exists()


def test_the_wheel_has_every_module_and_the_requirements_of_the_service() -> None:
    client, service = declared(SOURCE), declared(ROOT)
    assert client["version"] == service["version"]
    extras = client["optional-dependencies"]
    assert isinstance(extras, dict)
    assert isinstance(client["dependencies"], list)
    wanted = {*client["dependencies"], *extras["progress"], *extras["tables"]}
    assert isinstance(service["dependencies"], list)
    assert wanted <= set(service["dependencies"])
    folders = {
        f"densityd.client.{path.parent.relative_to(SOURCE)}".replace("/", ".").removesuffix("..")
        for path in SOURCE.rglob("__init__.py")
    }
    text = (SOURCE / "pyproject.toml").read_text(encoding="utf-8")
    assert set(tomllib.loads(text)["tool"]["setuptools"]["packages"]) == folders
