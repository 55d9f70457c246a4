"""Training from rows beside the device, and in reduced precision."""

import pytest
import torch

from flows import NsfSpec, build, fit
from flows.training import rows as fit_rows
from tests.flows.states import assert_same
from tests.flows.training.test_fit import TRAIN, VALIDATION, new_flow, with_options


@pytest.mark.parametrize("spec", [None, NsfSpec(layers=1, hidden=[8])], ids=["maf", "nsf"])
def test_rows_beside_the_device_are_trained_on_as_those_on_it(monkeypatch, spec):
    """Rows that stay beside the device, as larger ones than a GPU do, give the same bits."""

    def beside(*arguments, **named):
        rows = fit_rows.ModelRows(*arguments, **named)
        monkeypatch.setattr(rows, "_streamed", True)  # as a table on another device makes it
        return rows

    spec_given = () if spec is None else (spec,)
    flows = [new_flow(*spec_given), new_flow(*spec_given)]
    options = with_options(max_epochs=3, patience=None)
    list(fit(flows[0], TRAIN, VALIDATION, options=options))
    monkeypatch.setattr("flows.training.fit.ModelRows", beside)
    list(fit(flows[1], TRAIN, VALIDATION, options=options))
    if spec is not None:
        assert_same(*flows)
    for one, other in zip(*(flow.state_dict().values() for flow in flows), strict=True):
        torch.testing.assert_close(other, one, rtol=1e-5, atol=1e-6)  # sums of batch norms


@pytest.mark.gpu
def test_a_table_larger_than_a_gpu_stays_beside_it_and_gives_the_same_flow():
    flows = [new_flow(NsfSpec(layers=1, hidden=[8])).to("cuda") for _ in range(2)]
    options = with_options(max_epochs=3, patience=None)
    list(fit(flows[0], TRAIN.to("cuda"), VALIDATION.to("cuda"), options=options))
    list(fit(flows[1], TRAIN, VALIDATION, options=options))
    assert_same(*flows)


@pytest.mark.parametrize("spec", [None, NsfSpec(layers=1, hidden=[8])], ids=["maf", "nsf"])
def test_mixed_precision_trains_to_about_the_same_likelihood(spec):
    before, best = torch.get_float32_matmul_precision(), []
    for mixed in (False, True):
        flow = new_flow() if spec is None else build(spec, TRAIN.shape[1], seed=1)
        options = with_options(max_epochs=8, patience=None, mixed_precision=mixed)
        best.append(list(fit(flow, TRAIN, VALIDATION, options=options))[-1])
    likelihoods = [report.best_validation_log_likelihood for report in best]
    assert likelihoods[1] == pytest.approx(likelihoods[0], abs=0.2)
    assert torch.get_float32_matmul_precision() == before
