"""Peer of the training measurement: nflows with the loop of its tutorials."""

import time

import torch
from nflows.distributions.normal import StandardNormal
from nflows.flows.base import Flow
from nflows.transforms.autoregressive import MaskedAffineAutoregressiveTransform
from nflows.transforms.base import CompositeTransform
from nflows.transforms.normalization import BatchNorm
from nflows.transforms.permutations import ReversePermutation
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset


def maf(dim: int, *, layers: int, hidden: int) -> Flow:
    """Return a MAF with one hidden layer per MADE and batch norm between the layers."""
    transforms = []
    for _ in range(layers):
        transforms.append(
            MaskedAffineAutoregressiveTransform(
                features=dim,
                hidden_features=hidden,
                num_blocks=0,
                use_residual_blocks=False,
                activation=torch.relu,
            )
        )
        transforms.append(BatchNorm(dim))
        transforms.append(ReversePermutation(dim))
    return Flow(CompositeTransform(transforms), StandardNormal([dim]))


def epoch_seconds(flow: Flow, train: Tensor, validation: Tensor, *, epochs: int) -> list[float]:
    """Train with DataLoader and Adam, batch 100; return seconds per epoch, validation included."""
    optimiser = torch.optim.Adam(flow.parameters(), lr=1e-4, weight_decay=1e-6)
    loader = DataLoader(TensorDataset(train), batch_size=100, shuffle=True)
    seconds = []
    for _ in range(epochs):
        started = time.perf_counter()
        flow.train()
        for (rows,) in loader:
            optimiser.zero_grad()
            loss = -flow.log_prob(rows).mean()
            loss.backward()
            optimiser.step()
        flow.eval()
        with torch.no_grad():
            flow.log_prob(validation).mean().item()
        seconds.append(time.perf_counter() - started)
    return seconds
