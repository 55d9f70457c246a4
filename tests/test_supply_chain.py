"""The pins agree with what is declared."""

import importlib.metadata
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "requirements"
DECLARED = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
LOCKS = ["run.lock", "dev.lock"]


def entries(name: str) -> list[str]:
    """The entries of a lock, each with its hashes, on one line."""
    text = (FOLDER / name).read_text(encoding="utf-8")
    return [line for line in text.replace("\\\n", " ").splitlines() if line.strip()]


def pins(name: str) -> dict[str, list[str]]:
    """The versions of every package that a lock pins: more than one where markers choose."""
    found: dict[str, list[str]] = {}
    for entry in entries(name):
        requirement = Requirement(entry.partition(" --hash")[0])
        (specifier,) = requirement.specifier
        assert specifier.operator == "=="
        found.setdefault(canonicalize_name(requirement.name), []).append(specifier.version)
    return found


def declared(name: str) -> list[Requirement]:
    project = DECLARED["project"]["dependencies"] + DECLARED["build-system"]["requires"]
    lines = project if name == "run.lock" else project + DECLARED["dependency-groups"]["dev"]
    return [Requirement(line) for line in lines]


def needed(name: str) -> set[str]:
    """What the declared packages bring, as they are installed here; not the builds of torch."""
    seen: set[str] = set()
    waiting = declared(name)
    while waiting:
        requirement = waiting.pop()
        key = canonicalize_name(requirement.name)
        extras = {"", *requirement.extras}
        label = f"{key}[{','.join(sorted(extras))}]"
        if label in seen or re.match("nvidia-|cuda-|triton|torch$", key):
            continue
        seen.add(label)
        if key != "setuptools":  # it builds, and need not be there afterwards
            lines = importlib.metadata.requires(key) or []
            waiting += [part for part in map(Requirement, lines) if wanted(part, extras)]
    return {label.partition("[")[0] for label in seen}


def wanted(requirement: Requirement, extras: set[str]) -> bool:
    marker = requirement.marker
    return marker is None or any(marker.evaluate({"extra": extra}) for extra in extras)


@pytest.mark.parametrize("name", LOCKS)
def test_a_lock_pins_a_version_that_is_asked_for_of_everything(name):
    pinned = pins(name) | pins("torch.txt")
    for requirement in declared(name):
        versions = pinned[canonicalize_name(requirement.name)]
        assert all(requirement.specifier.contains(version) for version in versions), requirement
    assert needed(name) <= set(pinned)


def test_the_tools_come_on_top_of_the_same_versions():
    assert pins("run.lock").items() <= pins("dev.lock").items()


@pytest.mark.parametrize("name", LOCKS)
def test_a_lock_has_hashes_and_names_no_place(name):
    for entry in entries(name):
        assert re.search(r" --hash=sha256:[0-9a-f]{64}\b", entry), entry
        assert not re.search(r"://| @ |/|--(?!hash=)", entry), entry


def test_what_the_image_is_made_of_is_sent_to_its_build():
    sent = {
        line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line[:1] == "!"
    }
    lines = re.findall(
        r"^COPY (?!--from)(.*) \S+$", (ROOT / "Dockerfile").read_text(), re.MULTILINE
    )
    copied = {path for line in lines for path in line.split()} - {"requirements"}
    assert {"flows", "tabular", "pyproject.toml"} <= copied <= sent


_READS_A_SCHEMA = """
import pyarrow, sys
metadata = {"ARROW:extension:name": "arrow.opaque", "ARROW:extension:metadata": "[" * 1_000_000}
field = pyarrow.field("a", pyarrow.float64(), metadata=metadata)
message = pyarrow.ipc.read_message(pyarrow.schema([field]).serialize())
try:
    pyarrow.ipc.read_schema(message)
except pyarrow.ArrowException:
    pass
"""


def test_no_version_of_arrow_is_allowed_that_nested_metadata_ends():
    """Versions before 26 go down a level of the stack for each, in the process of the API."""
    (arrow,) = (one for one in declared("run.lock") if one.name == "pyarrow")
    assert not any(arrow.specifier.contains(f"{version}.0.0") for version in range(20, 26))
    subprocess.run([sys.executable, "-c", _READS_A_SCHEMA], check=True)  # noqa: S603  our own program
