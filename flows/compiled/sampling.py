"""Samples of trained flows whose values have the shares that they have in training rows."""

from collections.abc import Callable

import torch
from torch import Tensor

from flows.compiled.ensemble import compile_flow
from flows.flow import Flow
from flows.mixed.building import sample_rows

# Rows that are drawn, and cells of all of them.
_DRAWN_ROWS, _DRAWN_CELLS, _CHUNK_ROWS = 10_000, 2**20, 1024


def calibrate_samples(
    flow: Flow, train: Tensor, *, seed: int, alive: Callable[[], None] = lambda: None
) -> None:
    """Fit the maps that take the noise of training off samples to what a trained flow draws, in place.

    Densities do not change: they are those of values with noise.

    Args:
        flow: Trained flow.
        train: Rows that it was trained on, in the data's units, in random order: features, then a context.
        seed: Seed of the samples.
        alive: Function that is called now and then.
    """
    outer = flow.preprocessing
    if outer.denoise is None:
        return
    count = max(1, min(_DRAWN_ROWS, _DRAWN_CELLS // flow.dim))
    context = train[torch.arange(count) % len(train), flow.dim :].cpu().numpy()
    compiled, drawn = compile_flow(flow, device=flow.device), []
    for chunk in compiled.iter_sample(
        count,
        seed=seed,
        chunk_rows=_CHUNK_ROWS,
        context=context if flow.context_dim else None,
        space="model",
    ):
        drawn.append(outer.forward(torch.from_numpy(chunk).to(flow.device))[0])
        alive()
    rows = sample_rows(train)[:, : flow.dim].to(flow.device)
    outer.calibrate(rows, torch.cat(drawn))
