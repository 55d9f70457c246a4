"""Every number of the fault catalogue has a test that carries it, or a remark that says why not."""

import ast
import re
from pathlib import Path

TESTS = Path(__file__).parent
CATALOGUE = TESTS.parent / "docs" / "faults.md"


def carried_numbers() -> set[int]:
    """The numbers in `pytest.mark.fault(...)`, anywhere in the tests."""
    return {
        argument.value
        for path in TESTS.rglob("*.py")
        if "mark.fault(" in (source := path.read_text(encoding="utf-8"))
        for call in ast.walk(ast.parse(source))
        if isinstance(call, ast.Call) and _is_fault(call.func)
        for argument in call.args
        if isinstance(argument, ast.Constant) and isinstance(argument.value, int)
    }


def _is_fault(called: ast.expr) -> bool:
    match called:
        case ast.Attribute(ast.Attribute(ast.Name("pytest"), "mark"), "fault"):
            return True
        case _:
            return False


def remarks() -> dict[int, str]:
    """The last column of each line of the catalogue by its number, which no other has."""
    lines = CATALOGUE.read_text(encoding="utf-8").splitlines()
    rows = [re.split(r"(?<!\\)\|", line) for line in lines if re.match(r"\| \d+ \|", line)]
    numbers = [int(row[1]) for row in rows]
    assert len(set(numbers)) == len(numbers)
    return {int(row[1]): row[-2].strip() for row in rows}


def test_every_number_has_a_test_or_a_remark():
    carried, said = carried_numbers(), remarks()
    assert carried - set(said) == set()
    neither = {number for number, remark in said.items() if not remark} - carried
    assert neither == set()
