"""Flow that every peer serves: the one that the service stored."""

import os
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from flows import Flow, compile_flow
from models_store.files.blobs import Blobs
from models_store.files.checkpoints import load_model

BLOBS, KEY, SHA256, COMPILED = "BENCH_BLOBS", "BENCH_KEY", "BENCH_SHA256", "BENCH_COMPILED"


class Model(Protocol):
    """Interface of the flow that the peers call."""

    def log_prob(self, rows: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the log density of each row."""


class TorchModel:
    """Flow computed by PyTorch, as its author would serve it."""

    def __init__(self, flow: Flow) -> None:
        self._flow = flow.eval()

    def log_prob(self, rows: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the log density of each row."""
        with torch.inference_mode():
            return self._flow.log_prob(torch.from_numpy(rows)).numpy()


def load() -> Model:
    """Load the flow that the environment names."""
    torch.set_num_threads(1)
    blobs = Blobs.in_folder(Path(os.environ[BLOBS]))
    flow = load_model(blobs, os.environ[KEY], os.environ[SHA256])
    return compile_flow(flow) if COMPILED in os.environ else TorchModel(flow)
