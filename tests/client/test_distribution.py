"""The client as a package of its own, and clients that are generated from the API."""

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

from tests.api.conftest import openapi_document
from tests.client.conftest import Service

ROOT = Path(__file__).parents[2]
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


def run(*command: str | Path, cwd: Path | None = None) -> str:
    done = subprocess.run(  # noqa: S603 - our own command
        command, cwd=cwd, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
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


def installed_alone(project: Path, name: str, folder: Path) -> tuple[Path, Path]:
    """Python and the packages of an environment that has the wheel of a project and what it needs alone."""
    source = folder / "source"
    shutil.copytree(project, source, ignore=shutil.ignore_patterns("__pycache__"))
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    build = [*pip, "wheel", "--no-deps", "--no-build-isolation", "--no-index"]
    run(*build, "--wheel-dir", folder / "wheels", source)
    (wheel,) = (folder / "wheels").iterdir()
    run(sys.executable, "-m", "venv", "--without-pip", folder / "alone")
    python = folder / "alone" / "bin" / "python"
    run(*pip, "--python", python, "install", "--no-deps", "--no-index", wheel)
    command = "import sysconfig; print(sysconfig.get_path('purelib'))"
    packages = Path(run(python, "-c", command)[:-1])
    lines = importlib.metadata.Distribution.at(next(packages.glob(f"{name}*"))).requires
    link_installed(requirements_of(lines or []), packages)
    return python, packages


@pytest.mark.slow
def test_the_client_installed_alone_scores(service: Service, tmp_path: Path) -> None:
    python, packages = installed_alone(SOURCE, "densityd_client", tmp_path)

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


# Beside the environment of the tests, whose typer is newer than it takes.
GENERATOR = Path(sys.prefix) / "generator" / "bin"
CONFIG = ROOT / "docs" / "openapi-python-client.yaml"
CALLS = """
import json, sys
from densityd_api import Client
from densityd_api.api.models import list_models
from densityd_api.api.scores import log_prob
from densityd_api.models import Problem, RowsBody

client = Client(base_url=sys.argv[1], raise_on_unexpected_status=True)
names = [model.name for model in list_models.sync(client=client).items]
body = RowsBody.from_dict({"rows": [[170.0, 60.0, 40.0]]})
scored = log_prob.sync("people", client=client, body=body)
refused = log_prob.sync("nobody", client=client, body=body)
assert isinstance(refused, Problem), refused
print(json.dumps([names, scored.log_prob, refused.type_]))
"""


@pytest.mark.slow
@pytest.mark.skipif(
    not (GENERATOR / "openapi-python-client").exists(), reason="`make slow` installs it"
)
def test_a_generated_client_has_every_operation_and_calls_the_service(tmp_path, service):
    document = openapi_document()
    (tmp_path / "openapi.json").write_text(json.dumps(document))
    options = f"--path openapi.json --config {CONFIG} --meta none --fail-on-warning".split()
    run(GENERATOR / "openapi-python-client", "generate", *options, cwd=tmp_path)
    modules = {path.stem for path in (tmp_path / "densityd_api" / "api").glob("*/*.py")}
    operations = {
        operation["operationId"]
        for methods in document["paths"].values()
        for operation in methods.values()
    }
    assert operations <= modules
    printed = run(GENERATOR / "python", "-c", CALLS, service.url, cwd=tmp_path)
    names, log_prob, problem = json.loads(printed)
    assert set(names) == {"people", "heights", "ranked"}
    assert len(log_prob) == 1
    assert log_prob[0] < 0
    assert problem == "/problems/not-found"
