"""The documentation names files, folders and pages that exist, and the map names all folders."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [
    *ROOT.glob("*.md"),
    *ROOT.glob("docs/*.md"),
    *ROOT.glob("docs/howto/*.md"),
    *ROOT.glob("examples/**/*.md"),
]
PRODUCT = ["app", "densityd", "experiments", "flows", "migrations", "models_store", "tabular"]
PRODUCT += ["workers"]
FOLDERS = [*PRODUCT, "bench", "docs", "examples", "requirements", "tests", "tools"]

CODE = re.compile(r"`([^`\n]+)`")
LINK = re.compile(r"\]\(([^)\s]+)\)")


def paths(text: str) -> list[str]:
    """Return the paths in backticks that begin with a folder of the repository."""
    words = [word for code in CODE.findall(text) for word in code.split()]
    start = re.compile(rf"({'|'.join(FOLDERS)})/[\w./*-]*")
    return [found[0].split("::")[0] for word in words if (found := start.match(word))]


def anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_path_exists(page: Path) -> None:
    missing = [path for path in paths(page.read_text()) if not list(ROOT.glob(path.rstrip("/")))]
    assert missing == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_relative_link_resolves(page: Path) -> None:
    broken = []
    for link in LINK.findall(page.read_text()):
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        if "://" in link:
            continue
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)
    assert broken == []
