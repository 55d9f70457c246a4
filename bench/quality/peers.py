"""Peers of the measurement of tables: SDV's synthesizers with their defaults, on one core."""

import os
import time
import warnings
from dataclasses import dataclass

import pandas as pd

SYNTHESIZERS = {
    "GaussianCopula": "GaussianCopulaSynthesizer",
    "CTGAN": "CTGANSynthesizer",
    "TVAE": "TVAESynthesizer",
}
_TABLE = "table"


@dataclass(frozen=True)
class Drawn:
    """Samples, and the seconds that fitting and sampling took."""

    samples: pd.DataFrame
    fit_s: float
    sample_s: float


def fit_and_sample(name: str, train: pd.DataFrame, count: int, seed: int) -> Drawn:
    """Fit a synthesizer to a table whose column types SDV detects, and sample from it."""
    os.environ["OMP_NUM_THREADS"] = "1"
    import numpy as np  # noqa: PLC0415 - after the number of threads
    import torch  # noqa: PLC0415
    from sdv import single_table  # noqa: PLC0415
    from sdv.metadata import Metadata  # noqa: PLC0415

    warnings.filterwarnings("ignore", module="sdv|rdt|copulas|ctgan")
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    np.random.seed(seed)  # noqa: NPY002 - SDV draws from the global generator
    tables = {_TABLE: train}
    synthesizer = getattr(single_table, SYNTHESIZERS[name])(Metadata.detect_from_dataframes(tables))
    began = time.perf_counter()
    synthesizer.fit(tables)
    fitted = time.perf_counter()
    samples = synthesizer.sample(count)
    return Drawn(samples[_TABLE], fitted - began, time.perf_counter() - fitted)
