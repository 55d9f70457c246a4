"""The flow that every peer serves: the one that the service stored, compiled as the service does."""

import os
from pathlib import Path

import torch

from flows import CompiledFlow, compile_flow
from models_store.blobs import BlobStore
from models_store.checkpoints import load_model

BLOBS, KEY, SHA256 = "BENCH_BLOBS", "BENCH_KEY", "BENCH_SHA256"


def load() -> CompiledFlow:
    """Load what the environment names."""
    torch.set_num_threads(1)
    blobs = BlobStore(Path(os.environ[BLOBS]))
    return compile_flow(load_model(blobs, os.environ[KEY], os.environ[SHA256]))
