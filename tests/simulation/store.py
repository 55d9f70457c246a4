"""The blob store's folders in memory, and what may go wrong at each write below the real store."""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable
from functools import cache, lru_cache
from math import ceil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import models_store.files.local_blobs
import models_store.files.stores
import workers.heartbeat
from flows import FitState
from models_store.files.blobs import StoredBlob, imported_key, table_key
from models_store.files.local_blobs import LocalBlobs
from models_store.records import Dataset, NewDataset
from models_store.requests.accept_training import accept_training
from models_store.requests.bulk import AcceptedSampling
from models_store.requests.flow_limits import TrainingLimits
from models_store.requests.search import AcceptedSearch, Stage
from models_store.requests.training import AcceptedTraining, TrainingRequest, Trial
from tests.models_store.makers import PROJECT, a_dataset, a_version
from tests.simulation.plan import JobPlan

_MEMORY = Path("/dev/shm")  # noqa: S108 - a folder of our own below it
DATASETS = 2
_PARTS = 3
PROJECTS = (PROJECT, f"{PROJECT}-other")
"""Projects of the datasets, and so of the jobs, in turn."""
_LIMITS = TrainingLimits(
    max_parameters=10**9, max_layers=256, max_memory_bytes=2**40, max_model_bytes=2**40
)


class Store:
    """One folder with the service's files, and an empty one: a store that is not mounted."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(dir=_MEMORY if _MEMORY.is_dir() else None)
        self.data_dir = Path(self._folder.name)
        self.blobs = LocalBlobs(self.data_dir / "blobs")
        self.elsewhere = self.data_dir / "elsewhere"
        self.datasets = [self._dataset(number) for number in range(DATASETS)]
        self._trainings = [self._training(dataset) for dataset in self.datasets]
        self._searches = [_search(training) for training in self._trainings]
        stored = save_json(self.blobs, imported_key(), "a model")
        self.model = a_version(
            SimpleNamespace(id="", attempt=0, dataset_id=None),  # type: ignore[arg-type]  # none made it
            checkpoint_key=stored.key,
            checkpoint_sha256=stored.sha256,
            checkpoint_bytes=stored.bytes,
        )

    def reset(self) -> None:
        """Leave the datasets alone."""
        for name in ("jobs", "results", "staging"):
            shutil.rmtree(self.blobs.root / name, ignore_errors=True)
        for folder in (self.blobs.root / "models").glob("job_*"):
            shutil.rmtree(folder)
        shutil.rmtree(self.elsewhere, ignore_errors=True)
        self.elsewhere.mkdir()

    def close(self) -> None:
        """Remove everything."""
        self._folder.cleanup()

    def request(self, plan: JobPlan, dataset: int) -> dict[str, Any]:
        """An accepted request, as a job's row holds it."""
        if plan.samples:
            n = plan.epochs * plan.batches
            accepted = AcceptedSampling(model="base:1", n=n, seed=1, output="npy", context=None)
            if plan.splits:
                parts = {"total_rows": n, "part_rows": ceil(n / _PARTS)}
                accepted = accepted.model_copy(update=parts)
            return accepted.model_dump(mode="json")
        return (self._searches if plan.searches else self._trainings)[dataset]

    def _training(self, dataset: NewDataset) -> dict[str, Any]:
        asked = TrainingRequest.model_validate(
            {
                "model_name": "m",
                "dataset_id": dataset.id,
                "flow": {"family": "realnvp", "layers": 2, "hidden": [8]},
                "preprocessing": {"dequantise": None},
                "optimisation": {"seed": 1},
            }
        )
        values = vars(dataset) | {"created_at": None}
        accepted = accept_training(asked, Dataset(**values), limits=_LIMITS)
        return accepted.model_dump(mode="json")

    def _dataset(self, number: int) -> NewDataset:
        dataset_id = f"ds_{number:032x}"
        with self.blobs.staged(".npy") as staged:
            np.save(staged, np.zeros((3, 2), np.float32))
            stored = self.blobs.commit(staged, table_key(dataset_id))
        column = {"dtype": "float32", "mean": 0.0, "std": 1.0, "min": -1.0, "max": 1.0}
        return a_dataset(
            id=dataset_id,
            project=PROJECTS[number % len(PROJECTS)],
            rows=100,
            dtype="float32",
            columns=[column | {"name": name, "distinct": 100} for name in "ab"],
            key=stored.key,
            sha256=stored.sha256,
            bytes=stored.bytes,
        )


def _search(training: dict[str, Any]) -> dict[str, Any]:
    """A search over three trials, of which the best is trained to its end."""
    accepted = AcceptedTraining.model_validate(training)
    trial = Trial(flow=accepted.flow, optimisation=accepted.optimisation)
    search = AcceptedSearch(
        **accepted.table_fields(),
        trials=[trial] * 3,
        stages=[Stage(trials=3, share=0.5), Stage(trials=1, share=1)],
        ensemble=1,
    )
    return search.model_dump(mode="json")


def patch_files(patch: pytest.MonkeyPatch, around: Callable[[str, Callable[[], Any]], Any]) -> None:
    """Have every durable write of the real store go through `around(folder, write)`."""
    hash_and_sync = models_store.files.local_blobs._hash_and_sync
    patch.setattr(
        models_store.files.local_blobs,
        "_hash_and_sync",
        lambda path, key: around(key.partition("/")[0], lambda: hash_and_sync(path, key)),
    )
    # What a power cut does to a file that was not synced is another test's; this is memory.
    patch.setattr(models_store.files.local_blobs, "_sync_folder", lambda _folder: None)
    patch.setattr(models_store.files.local_blobs, "os", _NoSync())
    patch.setattr(models_store.files.stores, "LocalBlobs", _opened)
    # A file that only people and probes read.
    patch.setattr(workers.heartbeat.Heartbeat, "beat", lambda *_, **__: None)


_opened = cache(LocalBlobs)


class _NoSync:
    """`os` without what costs time on a disk only."""

    def __getattr__(self, name: str) -> object:
        return getattr(os, name)

    def fsync(self, _handle: int) -> None:
        """Nothing to do in memory."""


def save_state(blobs: LocalBlobs, key: str, state: FitState) -> StoredBlob:
    """`models_store.files.checkpoints.save_state` for a state without tensors."""
    return save_json(blobs, key, state.meta)


def load_state(blobs: LocalBlobs, key: str, sha256: str) -> FitState:
    """`models_store.files.checkpoints.load_state` for a state without tensors."""
    return FitState(tensors={}, meta=json.loads(blobs.verify(key, sha256).read_bytes()))


def save_json(blobs: LocalBlobs, key: str, value: object) -> StoredBlob:
    """Store something small."""
    with blobs.staged() as path:
        path.write_bytes(json.dumps(value).encode())
        return blobs.commit(path, key)


def readable(blobs: LocalBlobs, key: str, sha256: str) -> bool:
    """Whether a file is there and holds what was stored."""
    path = f"{blobs.name}/{key}"
    try:
        found = os.stat(path)  # noqa: PTH116 - at every commit
    except FileNotFoundError:
        return False
    return _sha256(path, found.st_ino, found.st_mtime_ns, found.st_size) == sha256


@lru_cache(maxsize=1000)
def _sha256(path: str, *_state: int) -> str:
    """The hash of a file, once for each state that it is in."""
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()
