import numpy as np
import pytest

from tabular.columns import Column
from tabular.formats import TableFormat
from tabular.ingest.warnings import find_sentinels
from tests.tables.files import npy

NUMBER = Column(name="pressure")


def readings(*more: float, seed: int = 0) -> np.ndarray:
    values = np.random.default_rng(seed).normal(60, 5, size=500).round(1)
    return np.concatenate([values, more])


@pytest.mark.parametrize("spikes", [(), (-999.0,)])
def test_a_number_of_several_cells_far_from_all_others_is_a_sentinel(spikes):
    column = Column(name="pressure", spikes=spikes)
    assert find_sentinels(readings(*[-999.0] * 5), column) == [-999.0]


def test_several_sentinels_of_a_column_are_all_named(accept):
    values = readings(*[-999.0] * 30, *[9999.0] * 30)
    summary = accept(npy(np.column_stack([values, values**2])), TableFormat.NPY)
    found = {one["column"]: one["detail"] for one in summary.warnings if one["code"] == "sentinel"}
    assert "-999, 9999 in 11 %" in found["x1"]
    assert "na_values=-999&na_values=9999:" in found["x1"]


def test_single_far_values_popular_ones_and_long_tails_are_no_sentinels():
    assert find_sentinels(readings(-999.0), NUMBER) == []
    assert find_sentinels(readings(*[60.0] * 200), Column(name="x", spikes=(60.0,))) == []
    amounts = np.concatenate([np.zeros(500), np.random.default_rng(0).lognormal(3, 1, 500)])
    assert find_sentinels(amounts, Column(name="x", spikes=(0.0,))) == []
    assert find_sentinels(np.random.default_rng(0).pareto(1, 2000).round(), NUMBER) == []
    assert find_sentinels(np.repeat([1.0, 2.0, 3.0, 99.0], 50), NUMBER) == []
