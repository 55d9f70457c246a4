"""Tasks of trainers, run as plain calls, and what they report."""

from collections.abc import Callable
from typing import Any

from models_store.files.store_address import StoreAddress
from models_store.records import Dataset
from models_store.requests.accept_training import accept_training
from models_store.requests.training import AcceptedSplit, TrainingRequest
from tests.jobs.workers.place import FLOW, LIMITS, Place
from workers.protocol import DatasetRef, EpochDone, Message, Trained, TrainingTask
from workers.trainer.training import train

EPOCHS = 4


def ref(dataset: Dataset) -> DatasetRef:
    types = [column.to_dict() for column in dataset.column_types]
    return DatasetRef(id=dataset.id, key=dataset.key, sha256=dataset.sha256, types=types)


def attempt_fields(place: Place) -> dict[str, Any]:
    """Fields that tasks of all kinds share, for a first attempt on the CPU."""
    return {
        "job_id": "job_" + "1" * 32,
        "attempt": 1,
        "request_id": None,
        "log_level": "INFO",
        "store": StoreAddress(url=str(place.blobs.root)),
        "checkpoints": [],
        "device": "cpu",
        "threads": 1,
        "nice": 0,
        "memory_bytes": None,
        "checkpoint_interval_s": 0.0,
        "long_epoch_s": 600,
    }


def task_of(place: Place, dataset: Dataset, **changes: Any) -> TrainingTask:
    fields: dict[str, Any] = {
        "model_name": "m",
        "dataset_id": dataset.id,
        "flow": FLOW,
        "optimisation": {"seed": 1, "max_epochs": EPOCHS, "patience": EPOCHS, "batch_size": 50},
    } | changes.pop("request", {})
    accepted = accept_training(TrainingRequest.model_validate(fields), dataset, limits=LIMITS)
    return TrainingTask(
        **attempt_fields(place),
        request=accepted.model_dump(mode="json"),
        dataset=ref(dataset),
        validation_dataset=None,
        test_dataset=None,
    ).model_copy(update=changes)


def run(task: TrainingTask, interrupted: Callable[[], bool] = lambda: False) -> list[Message]:
    messages: list[Message] = []
    train(task, messages.append, interrupted=interrupted)
    return messages


def result(messages: list[Message]) -> Trained:
    last = messages[-1]
    assert isinstance(last, Trained), last
    return last


def epochs(messages: list[Message]) -> list[EpochDone]:
    return [message for message in messages if isinstance(message, EpochDone)]


def split_of(**changes: Any) -> AcceptedSplit:
    fields: dict[str, Any] = {
        "train": 0.8,
        "validation": 0.1,
        "test": 0.1,
        "shuffle": True,
        "seed": 0,
        "validation_dataset_id": None,
        "test_dataset_id": None,
    }
    return AcceptedSplit(**fields | changes)
