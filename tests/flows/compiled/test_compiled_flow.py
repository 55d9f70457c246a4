import copy
import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from flows import (
    Flow,
    MafSpec,
    MixedColumn,
    MixedSpec,
    PreprocessingSpec,
    RealNvpSpec,
    build,
    compile_flow,
    evaluate,
    quantiles_of,
    rank_among,
)
from flows.bijections.base import Bijection
from flows.bijections.batch_norm import BatchNorm, BatchNormSpec
from flows.bijections.compose import Chain
from flows.preprocess import Preprocessing, Standardise
from tests.flows.cases import CASES, Case, example_rows, find, trained_flow


@pytest.fixture
def compiled():
    return compile_flow(trained_flow(find("maf"), 5))


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


FAR = [10.0, 100.0, 1e6, 1e30, 1e39, 1e300]


def far_rows(dim: int) -> Tensor:
    """Rows in all directions from the data, and rows of which one value alone is far."""
    generator = torch.Generator().manual_seed(0)
    around = torch.randn(20, dim, generator=generator, dtype=torch.float64)
    single, axes = example_rows(dim, dim), torch.eye(dim, dtype=torch.float64)
    rows = [around * far for far in FAR]
    for far in FAR:
        rows += [single + axes * far, single - axes * far]
    return torch.cat(rows)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_no_finite_row_scores_nan(case: Case) -> None:
    flow = trained_flow(case, 3)
    rows = far_rows(3)
    with torch.no_grad():
        assert not bool(flow.log_prob(rows).isnan().any())
    for space in ("data", "model"):
        assert not np.isnan(compile_flow(flow).log_prob(rows.numpy(), space=space)).any()


def _wild(**fields: Any) -> Flow:
    """A flow of ReLU units and of weights so large that NaN is all that far rows would get."""
    flow = build(MafSpec(layers=3, hidden=[16], activation="relu"), 3, seed=0, **fields)
    with torch.no_grad():
        for name, parameter in flow.named_parameters():
            if "weight" in name:
                parameter.mul_(30)
    return flow.eval()


def test_a_far_row_has_quantile_0_and_a_row_that_lacks_a_value_none():
    flow = _wild()
    rows = torch.full((4, 3), 1e3)
    rows[1, 1], rows[2, 0], rows[3] = math.nan, math.inf, 0.0
    for scores in (flow.log_prob(rows).detach().numpy(), compile_flow(flow).log_prob(rows.numpy())):
        assert scores[0] == -math.inf
        assert np.isnan(scores[[1, 2]]).all()
        assert np.isfinite(scores[3])
        ranks = rank_among(scores.astype(np.float64), quantiles_of(np.linspace(-9, 0, 50)), rows=50)
        assert ranks[0] == 0
    parts = compile_flow(flow).log_prob_parts(rows.numpy())
    assert parts[0].tolist() == [0.0, -math.inf]
    assert np.isnan(parts[1]).all()


def test_a_far_context_is_no_reason_for_nan_but_a_missing_one_is():
    moments = torch.zeros(2), torch.ones(2)
    flow = _wild(context_dim=2, standardise_context=moments)
    rows = torch.zeros(3, 5)
    rows[0, 3:], rows[1, 4] = 1e30, math.nan
    for scores in (
        flow.log_prob_of_table(rows).detach(),
        compile_flow(flow).log_prob(rows.numpy()),
    ):
        found = np.asarray(scores)
        assert found[0] == -math.inf
        assert np.isnan(found[1])
        assert np.isfinite(found[2])


def test_a_value_outside_of_a_logit_has_density_0():
    flow = build(
        MafSpec(layers=1, hidden=[8]), 2, preprocessing=PreprocessingSpec(logit=1e-3), seed=0
    )
    rows = torch.tensor([[0.5, 0.5], [0.5, 3.0], [math.nan, 0.5]])
    flow.eval()
    for scores in (flow.log_prob(rows).detach(), compile_flow(flow).log_prob(rows.numpy())):
        found = np.asarray(scores)
        assert np.isfinite(found[0])
        assert found[1] == -math.inf
        assert np.isnan(found[2])


def test_of_a_mixed_row_a_gap_that_training_had_is_a_value():
    columns = [MixedColumn(missing=True), MixedColumn(levels=2, missing=False), MixedColumn()]
    relu = MafSpec(layers=3, hidden=[16], activation="relu")
    flow = build(MixedSpec(columns=columns, flow=relu), 3, seed=0).eval()
    with torch.no_grad():
        for name, parameter in flow.transform.named_parameters():
            if name.startswith("flow") and "weight" in name:
                parameter.mul_(30)
    rows = torch.tensor(
        [[1e3, 0, 1e3], [math.nan, 1, 1e30], [0, math.nan, 1e3], [1e3, 0, math.nan]],
        dtype=torch.float64,
    )
    compiled = compile_flow(flow)
    found = flow.log_prob(rows).detach().numpy(), compiled.log_prob(rows.numpy())
    for scores in found:
        assert scores[0] == -math.inf
        assert not np.isnan(scores[1])
        assert np.isnan(scores[2:]).all()
    for parts in (
        flow.log_prob_parts(rows).detach().numpy(),
        compiled.log_prob_parts(rows.numpy()),
    ):
        assert np.isnan(parts).any(axis=1).tolist() == [False, False, True, True]


def test_a_far_validation_row_does_not_ruin_the_robust_mean():
    flow = _wild()
    rows = torch.cat([torch.zeros(50, 3), torch.full((1, 3), 1e3)])
    reached = evaluate(flow, rows, row_loss_bound=30.0)
    assert reached.mean == -math.inf
    assert math.isfinite(reached.robust_mean)
