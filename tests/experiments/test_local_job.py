"""Jobs in one process: those whose children are carried out here."""

import numpy as np
import pytest
import torch

from experiments import local_job
from experiments.local_job import run_job
from experiments.studies.detectors import log_prob
from workers.errors import TrainingError


def test_a_search_is_carried_out() -> None:
    threads = torch.get_num_threads()
    rows = np.random.default_rng(0).normal(size=(200, 2)).astype(np.float32)
    flow = {"family": "auto", "ensemble": 2}
    fields = {"flow": flow, "quality": "fast", "optimisation": {"seed": 0, "max_epochs": 3}}
    job = run_job(rows, fields)
    torch.set_num_threads(threads)
    assert np.isfinite(log_prob(job.flow, rows)).all()


def test_a_search_all_of_whose_trainings_fail_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    failed = 0

    def fail(_: object) -> None:
        nonlocal failed
        failed += 1
        raise TrainingError("diverged", "NaN")

    monkeypatch.setattr(local_job, "_carried_out", fail)
    rows = np.random.default_rng(0).normal(size=(200, 2)).astype(np.float32)
    with pytest.raises(RuntimeError, match="no training"):
        run_job(rows, {"flow": {"family": "auto"}, "quality": "fast"})
    assert failed > 1
