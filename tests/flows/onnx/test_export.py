"""Log densities of ONNX models: those of the flows, in ONNX Runtime."""

import io
import sys
from importlib import import_module

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor

from flows import (
    EncoderSpec,
    EnsembleSpec,
    Flow,
    IafSpec,
    MadeSpec,
    MafSpec,
    MixedColumn,
    MixedSpec,
    NsfSpec,
    PreprocessingSpec,
    build,
    fit_encoding,
)
from flows.onnx.export import OPSET, onnx_model
from flows.onnx.recording import OnnxError
from tests.flows.cases import CASES, Case, example_rows, find, fresh_flow, trained_flow

_NATS = 1e-4
_REFUSED = {
    "iaf": "a pass for each feature",
    "naf-sampling": "a pass for each feature",
    "nsf-tails": "special_ndtri",
    "planar-sampling": "depend on the values",
    "sylvester-sampling": "depend on the values",
}


def served(flow: Flow) -> Flow:
    """Return a flow as the service holds it: preprocessing in float64, weights in float32."""
    flow = flow.float().eval()
    for part in (flow.preprocessing, flow.context):
        if part is not None:
            part.double()
    if flow.context is not None and flow.context.encoder is not None:
        flow.context.encoder.float()
    return flow


def moved_flow(case: Case, dim: int) -> Flow:
    """Return an untrained flow whose weights are moved away from those of the identity."""
    flow, generator = fresh_flow(case, dim), torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.1)
    return served(flow)


def run(flow: Flow, rows: Tensor, context: Tensor | None = None) -> np.ndarray:
    model = onnx_model(flow, {"units": "nats"})
    onnx.checker.check_model(model, full_check=True)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    given = {"rows": rows.numpy()} | ({} if context is None else {"context": context.numpy()})
    (found,) = session.run(None, given)
    one = {name: table[:1] for name, table in given.items()}
    assert np.allclose(session.run(None, one)[0], found[:1], rtol=1e-6, atol=1e-6, equal_nan=True)
    none = {name: table[:0] for name, table in given.items()}
    assert session.run(None, none)[0].shape == (0,)
    return np.asarray(found)


def assert_same(flow: Flow, rows: Tensor, context: Tensor | None = None) -> None:
    with torch.no_grad():
        expected = flow.log_prob(rows, context).double().numpy()
    found = run(flow, rows, context)
    finite = np.isfinite(expected)
    assert finite.sum() > len(rows) / 2
    assert np.array_equal(found[~finite], expected[~finite], equal_nan=True)
    # One rounding of float32 is what far rows leave of 1e-4 nats.
    allowed = np.maximum(_NATS, 1e-6 * np.abs(expected[finite]))
    assert (np.abs(found[finite] - expected[finite]) <= allowed).all()


def some_rows(dim: int) -> Tensor:
    """Return rows like those of the training, then far ones, and one that lacks a value."""
    rows = example_rows(40, dim, seed=3)
    rows[-3] = 200.0
    rows[-2, 0] = torch.nan
    rows[-1] = 1e300
    return rows


@pytest.mark.parametrize("case", [c for c in CASES if c.name not in _REFUSED], ids=lambda c: c.name)
def test_the_log_density_is_that_of_the_flow(case: Case) -> None:
    assert_same(moved_flow(case, 3), some_rows(3))


@pytest.mark.parametrize("name", ["gaussian", "made-mixture", "maf", "naf-dsf", "nsf"])
def test_a_single_feature_is_exported(name: str) -> None:
    assert_same(moved_flow(find(name), 1), some_rows(1))


def test_a_trained_flow_with_batch_norm_is_exported() -> None:
    assert_same(served(trained_flow(find("maf"), 3)), some_rows(3))


@pytest.mark.parametrize("name", _REFUSED)
def test_a_density_that_is_no_single_pass_is_refused(name: str) -> None:
    for dim in (find(name).min_dim, 3):
        with pytest.raises(OnnxError, match=_REFUSED[name]):
            onnx_model(moved_flow(find(name), dim), {})


def test_several_masks_and_zeros_and_ones_are_exported() -> None:
    rows = (torch.rand(30, 4, generator=torch.Generator().manual_seed(0)) > 0.5).double()
    rows[0, 0] = 0.5
    for spec in (
        MadeSpec(masks=3, hidden=[8], order="random"),
        MadeSpec(conditional="bernoulli", hidden=[8]),
    ):
        assert_same(served(build(spec, 4, seed=0)), rows)


def test_preprocessing_is_part_of_the_model() -> None:
    rows = torch.randint(0, 256, (30, 3), generator=torch.Generator().manual_seed(0)).double()
    rows[0, 0] = 1000.0
    moments = torch.zeros(3, dtype=torch.float64), torch.full((3,), 2.0, dtype=torch.float64)
    chosen = PreprocessingSpec(levels=256, logit=1e-6)
    flow = build(
        MafSpec(layers=2, hidden=[8]), 3, standardise=moments, preprocessing=chosen, seed=0
    )
    assert_same(served(flow), rows)


def test_digits_far_from_0_are_kept() -> None:
    rows = example_rows(30, 3)
    moments = rows.mean(dim=0) + 1e9, rows.std(dim=0)
    flow = build(NsfSpec(layers=2, hidden=[8]), 3, standardise=moments, seed=0)
    assert_same(served(flow), rows + 1e9)


@pytest.mark.parametrize("encoder", [None, EncoderSpec(hidden=[8], features=4)])
def test_a_context_is_a_second_input(encoder: EncoderSpec | None) -> None:
    context = example_rows(40, 2, seed=5)
    flow = build(
        NsfSpec(layers=2, hidden=[8], encoder=encoder),
        3,
        context_dim=2,
        standardise=(torch.full((3,), 10.0), torch.ones(3)),
        standardise_context=(torch.full((2,), 10.0), torch.ones(2)),
        seed=0,
    )
    assert_same(served(flow), some_rows(3), context)


def test_ensembles_are_exported() -> None:
    spec = EnsembleSpec(
        members=[MafSpec(layers=2, hidden=[8]), NsfSpec(layers=1, hidden=[8])], weights=[0.25, 0.75]
    )
    flow = build(spec, 3, standardise=(torch.full((3,), 10.0), torch.ones(3)), seed=0)
    assert_same(served(flow), some_rows(3))
    slow = EnsembleSpec(
        members=[MafSpec(layers=1, hidden=[8]), IafSpec(layers=1)], weights=[0.5, 0.5]
    )
    with pytest.raises(OnnxError):
        onnx_model(served(build(slow, 3, seed=0)), {})


_COLUMNS = [
    MixedColumn(levels=3, missing=True, values=[1.0, 4.0, 2.5]),
    MixedColumn(transform="quantiles", missing=True),
    MixedColumn(transform="log", low=0.0, spikes=[0.0]),
    MixedColumn(levels=2),
    MixedColumn(transform="asinh"),
    MixedColumn(transform="logit", low=0.0, high=1.0),
]


def mixed_rows(count: int, *, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(count, 6, generator=generator, dtype=torch.float64)
    first = torch.tensor([1.0, 4.0, 2.5])[torch.randint(0, 3, (count,), generator=generator)]
    rows = torch.stack(
        [
            first.double(),
            noise[:, 1] * 2 + first,
            noise[:, 2].exp(),
            (noise[:, 1] > 0).double(),
            noise[:, 4].sinh(),
            torch.sigmoid(noise[:, 5]),
        ],
        dim=1,
    )
    rows[::5, 0] = torch.nan
    rows[1::5, 1] = torch.nan
    rows[2::5, 2] = 0.0
    return rows


@pytest.mark.parametrize("with_context", [False, True])
def test_mixed_rows_are_exported_with_gaps_and_unknown_levels(*, with_context: bool) -> None:
    context = [MixedColumn(levels=2, missing=True), MixedColumn(transform="quantiles")]
    spec = MixedSpec(
        columns=_COLUMNS,
        context=context if with_context else [],
        flow=MafSpec(layers=2, hidden=[12], batch_norm=None),
        hidden=[10],
        rows=200,
    )
    flow = build(spec, 6, context_dim=2 * with_context, seed=0)
    rows, given = mixed_rows(240, seed=0), mixed_rows(240, seed=1)[:, [3, 1]].nan_to_num(0.0)
    fit_encoding(flow, torch.cat([rows, given], dim=1) if with_context else rows)
    rows = mixed_rows(60, seed=2)
    rows[0, 0], rows[3, 3] = 17.0, torch.nan  # no level; no state for a gap
    rows[4, 2], rows[5, 5], rows[6, 4] = -1.0, 2.0, 1e6
    assert_same(served(flow), rows, given[:60] if with_context else None)


def test_a_circular_column_has_no_form_in_onnx() -> None:
    circle = MixedColumn(transform="circular", low=0.0, high=360.0)
    spec = MixedSpec(columns=[circle, MixedColumn()], flow=MafSpec(layers=1, hidden=[8]), rows=9)
    with pytest.raises(OnnxError, match="ndtri"):
        onnx_model(served(build(spec, 2, seed=0)), {})
    given = MixedSpec(context=[circle], flow=MafSpec(layers=1, hidden=[8]), rows=9)
    with pytest.raises(OnnxError, match="ndtri"):
        onnx_model(served(build(given, 2, context_dim=1, seed=0)), {})


def test_the_model_names_itself_and_has_a_pinned_version() -> None:
    flow = moved_flow(find("maf"), 3)
    model = onnx.load(io.BytesIO(onnx_model(flow, {"units": "nats", "name": "a"})))
    assert {prop.key: prop.value for prop in model.metadata_props} == {"units": "nats", "name": "a"}
    assert [(one.domain, one.version) for one in model.opset_import] == [("", OPSET)]
    assert onnx_model(flow, {"a": "b"}) == onnx_model(flow, {"a": "b"})


def test_a_graph_of_many_operations_is_refused_before_it_is_written(monkeypatch):
    monkeypatch.setattr("flows.onnx.recording.MOST_OPERATIONS", 500)
    flow = build(MadeSpec(hidden=[4], masks=100), 2, seed=0).eval()
    with pytest.raises(OnnxError, match="more than 500 operations"):
        onnx_model(flow, {})


def test_without_the_package_the_import_names_the_extra(monkeypatch):
    for name in [name for name in sys.modules if name.startswith("flows.onnx")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "onnx", None)  # as where it is not installed
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'densityd\[onnx\]'"):
        import_module("flows.onnx.export")
