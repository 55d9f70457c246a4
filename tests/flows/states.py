"""States of trainings and weights of flows, as tests compare them."""

import json

import torch
from safetensors.torch import load, save

from flows import FitState, Flow


def through_bytes(state: FitState) -> FitState:
    """What a checkpoint does with a state."""
    meta = json.loads(json.dumps(state.meta, allow_nan=False))
    return FitState(load(save(state.tensors)), meta)


def assert_same(flow: Flow, other: Flow) -> None:
    weights, others = flow.state_dict(), other.state_dict()
    assert weights.keys() == others.keys()
    assert all(torch.equal(weights[name], others[name]) for name in weights)
