import pytest
import torch

from flows import FitOptions, MafSpec, build, fit
from flows.bijections.tails import Tails


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_both_directions_hold_far_out(dtype):
    layer = Tails(2).to(dtype)
    with torch.no_grad():
        layer.raw.copy_(torch.tensor([[-9.0, 0.0], [0.0, 2.0]]))
    x = torch.tensor([[0.0, -1e-3], [-30.0, -1e6], [1e4, 1e9], [-0.1, 2.0]], dtype=dtype)
    u, log_det = layer.inverse(x)
    back, log_det_back = layer.forward(u)
    tolerance = 1e-3 if dtype == torch.float32 else 1e-9
    torch.testing.assert_close(back, x, rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(log_det_back, -log_det, rtol=tolerance, atol=tolerance)


def test_each_side_learns_its_own_tail():
    generator = torch.Generator().manual_seed(0)
    uniform = torch.rand(4000, 1, generator=generator, dtype=torch.float64)
    normal = torch.randn(4000, 1, generator=generator, dtype=torch.float64)
    pareto = (uniform**-0.5 - 1) / 0.5  # weight 0.5
    rows = torch.where(normal > 0, pareto, normal)
    held_out = rows[3000:]
    reached = []
    for tails in (True, False):
        spec = MafSpec(layers=1, hidden=[4], batch_norm=None, tails=tails)
        flow = build(spec, 1, seed=0)
        options = FitOptions(learning_rate=0.02, batch_size=200, max_epochs=15)
        for _ in fit(flow, rows[:3000], held_out, options=options):
            pass
        reached.append(float(flow.log_prob(held_out).detach().mean()))
        if tails:
            left, right = 2 * torch.sigmoid(flow.transform.get_parameter("layers.0.raw"))[:, 0]
            assert right > 0.3
            assert left < 0.1
    assert reached[0] > reached[1] + 0.5
