import torch
from torch import Tensor

from flows import RealNvpSpec, build
from flows.bijections.batch_norm import BatchNorm
from flows.bijections.coupling.affine import Coupling


def _jacobian(layer: Coupling) -> Tensor:
    x = torch.randn(layer.dim, dtype=torch.float64)
    result = torch.autograd.functional.jacobian(lambda row: layer.inverse(row[None])[0][0], x)
    assert isinstance(result, Tensor)
    return result


def test_layers_copy_even_and_odd_features_in_turn():
    flow = build(RealNvpSpec(layers=3, hidden=[8], batch_norm=None), 5, seed=0).double()
    for index, layer in enumerate(flow.transform.parts()):
        assert isinstance(layer, Coupling)
        copied, moved = slice(index % 2, None, 2), slice(1 - index % 2, None, 2)
        jacobian = _jacobian(layer)
        assert torch.equal(jacobian[copied], torch.eye(5, dtype=torch.float64)[copied])
        block = jacobian[moved][:, moved]
        assert torch.equal(block, block.diag().diag())
        assert bool((jacobian[moved][:, copied] != 0).all())


def test_each_layer_has_a_batch_norm_on_its_noise_side():
    parts = build(RealNvpSpec(layers=2, hidden=[8]), 4, seed=0).transform.parts()
    assert [type(part) for part in parts] == [Coupling, BatchNorm, Coupling, BatchNorm]


def test_scale_networks_are_smooth_and_shift_networks_piecewise_linear():
    flow = build(RealNvpSpec(layers=1, hidden=[8], batch_norm=None), 2, seed=0).double()
    (layer,) = flow.transform.parts()
    x = torch.zeros(201, 2, dtype=torch.float64)
    x[:, 0] = torch.linspace(-3, 3, 201, dtype=torch.float64)
    with torch.no_grad():
        u, log_det = layer.inverse(x)
        shift = -u[:, 1] * torch.exp(-log_det)
    bends = shift.diff(n=2).abs() > 1e-12
    assert 1 <= int(bends.sum()) <= 16
    assert bool((log_det.diff(n=2).abs() > 1e-12).sum() > 150)
