"""The compiled kernels against the plain modules that they stand in for."""

import copy
import importlib
import itertools
import logging
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from flows import (
    CompiledFlow,
    Flow,
    FlowSpec,
    GaussianSpec,
    HafSpec,
    IafSpec,
    MadeSpec,
    MafSpec,
    NafSpec,
    NiceSpec,
    NsfSpec,
    PlanarSpec,
    RealNvpSpec,
    build,
    compile_flow,
)
from flows.bijections.autoregressive.layers import Autoregressive
from flows.bijections.compose import Chain, Reverse
from flows.bijections.network_layers import MapSpec
from flows.bijections.transformers import Affine
from flows.engine import loop_cache
from flows.engine.blocks import LANES, VECTORS
from flows.engine.serving import packing
from flows.engine.serving.networks import BLOCK_UNITS, HOT_UNITS
from flows.engine.training.program import UnsupportedError
from flows.engine.training.step import CompiledGradient
from flows.preprocess import Preprocessing
from flows.specs.costs import Conditioner
from tests.flows.cases import is_packed, stirred

# More units than are computed at a time, and widths that no panel divides.
SPECS: list[FlowSpec] = [
    *(
        MafSpec(layers=2, hidden=[HOT_UNITS + 5, 19], activation=activation, order="random")
        for activation in ("relu", "tanh", "elu", "gelu")
    ),
    MafSpec(layers=3, hidden=[7], batch_norm=None),
    MadeSpec(hidden=[5, 30, 11], separate_networks=True),
    RealNvpSpec(layers=3, hidden=[HOT_UNITS + 5]),
    RealNvpSpec(layers=2, hidden=[9, 6], batch_norm=None),
]
# The same within what their maps lose: splines are steep where bins are narrow.
OTHER_SPECS: list[tuple[FlowSpec, int, float]] = [
    (MafSpec(layers=2, hidden=[HOT_UNITS + 5], log_scale_bound=3.0), 3, 2e-5),
    (NsfSpec(layers=2, hidden=[HOT_UNITS + 5, 19], activation="relu"), 0, 5e-5),
    (NsfSpec(layers=2, hidden=[12], bins=5, tail_bound=2.0), 3, 5e-5),
    (NsfSpec(layers=3, hidden=[19], coupling=True), 2, 5e-5),
    (NsfSpec(layers=2, hidden=[12], linear=True), 2, 1e-4),
    (GaussianSpec(), 3, 2e-5),
    (HafSpec(layers=5, hidden=[19]), 3, 5e-5),
    (IafSpec(layers=3, hidden=[19], order="random"), 0, 2e-5),
    (NiceSpec(layers=3, hidden=[19]), 0, 2e-5),
    (NiceSpec(layers=3, hidden=[12]), 2, 5e-5),
    (IafSpec(layers=3, hidden=[19]), 2, 5e-5),
    (NafSpec(layers=2, hidden=[19], transformer="ddsf", units=5), 2, 5e-5),
    (NafSpec(layers=1, hidden=[9], transformer="ddsf", units=4, closed="sampling"), 0, 5e-5),
    (MafSpec(layers=2, hidden=[19], tails=True), 2, 1e-4),
    (MadeSpec(conditional="mixture", components=5, hidden=[19]), 2, 1e-4),
    (
        MafSpec(layers=2, hidden=[19], base="made_mixture", components=3, log_scale_bound=3.0),
        0,
        1e-4,
    ),
    (NafSpec(layers=2, hidden=[19], units=8), 2, 5e-5),
    (NafSpec(layers=1, hidden=[19], units=4, closed="sampling"), 0, 5e-5),
    (RealNvpSpec(layers=2, hidden=[9, 6], log_scale_bound=3.0), 2, 2e-5),
]
TILE = LANES * VECTORS
ROWS = [1, 2, 3, LANES, LANES + 1, TILE + 1, 3 * TILE + 4]


def _flow(spec: FlowSpec, dim: int, context_dim: int = 0) -> Flow:
    """A flow whose biases and batch norms are not what they are initialised to."""
    moments = torch.linspace(-3, 5, dim), torch.linspace(0.5, 2, dim)
    flow = build(spec, dim, standardise=moments, seed=1, context_dim=context_dim).eval()
    return stirred(flow, 0.2, seed=2, biases_alone=True)


def _pair(flow: Flow, monkeypatch: pytest.MonkeyPatch) -> tuple[CompiledFlow, CompiledFlow]:
    """The flow in the kernels, and without them."""
    with monkeypatch.context() as patch:
        patch.setattr(packing, "load_kernels", lambda: None)
        slow = compile_flow(flow)
    fast = compile_flow(flow)
    assert (is_packed(fast), is_packed(slow)) == (True, False)
    return fast, slow


def _assert_alike(
    fast: CompiledFlow, slow: CompiledFlow, rows: int, close: float, context_dim: int = 0
) -> None:
    context = np.random.default_rng(rows).normal(size=(rows, context_dim))
    given = context if context_dim else None
    x = slow.sample(rows, seed=rows, context=given)
    drawn = fast.sample(rows, seed=rows, context=given)
    np.testing.assert_allclose(drawn, x, rtol=1e-5, atol=close)
    table, noise = np.hstack([x, context]), np.hstack([x[:, ::-1] * 0.3, context])
    np.testing.assert_allclose(fast.log_prob(table), slow.log_prob(table), rtol=1e-5, atol=close)
    for found, expected in zip(
        (*fast.inverse(table), *fast.forward(noise)),
        (*slow.inverse(table), *slow.forward(noise)),
        strict=True,
    ):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=close)


@pytest.mark.parametrize(
    ("spec", "dim"),
    [
        *itertools.product(SPECS, [2, 5, 21]),
        *((MafSpec(layers=2, hidden=[12, 25]), dim) for dim in (1, BLOCK_UNITS + 9)),
    ],
    ids=repr,
)
def test_kernels_give_the_numbers_of_pytorch(spec, dim, monkeypatch):
    pair = _pair(_flow(spec, dim), monkeypatch)
    for rows in ROWS:
        _assert_alike(*pair, rows, 2e-5)


@pytest.mark.parametrize(("spec", "context_dim", "close"), OTHER_SPECS, ids=repr)
def test_so_do_those_of_other_maps_and_contexts(spec, context_dim, close, monkeypatch):
    pair = _pair(_flow(spec, 7, context_dim), monkeypatch)
    for rows in (1, TILE + 3):
        _assert_alike(*pair, rows, close, context_dim)


def test_so_do_those_of_the_thinnest_tails_next_to_0(monkeypatch):
    flow = build(MafSpec(layers=1, hidden=[9], batch_norm=None, tails=True), 2, seed=1)
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter.zero_()
        flow.get_parameter("transform.layers.0.raw").fill_(-16.0)
    noise = np.linspace(-1e-4, 1e-4, 100).reshape(50, 2)
    found, expected = (compiled.forward(noise)[0] for compiled in _pair(flow, monkeypatch))
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_so_do_those_of_features_of_0_and_1(monkeypatch):
    flow = _flow(MadeSpec(conditional="bernoulli", hidden=[19]), 5, 2)
    fast, slow = _pair(flow, monkeypatch)
    for rows in (1, TILE + 3):
        context = np.random.default_rng(rows).normal(size=(rows, 2))
        x = slow.sample(rows, seed=rows, context=context)
        np.testing.assert_array_equal(fast.sample(rows, seed=rows, context=context), x)
        table = np.hstack([x, context])
        np.testing.assert_allclose(fast.log_prob(table), slow.log_prob(table), atol=1e-5)
        table[0, :3] = [0.5, 1, 0]
        assert fast.log_prob(table)[0] == -np.inf
        table[0, 0] = np.nan
        assert np.isnan(fast.log_prob(table)[0])


def test_a_mixture_that_is_not_next_to_the_noise_is_a_map(monkeypatch):
    inner, outer = (
        _flow(spec, 4).transform
        for spec in (MadeSpec(hidden=[9]), MadeSpec(conditional="mixture", hidden=[9]))
    )
    flow = Flow(Chain([outer, Reverse(4), inner]), Preprocessing()).eval()
    _assert_alike(*_pair(flow, monkeypatch), 40, 1e-4)


def test_roots_far_from_the_data_are_found(monkeypatch):
    specs = [NafSpec(layers=1, hidden=[9], transformer=t, units=4) for t in ("dsf", "ddsf")]
    noise = np.random.default_rng(3).normal(size=(30, 3)) * np.geomspace(1, 30, 30)[:, None]
    mixture = MadeSpec(conditional="mixture", components=3, hidden=[12])
    apart = [stirred(build(mixture, 3, seed=1).eval(), 2.0, seed=seed) for seed in (2, 4, 5)]
    for flow in (*(_flow(spec, 3) for spec in (*specs, OTHER_SPECS[-4][0])), *apart):
        fast, slow = _pair(flow, monkeypatch)
        rows, log_det = fast.forward(noise)
        expected, expected_log_det = slow.forward(noise)
        np.testing.assert_allclose(rows, expected, rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(log_det, expected_log_det, rtol=1e-4, atol=5e-3)
        assert np.isnan(fast.forward(np.full((1, 3), np.inf))[0]).any()


def test_threads_run_in_one_packed_flow():
    compiled = compile_flow(_flow(SPECS[1], 8))
    x = compiled.sample(500, seed=0)
    expected = compiled.log_prob(x)

    def score(step: int) -> bool:
        return np.array_equal(compiled.log_prob(x[::step]), expected[::step])

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(score, [1, 2] * 20))


def test_layers_and_maps_that_no_kernel_knows_stay_with_pytorch():
    for spec in (PlanarSpec(layers=2), MadeSpec(hidden=[4], direct=True)):
        assert not is_packed(compile_flow(build(spec, 3, seed=0)))
    conditioner = Conditioner([4], "tanh")
    layer = Autoregressive(3, conditioner, _Unheard(), torch.Generator().manual_seed(0))
    flow = Flow(layer, Preprocessing())
    assert not is_packed(compile_flow(flow.eval()))
    with pytest.raises(UnsupportedError, match="unheard-of"):
        CompiledGradient(flow.train(), row_loss_bound=None)


def test_without_numba_pytorch_computes_and_one_line_says_so(monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "flows.engine.serving.kernels", None)
    monkeypatch.delattr("flows.engine.serving.kernels", raising=False)
    packing.load_kernels.cache_clear()
    try:
        with caplog.at_level(logging.WARNING, logger="flows"):
            first, second = (compile_flow(_flow(SPECS[0], 3)) for _ in range(2))
    finally:
        packing.load_kernels.cache_clear()
    assert not is_packed(first)
    [told] = [record for record in caplog.records if record.name.startswith("flows")]
    assert "PyTorch" in told.getMessage()
    x = second.sample(5, seed=0)
    assert np.isfinite(first.log_prob(x)).all()


class _Unheard(Affine):
    """An affine map by a name that no engine knows."""

    def map_spec(self) -> MapSpec:
        return MapSpec("unheard-of", 2)


def test_a_packed_flow_refuses_to_be_copied():
    with pytest.raises(TypeError, match="neither copied nor pickled"):
        copy.deepcopy(compile_flow(_flow(SPECS[0], 3)))


ENTRY = """
from numba import njit
from helper_of_a_loop import step

@njit(cache=True)
def loop(x):
    return step(x)
"""
HELPER = """
from numba import njit

@njit
def step(x):
    return x + {}
"""


def loaded(name):
    sys.modules.pop(name, None)
    importlib.invalidate_caches()
    return importlib.import_module(name)


def computed(folder, added):
    """Return the loop of new modules, as another process would load it, and what it computes."""
    loop_cache.sources_stamp.cache_clear()
    (folder / "helper_of_a_loop.py").write_text(HELPER.format(added))
    sys.modules.pop("helper_of_a_loop", None)
    loop = loaded("entry_of_a_loop").loop
    return loop(1), loop.stats.cache_hits


@pytest.fixture
def folder(tmp_path, monkeypatch):
    loop_cache.install()
    monkeypatch.setattr(loop_cache, "FOLDERS", (tmp_path,))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "entry_of_a_loop.py").write_text(ENTRY)
    yield tmp_path
    loop_cache.sources_stamp.cache_clear()
    for name in ("helper_of_a_loop", "entry_of_a_loop"):
        sys.modules.pop(name, None)


def test_a_loop_is_read_from_the_cache_until_a_file_of_any_loop_changes(folder):
    assert computed(folder, 10) == (11, {})
    number, hits = computed(folder, 10)
    assert (number, sum(hits.values())) == (11, 1)
    assert computed(folder, 20)[0] == 21
