import math

import torch
from hypothesis import given, strategies as st

from flows.mixed.columns import MixedColumn
from flows.mixed.levels import Levels

NUMBERS = st.floats(allow_nan=False, allow_infinity=False, width=32)


@given(st.lists(st.lists(NUMBERS, min_size=1, max_size=9, unique=True), min_size=1, max_size=5))
def test_numbers_of_levels_are_found_and_given_back(listed):
    levels = Levels([MixedColumn(levels=len(v), values=v) for v in listed], hides=False)
    rows = max(len(values) for values in listed)
    cells = torch.tensor([[v[i % len(v)] for v in listed] for i in range(rows)]).double()
    indices = torch.tensor([[i % len(v) for v in listed] for i in range(rows)]).double()
    assert torch.equal(levels.encode(cells), indices)
    assert torch.equal(levels.encode(cells.float().double()), indices)
    assert torch.equal(levels.decode(indices), cells)


def test_other_numbers_are_unseen_and_gaps_are_a_level_where_there_were_some():
    columns = [
        MixedColumn(levels=3, values=[-1.0, 0.0, 2.5], missing=True),
        MixedColumn(levels=2),
        MixedColumn(levels=2, values=[0.1, 0.2]),
    ]
    levels = Levels(columns, hides=False)
    cells = torch.tensor(
        [
            [-1, 0, 0.1],
            [2.5, 1, 0.2],
            [0.5, 2, 0.3],
            [math.nan, -1, 0.05],
            [1e300, 0.5, 7],
        ],
        dtype=torch.float64,
    )
    expected = [[0, 0, 0], [2, 1, 1], [-1, -1, -1], [3, -1, -1], [-1, -1, -1]]
    assert levels.encode(cells).tolist() == expected
    rounded = cells[:2].float().double()
    assert levels.encode(rounded).tolist() == expected[:2]
    assert levels.encode(torch.full((1, 3), math.nan).double())[0, 1:].isnan().all()
    hiding = Levels(columns, hides=True)
    assert hiding.encode(torch.full((1, 3), math.nan).double()).tolist() == [[3, -2, -2]]
    assert levels.encode(torch.full((1, 3), math.inf).double()).isnan().all()
    back = levels.decode(torch.tensor([[3.0, -2, -1], [1, 1, 1]]).double())
    assert back.nan_to_num(99).tolist() == [[99, 99, -1], [0, 1, 0.2]]
