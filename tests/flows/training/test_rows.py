"""Training from memory-mapped rows, in reduced precision, and compiled."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from flows import MappedTable, NsfSpec, build, fit
from flows.bijections.batch_norm import BatchNorm
from flows.training import rows as fit_rows
from tests.flows.states import assert_same
from tests.flows.training.test_fit import TRAIN, VALIDATION, new_flow, with_options


def mapped(rows: Tensor, folder: Path) -> MappedTable:
    """The rows as a part of a larger file, in other columns."""
    array = np.zeros((2 * len(rows) + 3, rows.shape[1] + 1), np.float64)
    array[3::2, 1:] = rows.flip(1).numpy()
    np.save(folder / "table.npy", array)
    file = np.load(folder / "table.npy", mmap_mode="r")
    numbers = np.arange(3, len(array), 2)
    return MappedTable(file, numbers, list(range(rows.shape[1], 0, -1)))


@pytest.mark.parametrize("block", [7, 64, 4096])
def test_rows_of_a_file_are_each_seen_once_an_epoch_in_an_order_of_their_own(
    tmp_path, monkeypatch, block
):
    monkeypatch.setattr(fit_rows, "BLOCK_ROWS", block)
    monkeypatch.setattr(fit_rows, "WINDOW_BLOCKS", 3)
    flow = new_flow()
    rows = fit_rows.model_rows(flow, mapped(TRAIN, tmp_path), seed=1, name="training")
    expected = flow.preprocessing.inverse(TRAIN)[0].float()
    torch.testing.assert_close(torch.cat(list(rows.chunks(50))), expected)
    epochs = []
    for epoch in (1, 2):
        rows.order(1, epoch)
        pieces = [
            rows.batch(start, min(start + 30, len(TRAIN))) for start in range(0, len(TRAIN), 30)
        ]
        epochs.append(torch.cat(pieces))
        torch.testing.assert_close(epochs[-1].sort(dim=0).values, expected.sort(dim=0).values)
    assert not torch.equal(epochs[0], epochs[1])
    assert not torch.equal(epochs[0], expected)
    rows.order(1, 1)
    assert torch.equal(rows.batch(60, 90), epochs[0][60:90])


def test_a_share_of_a_file_is_at_most_a_window_of_it(tmp_path, monkeypatch):
    monkeypatch.setattr(fit_rows, "BLOCK_ROWS", 4)
    monkeypatch.setattr(fit_rows, "WINDOW_BLOCKS", 20)
    rows = fit_rows.model_rows(new_flow(), mapped(TRAIN, tmp_path), seed=1, name="training")
    assert rows.in_memory(every=1) is None
    assert -(-len(TRAIN) // 4) > 40
    for every in (2, 100):
        share = rows.in_memory(every=every)
        assert share is not None
        assert 16 * 4 <= len(share) <= 20 * 4
        assert torch.equal(share, torch.cat(list(rows.chunks(50, every=every))))


def test_training_from_a_file_ends_where_training_in_memory_does(tmp_path):
    flows, options = [new_flow(), new_flow()], with_options(max_epochs=12, patience=None)
    reports = [
        list(fit(flows[0], TRAIN, VALIDATION, options=options)),
        list(fit(flows[1], mapped(TRAIN, tmp_path), VALIDATION, options=options)),
    ]
    best = [report[-1].best_validation_log_likelihood for report in reports]
    assert best[1] == pytest.approx(best[0], abs=0.15)
    norm = next(part for part in flows[1].transform.parts() if isinstance(part, BatchNorm))
    made = flows[1].transform.parts()[0]
    with torch.no_grad():
        after = made.inverse(flows[1].preprocessing.inverse(TRAIN)[0].float())[0]
    torch.testing.assert_close(norm.mean, after.mean(dim=0), rtol=1e-4, atol=1e-5)


def test_training_from_a_file_resumes_to_the_bit(tmp_path):
    table, options = mapped(TRAIN, tmp_path), with_options(max_epochs=4, patience=None)
    whole, half = new_flow(), new_flow()
    list(fit(whole, table, VALIDATION, options=options))
    reports = fit(half, table, VALIDATION, options=options)
    next(reports)
    state = next(reports).snapshot()
    resumed = new_flow()
    list(fit(resumed, table, VALIDATION, options=options, state=state))
    assert_same(whole, resumed)


@pytest.mark.parametrize("spec", [None, NsfSpec(layers=1, hidden=[8])], ids=["maf", "nsf"])
def test_rows_beside_the_device_are_trained_on_as_those_on_it(monkeypatch, spec):
    """Rows that stay beside the device, as larger ones than a GPU do, give the same bits."""

    def beside(*arguments, **named):
        rows = fit_rows.model_rows(*arguments, **named)
        monkeypatch.setattr(rows, "_streamed", True)  # as a table on another device makes it
        return rows

    spec_given = () if spec is None else (spec,)
    flows = [new_flow(*spec_given), new_flow(*spec_given)]
    options = with_options(max_epochs=3, patience=None)
    list(fit(flows[0], TRAIN, VALIDATION, options=options))
    monkeypatch.setattr("flows.training.fit.model_rows", beside)
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
