import copy

import numpy as np
import pytest
import torch

from flows import (
    CompiledFlow,
    Flow,
    MafSpec,
    NafSpec,
    RealNvpSpec,
    build,
    compile_flow,
    drawn_bytes,
    turn_rows,
)
from flows.bijections.base import Bijection
from flows.bijections.batch_norm import BatchNorm, BatchNormSpec
from flows.bijections.compose import Chain
from flows.preprocess import Preprocessing, Standardise
from tests.flows.cases import example_rows, find, trained_flow


@pytest.fixture
def compiled():
    return compile_flow(trained_flow(find("maf"), 5))


@pytest.mark.parametrize("name", ["made", "maf", "realnvp"])
@pytest.mark.parametrize("huge", [1e308, 1e39, np.nan])
def test_a_huge_value_spoils_its_own_row_only(name, huge):
    compiled = compile_flow(trained_flow(find(name), 5))
    x = example_rows(300, 5).numpy()
    expected = compiled.log_prob(x)
    for column in range(5):
        spoilt = x.copy()
        spoilt[7, column] = huge
        found = compiled.log_prob(spoilt)
        assert found[7] == -np.inf or np.isnan(found[7]) or found[7] < -1e6
        np.testing.assert_array_equal(np.delete(found, 7), np.delete(expected, 7))
        noise = np.random.default_rng(0).normal(size=(300, 5))
        rows = compiled.forward(noise)[0]
        noise[7, column] = huge
        found = compiled.forward(noise)[0]
        np.testing.assert_array_equal(np.delete(found, 7, 0), np.delete(rows, 7, 0))


def test_data_far_from_0_keep_their_digits():
    rows = example_rows(200, 3) + 1e9
    flow = build(MafSpec(layers=2, hidden=[8]), 3, standardise=(rows.mean(0), rows.std(0)), seed=0)
    exact = copy.deepcopy(flow).double().eval()
    with torch.no_grad():
        expected = exact.log_prob(rows)
    compiled = compile_flow(flow)
    np.testing.assert_allclose(compiled.log_prob(rows.numpy()), expected, atol=1e-4)
    u, _ = compiled.inverse(rows.numpy())
    np.testing.assert_allclose(compiled.forward(u)[0], rows, rtol=0, atol=1e-4)


@pytest.mark.parametrize("start", [1, 256, 699, 700])
def test_the_rows_of_a_seed_from_one_on_are_those_of_the_whole(compiled, start):
    whole = compiled.sample(700, seed=3)
    pieces = [*compiled.iter_sample(700, seed=3, chunk_rows=100, start=start), whole[:0]]
    np.testing.assert_array_equal(np.concatenate(pieces), whole[start:])


@pytest.mark.parametrize("chunk_rows", [1, 300, 1000])
def test_the_same_seed_gives_the_same_rows_whatever_the_chunks(compiled, chunk_rows):
    whole = compiled.sample(700, seed=3)
    pieces = list(compiled.iter_sample(700, seed=3, chunk_rows=chunk_rows))
    assert [len(piece) for piece in pieces[:-1]] == [chunk_rows] * (len(pieces) - 1)
    assert 0 < len(pieces[-1]) <= chunk_rows
    np.testing.assert_array_equal(np.concatenate(pieces), whole)


def test_sampling_leaves_the_global_generator_alone(compiled):
    before = torch.random.get_rng_state()
    compiled.sample(5, seed=3)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_it_takes_float32_read_only_and_strided_arrays(compiled):
    x = example_rows(20, 5).numpy()
    expected = compiled.log_prob(x)
    frozen = x.copy()
    frozen.flags.writeable = False
    np.testing.assert_array_equal(compiled.log_prob(frozen), expected)
    np.testing.assert_array_equal(compiled.log_prob(np.asfortranarray(x)), expected)
    rounded = x.astype(np.float32)
    exact = compiled.log_prob(rounded.astype(np.float64))
    np.testing.assert_allclose(compiled.log_prob(rounded), exact, atol=1e-4)


def test_results_are_float64_and_empty_batches_give_empty_results(compiled):
    none = np.empty((0, 5))
    assert compiled.log_prob(none).shape == (0,)
    assert compiled.inverse(none)[0].shape == (0, 5)
    assert compiled.forward(none)[1].shape == (0,)
    assert compiled.sample(0, seed=1).shape == (0, 5)
    assert list(compiled.iter_sample(0, seed=1, chunk_rows=4)) == []
    assert compiled.sample(2, seed=1).dtype == np.float64
    assert compiled.log_prob(np.ones((1, 5), dtype=np.float32)).dtype == np.float64


def test_compiling_leaves_the_flow_as_it_is():
    flow = trained_flow(find("maf"), 5).train()
    before = copy.deepcopy(flow.state_dict())
    compile_flow(flow)
    assert flow.training
    assert all(torch.equal(before[name], value) for name, value in flow.state_dict().items())


def test_training_on_does_not_change_a_compiled_flow():
    flow = trained_flow(find("realnvp"), 5).float()
    compiled = compile_flow(flow)
    x = example_rows(5, 5).numpy()
    before = compiled.log_prob(x)
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter.add_(1)
    np.testing.assert_array_equal(compiled.log_prob(x), before)


class _Doubling(Bijection):
    """u = 2 x + 1, without a compiled form."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim
        self.log_two = torch.nn.Parameter(torch.full((dim,), 2.0).log())

    def forward(self, u, context=None, observed=None):
        return (u - 1) / self.log_two.exp(), -self.log_two.sum().expand(len(u))

    def inverse(self, x, context=None, observed=None):
        return x * self.log_two.exp() + 1, self.log_two.sum().expand(len(x))


def test_a_layer_without_a_compiled_form_is_served_as_it_is():
    norms = [BatchNorm(3, BatchNormSpec()) for _ in range(2)]
    for norm in norms:
        norm.set_statistics(torch.tensor([1.0, 2.0, 3.0]), torch.tensor([4.0, 0.5, 2.0]))
    inner = build(RealNvpSpec(layers=2, hidden=[4]), 3, seed=0).transform
    chain = Chain([norms[0], _Doubling(3), norms[1], inner])
    flow = Flow(
        chain, Preprocessing(standardise=Standardise(torch.ones(3), torch.full((3,), 2.0)))
    ).eval()
    x = example_rows(10, 3)
    with torch.no_grad():
        expected = copy.deepcopy(flow).double().log_prob(x)
    np.testing.assert_allclose(compile_flow(flow).log_prob(x.numpy()), expected, rtol=1e-4)
    rows = compile_flow(flow).sample(10, seed=0)
    same = flow.sample(10, generator=torch.Generator().manual_seed(0))
    np.testing.assert_allclose(rows, same, rtol=1e-4, atol=1e-4)


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["made-random", "maf", "realnvp"])
def test_a_gpu_gives_the_numbers_of_the_processor(name):
    flow = trained_flow(find(name), 5)
    host, device = compile_flow(flow), compile_flow(flow, device="cuda")
    x = example_rows(1000, 5).numpy()
    np.testing.assert_allclose(device.log_prob(x), host.log_prob(x), atol=1e-3)
    expected = host.sample(300, seed=1)
    np.testing.assert_allclose(device.sample(300, seed=1), expected, rtol=1e-3, atol=1e-3)


def test_few_rows_of_a_slow_flow_are_drawn_at_a_time(monkeypatch):
    flow = compile_flow(build(NafSpec(layers=1, hidden=[4], units=2), 70, seed=0))
    drawn: list[int] = []
    draw = CompiledFlow._draw

    def spied(self, n, *given):
        drawn.append(n)
        return draw(self, n, *given)

    monkeypatch.setattr(CompiledFlow, "_draw", spied)
    rows = turn_rows(2048, flow.operations.sampling)
    assert len(next(flow.iter_sample(500, seed=1, chunk_rows=rows))) == 64
    assert drawn == [64]


def test_wide_samples_are_drawn_a_few_at_a_time(monkeypatch):
    flow = compile_flow(build(MafSpec(layers=1, hidden=[4]), 2000, seed=0))
    drawn: list[int] = []
    draw = CompiledFlow._draw

    def spied(self, n, *given):
        drawn.append(n)
        return draw(self, n, *given)

    monkeypatch.setattr(CompiledFlow, "_draw", spied)
    next(flow.iter_sample(2000, seed=1, chunk_rows=4))
    assert 8 * 2000 * drawn[0] == drawn_bytes(2000, 2000) <= 2 << 20
