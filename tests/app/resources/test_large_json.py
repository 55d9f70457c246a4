"""Megabytes of JSON that the database has, made and read in pieces between which other threads run."""

import json

import pytest

from tabular.json.pieces import dump_in_pieces, load_in_pieces


@pytest.mark.parametrize(
    "value",
    [None, 1, "é", [], {}, [1] * 1000, {"a": [{"b": 1}] * 100, "c": {"d": [None] * 65}}, {1: 2}],
)
def test_values_in_pieces_are_the_same_documents(value: object) -> None:
    text = dump_in_pieces(value)
    assert text == json.dumps(value, separators=(",", ":"))
    assert load_in_pieces(text) == json.loads(text)


@pytest.mark.parametrize("value", [float("nan"), [float("inf")] * 100, {"a": [float("nan")] * 100}])
def test_numbers_that_are_not_finite_are_refused(value: object) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        dump_in_pieces(value)
