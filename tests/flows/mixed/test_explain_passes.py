import numpy as np
import pytest
import torch

from flows import MafSpec, MixedColumn, MixedSpec, build, compile_flow
from flows.mixed.encoding import TableEncoding
from flows.mixed.explain import explain


@pytest.mark.parametrize("missing", ["observed", "any"])
def test_the_passes_that_are_promised_are_those_that_are_computed(missing):
    columns = [MixedColumn(levels=3), MixedColumn(levels=2, missing=True), MixedColumn()]
    spec = MixedSpec(
        columns=columns, flow=MafSpec(layers=1, hidden=[8], batch_norm=None), missing=missing
    )
    compiled = compile_flow(build(spec, 3, seed=0).eval(), device=torch.device("cpu"))
    calls = []

    def log_density(rows):
        calls.append(len(rows))
        return torch.zeros(len(rows), dtype=torch.float64)

    encoding = compiled._space.preprocessing
    assert isinstance(encoding, TableEncoding)
    explain(encoding, torch.from_numpy(np.zeros((4, 3))), log_density)
    assert len(calls) == compiled.explaining_passes
