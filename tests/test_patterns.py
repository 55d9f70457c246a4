"""Every regular expression of the product takes time with the length of a text, and no more."""

import ast
import importlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given, strategies as st

from tables.calendar.formats import compiled
from tables.columns import Column
from tables.ingest.number_formats import _Spellings
from tests.backtracking import ambiguity_of

ROOT = Path(__file__).parents[1]
PACKAGES = ["app", "densityd", "flows", "models_store", "tables", "workers"]
USES = frozenset({"findall", "finditer", "fullmatch", "match", "search", "split", "sub", "subn"})
LINEAR = {
    ("app/site/routes.py", "_INLINE"): "of the pages of the guide",
    ("app/site/routes.py", ""): "as above",
    ("densityd/admin/doctor.py", "_PASSWORD"): "of the settings of the one who calls it",
    ("densityd/admin/doctor.py", "_PASSWORD_PARAMETER"): "as above",
    ("tables/ingest/readings.py", "_FORMS"): "of whole texts",
    ("tables/readers/delimiters.py", "_BLANKS"): "two blanks are a match",
}
"""Patterns that may look ambiguous, by file and constant, with the reason why they take no more time."""

COMPOSED = {
    ("tables/calendar/formats.py", "compiled"): "tested below",
    ("tables/ingest/number_formats.py", "__init__"): "tested below",
    ("tables/dates.py", "spelled_like"): "of one length",
    ("tables/readers/delimiters.py", "joined_blanks"): "of one length",
    ("tables/readers/header.py", "_blank_lines"): "a text as it is",
    ("tables/readers/section.py", "_rows"): "it begins where lines do",
    ("models_store/database/driver_errors.py", "_reason"): "of messages of the database",
    ("models_store/files/buckets.py", "_cause"): "fixed words, without repetition",
}
"""Functions that make patterns of what they are given."""


@dataclass
class Pattern:
    """Pattern of the product.

    Attributes:
        file: File that it is in.
        constant: Constant that holds it; empty for one that is used where it stands.
        compiled: Pattern.
        uses: Methods by which it is used.
    """

    file: str
    constant: str
    compiled: re.Pattern[Any]
    uses: frozenset[str]


def calls_of(tree: ast.AST) -> Iterator[tuple[ast.Call, str, str]]:
    """Yield the calls of `re` that have a pattern, with the constants and the functions that they are in."""

    def walk(node: ast.AST, constant: str, function: str) -> Iterator[tuple[ast.Call, str, str]]:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            function = node.name
        target = getattr(node, "targets", [None])[0]
        if isinstance(target, ast.Name) and not function:
            constant = target.id
        if isinstance(node, ast.Call) and ast.unparse(node.func) in {
            f"re.{n}" for n in (*USES, "compile")
        }:
            yield node, constant, function
        for child in ast.iter_child_nodes(node):
            yield from walk(child, constant, function)

    yield from walk(tree, "", "")


def methods_of(tree: ast.AST) -> dict[str, set[str]]:
    """Return the methods of patterns that are used of each name."""
    found: dict[str, set[str]] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node.attr in USES:
            found.setdefault(ast.unparse(node.value).rpartition(".")[2], set()).add(node.attr)
    return found


def known_pattern(call: ast.Call, module: ModuleType) -> re.Pattern[Any] | None:
    """Return the pattern of a call; None if it is made of what a function is given."""
    rest = (*call.args[1:], *(keyword.value for keyword in call.keywords))
    names = [
        found[1]
        for one in rest
        for found in [re.fullmatch(r"re\.([A-Z]+)", ast.unparse(one))]
        if found
    ]
    flags = sum(getattr(re, name) for name in names)
    try:
        text = eval(ast.unparse(call.args[0]), vars(module))  # noqa: S307 - of the product itself
    except NameError:
        return None
    return re.compile(text, flags)


def patterns() -> tuple[list[Pattern], set[tuple[str, str]]]:
    """Return the patterns of the product, and the functions that compose others."""
    trees = {
        path.relative_to(ROOT): ast.parse(path.read_text())
        for package in PACKAGES
        for path in sorted((ROOT / package).rglob("*.py"))
        if "static" not in path.parts
    }
    everywhere: dict[str, set[str]] = {}
    for tree in trees.values():
        for name, methods in methods_of(tree).items():
            everywhere.setdefault(name, set()).update(methods)
    known, composed = [], set()
    for path, tree in trees.items():
        here = methods_of(tree)
        for call, constant, function in calls_of(tree):
            module = importlib.import_module(".".join(path.with_suffix("").parts))
            pattern = known_pattern(call, module)
            if pattern is None:
                composed.add((str(path), function))
                continue
            uses = here if constant.startswith("_") else everywhere
            method = ast.unparse(call.func).removeprefix("re.")
            found = {method} if method != "compile" else uses.get(constant, {"search"})
            known.append(Pattern(str(path), constant, pattern, frozenset(found)))
    return known, composed


KNOWN, FOUND_COMPOSED = patterns()


@pytest.mark.fault(430)
@pytest.mark.fault(432)
@pytest.mark.fault(433)
def test_fault_433_no_pattern_takes_more_than_linear_time() -> None:
    slow = {
        (one.file, one.constant): (word, one.compiled.pattern)
        for one in KNOWN
        if (word := ambiguity_of(one.compiled, sorted(one.uses))) is not None
    }
    assert slow.keys() - LINEAR.keys() == set(), slow
    assert LINEAR.keys() - slow.keys() == set()


def test_all_patterns_made_while_the_product_runs_are_known() -> None:
    assert COMPOSED.keys() == FOUND_COMPOSED


PLACES = ["%Y", "%d", "%A", "%a", "%p", "%H", "%I", "%M", "%S", "%f", "%z", "%y"]
BETWEEN = st.sampled_from(["", " ", "/", "-", ".", "a", "pm", "1", "T"])
SEVERAL = st.lists(st.sampled_from(PLACES), unique=True, max_size=6)


@pytest.mark.fault(394)
@given(SEVERAL, st.sampled_from(["%m", "%b", "%B", "%q"]), st.data())
def test_fault_394_patterns_of_dates_take_linear_time(
    parts: list[str], month: str, data: st.DataObject
) -> None:
    order = data.draw(st.permutations([*dict.fromkeys([*parts, "%Y"]), month]))
    form = "".join(part + data.draw(BETWEEN) for part in order if part != "%y")
    try:
        pattern = compiled(form)
    except ValueError:
        return
    assert ambiguity_of(pattern, ["match"]) is None


@given(st.sampled_from([".", ","]), st.sampled_from(["", " ", "'", ".", ",", "_"]))
def test_patterns_of_numbers_take_linear_time(decimal: str, thousands: str) -> None:
    spellings = _Spellings(Column(name="a", decimal=decimal, thousands=thousands))
    assert ambiguity_of(spellings._pattern, ["match"]) is None


@pytest.mark.parametrize(
    ("pattern", "use", "is_slow"),
    [
        ("a*b", "match", False),
        ("a*b", "search", True),
        ("a*a*b", "match", True),
        ("a{1,40}a{1,40}b", "match", False),
        ("a{1,400}a{1,400}b", "match", True),
        ("(a+)+b", "match", True),
        ("(?:ab|a|b)*c", "match", True),
        ("(?:a|b)*c", "match", False),
        ("(?:(?:a|b)*c?)*d", "match", True),
        (r"\w+\d+!", "match", True),
        (r"\w++\d+!", "match", False),
        ("(?>a*)a*b", "match", False),
        ("(?:[ab]+,?)*+x", "match", False),
        ("^a*b", "search", False),
        ("(?m)^a*b", "search", False),
        (r"(?m)^\s*b", "search", True),
        ("a*$", "search", True),
        ("a*", "findall", False),
        ("x(?:[^y]*y)?", "findall", True),
        (r"(?i)a*A*b", "match", True),
        (r"a*(?=b*c)d", "match", False),
        (rb"(?:[^,]|\"[^\"]*\")+x", "match", True),
    ],
)
def test_what_takes_more_than_linear_time_is_told(
    pattern: str | bytes, use: str, *, is_slow: bool
) -> None:
    assert (ambiguity_of(re.compile(pattern), [use]) is not None) == is_slow
