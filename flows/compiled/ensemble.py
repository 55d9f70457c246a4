"""Ensembles compiled for serving: each member is a compiled flow of its own."""

import numpy as np
import torch
from torch import Tensor

from flows.compiled.compiled_flow import Doubles, Rows
from flows.compiled.plain import CompiledConditionals
from flows.compiled.torch_flow import TorchFlow
from flows.conditionals import conditional_order
from flows.cost import NOISE_BLOCK_ROWS, fitting_rows
from flows.ensemble import Ensemble, choose_member, mix, mix_parts, own
from flows.errors import FlowError
from flows.flow import Flow, base_noise
from flows.specs.preprocessing import Space

_NO_NOISE = "an ensemble has no noise that its rows could be mapped to"


def compile_flow(
    flow: Flow, *, device: str | torch.device = "cpu", conditionals: bool = False
) -> TorchFlow:
    """Compile a flow for inference; the flow itself stays as it is.

    Masks are multiplied into the weights; all is computed in float32, but standardisation in float64.

    Args:
        flow: Trained flow, with the batch-norm statistics to be served.
        conditionals: True to keep what the densities of single columns need, where the flow has such.
    """
    chosen = torch.device(device)
    compiled: TorchFlow = (
        CompiledEnsemble(flow, flow.transform, device=chosen)
        if isinstance(flow.transform, Ensemble)
        else TorchFlow(flow, device=chosen)
    )
    compiled.conditional_order = conditional_order(flow)
    if conditionals and compiled.conditional_order is not None:
        compiled.conditionals = CompiledConditionals(flow)
        compiled.size_bytes += compiled.conditionals.size_bytes
    return compiled


class CompiledEnsemble(TorchFlow):
    """Mixture of compiled flows, with the interface of one."""

    def __init__(self, flow: Flow, ensemble: Ensemble, *, device: torch.device) -> None:
        self._members = [
            TorchFlow(
                Flow(
                    own(member),
                    flow.preprocessing,
                    context=flow.context,
                    row_bytes=flow.row_bytes,
                    operations=flow.operations,
                ),
                device=device,
            )
            for member in ensemble.members
        ]
        first = self._members[0]
        self._weights = ensemble.weights.detach().cpu().double()
        self.dim, self.model_dim = first.dim, first.model_dim
        self.context_dim, self.has_noise, self.has_parts = first.context_dim, False, first.has_parts
        self.decoder = None
        self.row_bytes, self.operations = flow.row_bytes, flow.operations
        self.size_bytes = sum(member.size_bytes for member in self._members)
        self._space = first._space
        self._set_companion(flow)
        self._chunk_rows = min(member._chunk_rows for member in self._members)
        most = max(member._sample_rows for member in self._members)
        self._sample_rows = fitting_rows(most, flow.row_bytes, multiple=NOISE_BLOCK_ROWS)

    def log_prob(self, x: Rows, *, space: Space = "data") -> Doubles:
        scores = np.stack([member.log_prob(x, space=space) for member in self._members])
        return mix(torch.from_numpy(scores), self._weights).numpy()

    def log_prob_parts(self, x: Rows, *, space: Space = "data") -> Doubles:
        if not self.has_parts:
            return super().log_prob_parts(x, space=space)
        parts = np.stack([member.log_prob_parts(x, space=space) for member in self._members])
        return mix_parts(torch.from_numpy(parts), self._weights).numpy()

    def inverse(self, x: Rows, *, space: Space = "data") -> tuple[Doubles, Doubles]:
        raise FlowError(_NO_NOISE)

    def forward(self, u: Rows, *, space: Space = "data") -> tuple[Doubles, Doubles]:
        width = self.model_dim
        noise = torch.from_numpy(np.array(u[:, :width], np.float64))
        chosen, left = choose_member(noise, self._weights)
        rows = np.empty((len(u), self._space.width(space)))
        log_dets = np.empty(len(u))
        for number, member in enumerate(self._members):
            places = np.flatnonzero(chosen.numpy() == number)
            if len(places):
                given = np.concatenate([left.numpy()[places], u[places, width:]], axis=1)
                rows[places], log_dets[places] = member.forward(given, space=space)
        return rows, log_dets

    def _draw(
        self, n: int, generator: torch.Generator, context: Rows | None, space: Space
    ) -> Doubles:
        u = base_noise(n, self.model_dim, generator=generator).numpy()
        if context is not None:
            given = np.broadcast_to(np.asarray(context, np.float64), (n, self.context_dim))
            u = np.concatenate([u.astype(np.float64), given], axis=1)
        rows, _ = self.forward(u, space=space)
        if space == "model":
            return rows
        return self._space.preprocessing.to_grid(torch.from_numpy(rows)).numpy()

    def _score_model(self, rows: Tensor, *, context: Doubles) -> Tensor:
        scores = [member._score_model(rows, context=context) for member in self._members]
        return mix(torch.stack(scores), self._weights)
