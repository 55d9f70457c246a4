"""Memory that accepted jobs need, so that no worker takes one that cannot fit into its own."""

from collections.abc import Sequence
from math import ceil

from flows import flow_cost, spec_from_dict
from models_store.plans.search import trial_training
from models_store.records import Dataset, Version
from models_store.requests.accept_training import (
    EVALUATED_ROWS,
    mapped_bytes,
    resident_bytes,
    row_width,
    start_bytes,
    training_bytes,
)
from models_store.requests.accept_variational import bytes_per_sample, target_bytes
from models_store.requests.search import AcceptedSearch
from models_store.requests.training import AcceptedTraining
from models_store.requests.variational import (
    AcceptedVariational,
    DensityTarget,
    LatentTarget,
    PosteriorTarget,
    PotentialTarget,
    Target,
)

# PyTorch, the compiled loops and the rest of a trainer: 326 MB of data before the job begins.
_PROCESS_BYTES = 320 * 2**20
# Rows that take more than a quarter of a trainer's memory stay in their file.
_SHARE_OF_ROWS = 0.25


def training_memory(accepted: AcceptedTraining, datasets: Sequence[Dataset]) -> int:
    """Return the least memory of a trainer that fits a flow, in bytes.

    Args:
        datasets: Dataset of the training, and those that are held out.
    """
    dim, context_dim = len(accepted.columns), len(accepted.context_columns)
    rows = sum(dataset.rows for dataset in datasets)
    width = row_width(accepted.flow, dim + context_dim)
    cost = flow_cost(accepted.flow, dim, context_dim)
    own = training_bytes(cost, batch_size=accepted.optimisation.batch_size)
    own += _PROCESS_BYTES + start_bytes(accepted.flow, rows, dim + context_dim)
    mapped = ceil((own + mapped_bytes(rows)) / (1 - _SHARE_OF_ROWS))
    return min(own + resident_bytes(rows, width), mapped)


def search_memory(accepted: AcceptedSearch, datasets: Sequence[Dataset]) -> int:
    """Return the least memory of a trainer for any trial of a search, in bytes."""
    search = accepted.model_dump(mode="json")
    trials = [
        trial_training(search, number, max_epochs=1, max_seconds=None)
        for number in range(len(accepted.trials))
    ]
    trainings = map(AcceptedTraining.model_validate, trials)
    return max(training_memory(one, datasets) for one in trainings)


def variational_memory(accepted: AcceptedVariational, dataset: Dataset | None) -> int:
    """Return the least memory of a trainer that fits a flow to a target, in bytes."""
    (dim, _), batch = dimensions_of(accepted.target), accepted.optimisation.batch_size
    cost = flow_cost(accepted.flow, dim, context_of(accepted.target))
    own = training_bytes(cost, batch_size=batch, sampling=True)
    own += batch * bytes_per_sample(accepted.target, dim)
    return _PROCESS_BYTES + own + target_bytes(accepted.target, dim, dataset, samples=batch)


def bulk_memory(version: Version) -> int:
    """Return the least memory of a trainer that computes with a version, in bytes."""
    cost = flow_cost(spec_from_dict(version.flow), version.dim, len(version.context_columns))
    return _PROCESS_BYTES + cost.load_bytes + cost.score_bytes(EVALUATED_ROWS)


def dimensions_of(target: Target) -> tuple[int, Sequence[str]]:
    """Return the number of dimensions of a target, and the names of its columns."""
    match target:
        case PotentialTarget():
            return 2, ()
        case DensityTarget():
            return target.dim, ()
        case PosteriorTarget(posterior=posterior):
            columns = posterior.columns or []
            return 1 + len(columns), columns
        case LatentTarget(latent=latent):
            return latent.latents, latent.columns or []


def context_of(target: Target) -> int:
    """Return the number of columns that the density of a target is conditioned on."""
    return len(target.latent.columns or []) if isinstance(target, LatentTarget) else 0
