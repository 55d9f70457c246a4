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
from flows.bijections.batch_norm import BatchNorm
from flows.bijections.compose import Chain
from flows.ensemble import mix, mix_parts
from flows.preprocess import Preprocessing, Standardise
from flows.specs.spec import BatchNormSpec
from tests.flows.cases import CASES, Case, draw, enlarged, example_rows, find, trained_flow


@pytest.fixture
def compiled():
    return compile_flow(trained_flow(find("maf"), 5))


@pytest.mark.parametrize(
    ("chunk_rows", "start"),
    [(1, 0), (300, 0), (1000, 0), (100, 1), (100, 256), (100, 699), (100, 700)],
)
def test_the_rows_of_a_seed_are_the_same_whatever_the_chunks_and_from_any_one_on(
    compiled, chunk_rows, start
):
    before, whole = torch.random.get_rng_state(), compiled.sample(700, seed=3)
    pieces = list(compiled.iter_sample(700, seed=3, chunk_rows=chunk_rows, start=start))
    assert all(0 < len(piece) <= chunk_rows for piece in pieces)
    assert start or all(len(piece) == chunk_rows for piece in pieces[:-1])
    np.testing.assert_array_equal(np.concatenate([*pieces, whole[:0]]), whole[start:])
    assert torch.equal(torch.random.get_rng_state(), before)


def test_seeds_whose_last_bits_are_the_same_draw_other_rows(compiled):
    first, *others = (compiled.sample(5, seed=seed) for seed in (0, 1 << 32, 1 << 33))
    assert not any(np.isin(rows, first).any() for rows in others)


def test_compiling_and_training_on_leave_each_other_as_they_are():
    flow, x = trained_flow(find("realnvp"), 5).float().train(), example_rows(5, 5).numpy()
    before = copy.deepcopy(flow.state_dict())
    compiled = compile_flow(flow)
    assert flow.training
    assert all(torch.equal(before[name], value) for name, value in flow.state_dict().items())
    scores = compiled.log_prob(x)
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter.add_(1)
    np.testing.assert_array_equal(compiled.log_prob(x), scores)


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
    around, single = draw(20, dim), example_rows(dim, dim)
    axes = torch.eye(dim, dtype=torch.float64)
    rows = [(around * far, single + axes * far, single - axes * far) for far in FAR]
    return torch.cat([one for some in rows for one in some])


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
    spec = MafSpec(layers=3, hidden=[16], activation="relu")
    return enlarged(build(spec, 3, seed=0, **fields), 30)


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
    reached = evaluate(flow, torch.cat([torch.zeros(50, 3), rows[:1]]), row_loss_bound=30.0)
    assert reached.mean == -math.inf
    assert math.isfinite(reached.robust_mean)


def test_a_row_beyond_one_member_of_an_ensemble_is_scored_by_the_others():
    scores = torch.tensor([[math.nan, math.nan], [0.0, math.nan]])
    weights = torch.tensor([0.25, 0.75])
    found = mix(scores, weights).tolist()
    assert found == pytest.approx([math.log(0.75), math.nan], nan_ok=True)
    # P(d) and p(x | d) of the mixture, whose product is its density.
    shares = torch.tensor([[[0.2, 3.0]], [[0.6, 5.0]]])
    exact = [0.25 * 0.2 + 0.75 * 0.6, 0.25 * 0.2 * 3 + 0.75 * 0.6 * 5]
    [parts] = mix_parts(shares.log(), weights).exp().tolist()
    assert parts == pytest.approx([exact[0], exact[1] / exact[0]])


LOGIT = build(
    MafSpec(layers=1, hidden=[8]), 2, preprocessing=PreprocessingSpec(logit=1e-3), seed=0
).eval()


GIVEN = _wild(context_dim=2, standardise_context=(torch.zeros(2), torch.ones(2)))


@pytest.mark.parametrize(
    ("flow", "rows"),
    [
        (LOGIT, [[0.5, 0.5], [0.5, 3.0], [math.nan, 0.5]]),
        (GIVEN, [[0] * 5, [0, 0, 0, 1e30, 1e30], [0, 0, 0, 0, math.nan]]),
    ],
    ids=["outside of a logit", "a far context"],
)
def test_what_is_too_far_has_density_0_and_what_lacks_a_value_none(flow, rows):
    table = torch.tensor(rows)
    for scores in (
        flow.log_prob_of_table(table).detach(),
        compile_flow(flow).log_prob(table.numpy()),
    ):
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
        [[1e3, 0, 1e3], [math.nan, 1, 1e30], [0, math.nan, 1e3], [1e3, 0, math.nan]]
    ).double()
    compiled = compile_flow(flow)
    for scores in (flow.log_prob(rows).detach().numpy(), compiled.log_prob(rows.numpy())):
        assert scores[0] == -math.inf
        assert np.isnan(scores).tolist() == [False, False, True, True]
    plain = flow.log_prob_parts(rows).detach().numpy()
    for parts in (plain, compiled.log_prob_parts(rows.numpy())):
        assert np.isnan(parts).any(axis=1).tolist() == [False, False, True, True]
