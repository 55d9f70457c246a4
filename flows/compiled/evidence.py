"""Evidence of rows under a generative model with latent variables, by samples of its posterior."""

import math

import numpy as np
import torch

from flows.bijections.base import standard_normal
from flows.compiled.compiled_flow import CompiledFlow, Doubles, Rows
from flows.cost import fitting_rows
from flows.errors import FlowError
from flows.flow import base_noise
from flows.latent import Decoder

_PART_ROWS = 64  # samples computed at a time: a tile of the compiled loops


def row_evidence(
    flow: CompiledFlow, x: Rows, *, samples: int, seed: int
) -> tuple[Doubles, Doubles]:
    """Return the ELBO and the importance-weighted bound of log p(x) of each row, in nats.

    With weights w_k = p(x, z_k) / q(z_k | x) of samples z_k of the flow, the ELBO is the mean of
    log w_k, and the bound log mean w_k, which is at least as tight and grows with the number of
    samples towards log p(x) (Burda et al. 2016, equation 8). All rows share the noise of the seed,
    so that a row's numbers do not depend on the rows beside it.

    Args:
        flow: Compiled flow with a decoder.
        x: Rows of data, the context of the flow.
        seed: Seed of the noise, from 0 to 2^63 - 1.

    Raises:
        FlowError: The flow has no decoder.
    """
    if flow.decoder is None:
        raise FlowError("this model has no generative model of the rows")
    generator = torch.Generator().manual_seed(seed)
    u = base_noise(samples, flow.model_dim, generator=generator).double()
    log_base = standard_normal(u).numpy()
    step = fitting_rows(_PART_ROWS, flow.row_bytes)
    log_weights = np.empty(samples)
    results = np.empty((len(x), 2))
    for number, row in enumerate(np.asarray(x, np.float64)):
        for start in range(0, samples, step):
            part = slice(start, min(start + step, samples))
            given = np.broadcast_to(row, (part.stop - start, len(row)))
            z, log_det = flow.forward(np.hstack([u.numpy()[part], given]))
            log_weights[part] = _log_joint(flow.decoder, z, row) - log_base[part] + log_det
        results[number] = log_weights.mean(), _log_mean(log_weights)
    return results[:, 0], results[:, 1]


@torch.inference_mode()
def _log_joint(decoder: Decoder, z: Doubles, row: Doubles) -> Doubles:
    return decoder.log_joint(torch.from_numpy(z), torch.tensor(row[None])).numpy()


def _log_mean(log_weights: Doubles) -> float:
    """Return the logarithm of the mean of weights."""
    largest = float(log_weights.max())
    if not math.isfinite(largest):
        return largest
    return largest + math.log(np.exp(log_weights - largest).mean())
