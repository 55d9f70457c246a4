"""The words of docstrings and of the OpenAPI document: plain technical English."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.app.conftest import openapi_document

ROOT = Path(__file__).parents[1]
PACKAGES = ["app", "bench", "densityd", "examples", "experiments", "flows", "models_store"]
PACKAGES += ["requirements", "tables", "tools", "workers"]

# A docstring or description is a sentence in the imperative or a noun phrase, not a fragment.
NO_FIRST_WORDS = {
    *["as", "everything", "how", "if", "of", "that", "what", "whatever", "when", "where"],
    *["whether", "which", "who", "whoever", "whose", "why"],
}
STOP_WORDS = {
    *["a", "all", "an", "and", "any", "are", "as", "at", "be", "been", "but", "by", "each"],
    *["every", "for", "from", "has", "have", "here", "how", "if", "in", "is", "it", "its", "many"],
    *["much", "no", "not", "of", "on", "one", "or", "so", "such", "than", "that", "the", "their"],
    *["them", "then", "there", "these", "they", "this", "those", "to", "together", "was", "were"],
    *["what", "when", "where", "which", "who", "whose", "will", "with"],
}
SECTION = re.compile(r"\s*(Args|Attributes|Returns|Yields|Raises|Examples?|Notes?):$")
ENTRY = re.compile(r"(\**\w+)(?: \([^)]*\))?:(.*)")


def first_word(text: str) -> str:
    return re.split(r"[^\w-]", text.strip(), maxsplit=1)[0].lower()


def stands_alone(text: str) -> bool:
    words = [word.lower() for word in re.findall(r"[A-Za-z0-9_]+", text)]
    return len([word for word in words if word not in STOP_WORDS]) >= 2


def is_phrase(text: str) -> bool:
    return first_word(text) not in NO_FIRST_WORDS


def entries(docstring: str) -> Iterator[tuple[str, str]]:
    """Yield the name and the text of each entry below `Args` and `Attributes`."""
    lines = iter([*docstring.expandtabs().splitlines(), "end"])
    section = ""
    found: list[list[str]] = []
    for line in lines:
        if heading := SECTION.match(line):
            section = heading[1]
        elif line and not line.startswith(" "):
            section = ""
        elif section in {"Args", "Attributes"} and line.strip():
            if line.startswith("     "):
                found[-1][1] += line
            elif entry := ENTRY.match(line.strip()):
                found.append([entry[1], entry[2]])
    yield from ((name, text.strip()) for name, text in found)


def docstrings(path: Path) -> Iterator[tuple[int, str]]:
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, kinds) and (text := ast.get_docstring(node)):
            yield node.body[0].lineno, text


def faults_of(path: Path) -> Iterator[str]:
    where = path.relative_to(ROOT)
    for line, text in docstrings(path):
        if not is_phrase(text):
            yield f"{where}:{line}: begins with {text.splitlines()[0]!r}"
        for name, entry in entries(text):
            if not (is_phrase(entry) and stands_alone(entry)):
                yield f"{where}:{line}: {name}: {entry!r}"


@pytest.mark.parametrize("package", PACKAGES)
def test_docstrings_begin_with_a_verb_or_a_noun_and_arguments_stand_alone(package: str) -> None:
    faults = [fault for path in sorted((ROOT / package).rglob("*.py")) for fault in faults_of(path)]
    assert not faults, "\n".join(faults)


def texts(node: object, path: str = "") -> Iterator[tuple[str, str]]:
    """Yield each description and summary of the OpenAPI document with where it stands."""
    if isinstance(node, list):
        for number, item in enumerate(node):
            yield from texts(item, f"{path}/{number}")
    elif isinstance(node, dict):
        for key, value in node.items():
            if key in {"description", "summary"} and isinstance(value, str):
                yield f"{path}/{key}", value
            elif key not in {"example", "examples", "default"}:
                yield from texts(value, f"{path}/{key}")


def test_the_texts_of_the_openapi_document_stand_alone() -> None:
    faults = [
        f"{path}: {text!r}"
        for path, text in texts(openapi_document())
        if not (is_phrase(text) and stands_alone(text))
    ]
    assert not faults, "\n".join(faults)


def test_fragments_are_told_from_phrases() -> None:
    docstring = (
        "Do it.\n\nArgs:\n    jobs: where from.\n    rows: Number of rows\n        to read.\n"
    )
    assert dict(entries(docstring)) == {
        "jobs": "where from.",
        "rows": "Number of rows        to read.",
    }
    assert not is_phrase("where from.")
    assert not is_phrase("What it is.")
    assert not stands_alone("It.")
    assert not stands_alone("In the one.")
    assert stands_alone("Number of rows.")
