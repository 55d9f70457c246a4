import doctest
from pathlib import Path

import pytest

from flows.variational.formula import CONSTANTS, FUNCTIONS, MAX_LENGTH, MAX_NODES

DOCS = Path(__file__).parents[3] / "docs" / "variational.md"


@pytest.mark.slow
def test_the_examples_print_what_the_docs_say():
    found = doctest.testfile(str(DOCS), module_relative=False, optionflags=doctest.ELLIPSIS)
    assert found.attempted > 10
    assert found.failed == 0


def test_the_docs_name_every_function_and_limit_of_formulas():
    text = DOCS.read_text()
    for name in FUNCTIONS:
        assert f"`{name}`" in text, name
    for name in CONSTANTS:
        assert f'"{name}"' in text, name
    assert f"{MAX_LENGTH:,} characters and {MAX_NODES:,}" in text
