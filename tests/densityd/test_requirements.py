"""What is declared is enough: tools of the development group must not stand in for it."""

import importlib.metadata
import json
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

_PROJECT = Path(__file__).parents[2] / "pyproject.toml"
_PROGRAM = """
import importlib, importlib.abc, json, sys

class Hide(importlib.abc.MetaPathFinder):
    hidden = set(json.loads(sys.argv[1]))

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in self.hidden:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return None

sys.meta_path.insert(0, Hide())
for name in sys.argv[2:]:
    importlib.import_module(name)
"""
# The last two are loaded by name, once a broker or a database is spoken to.
_MODULES = [
    "app.main",
    "densityd.cli",
    "densityd.client.progress",
    "densityd.service.up",
    "workers.main",
    "workers.trainer.preloaded",
    "kombu.transport.redis",
    "psycopg",
]


@pytest.mark.long
def test_the_declared_requirements_are_all_that_the_service_imports():
    project = tomllib.loads(_PROJECT.read_text(encoding="utf-8"))["project"]
    declared = _closure(project["dependencies"]) | {_normal(project["name"])}
    hidden = [
        module
        for module, owners in importlib.metadata.packages_distributions().items()
        if not declared & {_normal(owner) for owner in owners}
    ]

    hidden.remove("typeguard")  # jaxtyping asks whether it is there
    result = subprocess.run(  # noqa: S603 (our own program)
        [sys.executable, "-c", _PROGRAM, json.dumps(hidden), *_MODULES],
        capture_output=True,
        text=True,
        check=False,
    )

    assert "pytest" in hidden
    assert result.returncode == 0, result.stderr[-1000:]


def _closure(lines: list[str]) -> set[str]:
    """The distributions that these requirements bring, by their normalised names."""
    seen: set[tuple[str, str]] = set()
    waiting = _wanted(lines, extra="")
    while waiting:
        name, extra = waiting.pop()
        if (name, extra) not in seen:
            seen.add((name, extra))
            waiting += _wanted(importlib.metadata.requires(name) or [], extra=extra)
    return {name for name, _ in seen}


def _wanted(lines: list[str], *, extra: str) -> list[tuple[str, str]]:
    return [
        (_normal(requirement.name), part)
        for requirement in map(Requirement, lines)
        if requirement.marker is None or requirement.marker.evaluate({"extra": extra})
        for part in ("", *requirement.extras)
    ]


def _normal(name: str) -> str:
    return name.lower().replace("_", "-").replace(".", "-")
