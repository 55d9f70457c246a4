"""Memory that jobs need of a worker, from what was accepted."""

import dataclasses

import pytest

from models_store.jobs.memory import search_memory, training_memory
from models_store.records import Dataset
from models_store.registry import Registry
from models_store.requests.accept_search import accept_auto
from models_store.requests.accept_training import HeldOut, accept_training
from models_store.requests.flow_limits import TrainingLimits
from models_store.requests.training import TrainingRequest
from tests.store.makers import a_dataset

MIB = 2**20
LIMITS = TrainingLimits(
    max_parameters=10**9, max_layers=256, max_memory_bytes=2**40, max_model_bytes=2**40
)


@pytest.fixture
def dataset(registry: Registry) -> Dataset:
    columns = [
        {
            "name": name,
            "dtype": "float64",
            "mean": 0.0,
            "std": 1.0,
            "min": -1.0,
            "max": 1.0,
            "distinct": 900,
        }
        for name in "abcd"
    ]
    return registry.add_dataset(a_dataset(rows=1000, columns=columns))


def needed(dataset: Dataset, *, rows: int = 1000, hidden: int = 16) -> float:
    """MiB of a training."""
    large = dataclasses.replace(dataset, rows=rows)
    flow = {"family": "maf", "layers": 2, "hidden": [hidden]}
    request = TrainingRequest.model_validate(
        {"model_name": "m", "dataset_id": dataset.id, "flow": flow}
    )
    accepted = accept_training(request, large, limits=LIMITS)
    return training_memory(accepted, [large]) / MIB


def test_memory_grows_with_the_flow_and_less_with_rows_that_may_stay_in_their_file(
    dataset: Dataset,
) -> None:
    small = needed(dataset)
    assert 320 < small < 368, "a process with PyTorch, and next to nothing"
    assert needed(dataset, hidden=4096) - small > 10 * 4 * (4096 * 12) / MIB
    million, hundred = needed(dataset, rows=10**6), needed(dataset, rows=10**8)
    assert million - small == pytest.approx(3 * 4 * 4e6 / MIB, rel=0.2)
    assert hundred < 3 * 4 * 4e8 / MIB / 1.5, "most of its rows stay in the file"
    assert hundred - 4 / 3 * small == pytest.approx(4 / 3 * 16e8 / MIB, rel=0.2)


def test_a_search_needs_what_its_largest_trial_needs(dataset: Dataset) -> None:
    request = TrainingRequest.model_validate(
        {"model_name": "m", "dataset_id": dataset.id, "flow": "auto"}
    )
    search = accept_auto(request, dataset, limits=LIMITS, held_out=HeldOut())
    first = request.model_copy(update={"flow": search.trials[0].flow})
    single = training_memory(accept_training(first, dataset, limits=LIMITS), [dataset])
    assert search_memory(search, [dataset]) >= single
