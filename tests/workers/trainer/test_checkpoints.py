"""Checkpoints of an attempt: in a store that is away, and of another version of the code."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from flows import FitState
from models_store.errors import BlobDiskError
from models_store.files.blobs import Blobs
from models_store.files.checkpoints import load_state, save_state
from tests.workers.place import Place
from tests.workers.trainer.tasks import epochs, result, run, task_of
from workers.protocol import CheckpointRef, EpochDone, Message, Note
from workers.trainer.checkpoints import Checkpoints
from workers.trainer.progress import Teller


class AwayBucket(Blobs):
    """A store that counts as remote, and is away at times."""

    away = False

    @contextmanager
    def staged(self, suffix: str = "") -> Iterator[Path]:
        if self.away:
            raise BlobDiskError("bucket", "is away")
        with super().staged(suffix) as path:
            self.is_remote = False
            yield path
            self.is_remote = True


def test_a_bucket_that_is_away_costs_a_checkpoint_only(place: Place) -> None:
    bucket, sent = AwayBucket.in_folder(place.blobs.root), list[Message]()
    task = task_of(place, place.add_dataset())
    checkpoints = Checkpoints(task, bucket, Teller(task, sent.append, bool), unit="epoch")
    state = FitState(
        {"weight": torch.ones(1)}, {"batches": 1, "progress": {"epoch": 2, "batches": 0}}
    )
    bucket.away = bucket.is_remote = True
    checkpoints.report(lambda: state)
    bucket.away = False
    checkpoints.report(lambda: state)
    assert [type(message) for message in sent] == [Note, EpochDone, EpochDone]
    assert [told.checkpoint and told.checkpoint.epoch for told in epochs(sent)] == [None, 2]


def without_best(state: FitState) -> FitState:
    """The state of an evaluation, as a former version stored one."""
    tensors = {key: value for key, value in state.tensors.items() if key.startswith("flow/")}
    return FitState(tensors, {**state.meta, "finished": {}})


def with_moments(state: FitState) -> FitState:
    """The state of another optimiser."""
    moments = {key: torch.zeros(7) for key in state.tensors if key.endswith("exp_avg")}
    return FitState(state.tensors | moments, state.meta)


OTHERS: dict[str, Callable[[FitState], FitState]] = {
    "flow": lambda state: FitState(state.tensors | {"flow/added": torch.zeros(1)}, state.meta),
    "shape": lambda state: FitState(
        {key: value[None] if value.dim() == 2 else value for key, value in state.tensors.items()},
        state.meta,
    ),
    "optimiser": with_moments,
    "group": lambda state: FitState(state.tensors | {"momenta/0": torch.zeros(1)}, state.meta),
    "options": lambda state: FitState(state.tensors, {**state.meta, "seed": 12345}),
    "progress": lambda state: FitState(
        state.tensors, {**state.meta, "progress": {"epoch": 2, "batches": 0, "seconds": 1.0}}
    ),
    "no progress": lambda state: FitState(state.tensors, {**state.meta, "progress": {}}),
    "evaluation": without_best,
}


@pytest.mark.parametrize("other", OTHERS)
def test_a_checkpoint_of_another_version_of_the_code_means_from_the_beginning(
    place: Place, other: str
) -> None:
    dataset = place.add_dataset()
    whole = run(task_of(place, dataset))
    at = epochs(whole)[1].checkpoint
    assert at is not None
    state = OTHERS[other](load_state(place.blobs, at.key, at.sha256))
    stored = save_state(place.blobs, "jobs/old/1-2.safetensors", state)
    old = CheckpointRef(key=stored.key, sha256=stored.sha256, epoch=2, step=20)

    again = run(task_of(place, dataset, attempt=2, checkpoints=[old]))

    notes = [message.text for message in again if isinstance(message, Note)]
    assert len(notes) == 1
    assert "epoch 2" in notes[0]
    assert "from the beginning" in notes[0]
    assert epochs(again)[0].metrics["epoch"] == 1
    assert result(again).version["checkpoint_sha256"] == result(whole).version["checkpoint_sha256"]
