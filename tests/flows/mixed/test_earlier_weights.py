"""Weights that earlier versions of the flows have saved are read."""

import pytest
import torch

from flows.catalogue import build
from flows.families.maf import MafSpec
from flows.mixed.columns import MixedColumn
from flows.mixed.encoding import TableEncoding
from flows.mixed.spec import MixedSpec


def test_weights_from_before_samples_were_rounded_are_read() -> None:
    spec = MixedSpec(flow=MafSpec(layers=1, hidden=[4]), hidden=[4])
    flow, earlier = build(spec, 2, seed=0), build(spec, 2, seed=1)
    assert isinstance(flow.preprocessing, TableEncoding)
    assert isinstance(earlier.preprocessing, TableEncoding)
    flow.preprocessing.set_roundings(torch.arange(200.0).reshape(100, 2))
    weights = flow.state_dict()
    del weights["preprocessing.roundings"]

    earlier.load_state_dict(weights)

    rows = torch.tensor([[0.5, 31.25], [7.0, 8.0]])
    assert torch.equal(earlier.log_prob(rows), flow.log_prob(rows))
    assert torch.equal(earlier.preprocessing.to_grid(rows), rows)
    assert not torch.equal(flow.preprocessing.to_grid(rows), rows)
    del weights["preprocessing.knots"]
    with pytest.raises(RuntimeError, match="knots"):
        earlier.load_state_dict(weights)


def test_weights_of_a_single_category_that_see_nothing_are_left_out() -> None:
    columns = [MixedColumn(), MixedColumn(levels=3)]
    spec = MixedSpec(columns=columns, flow=MafSpec(layers=1, hidden=[4]), hidden=[4])
    flow, earlier = build(spec, 2, seed=0), build(spec, 2, seed=1)
    weights = flow.state_dict()
    (name,) = (name for name in weights if name.endswith("made.layers.0.weight"))
    weights[name] = torch.ones(len(weights[name]), 3)

    earlier.load_state_dict(weights)

    rows = torch.tensor([[0.5, 2.0], [7.0, 0.0]])
    assert torch.equal(earlier.log_prob(rows), flow.log_prob(rows))
