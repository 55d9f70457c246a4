"""Bytes that a job may come to store, counted in the quota from its submission to its end.

Each is an upper bound: what a job stores in the end, which counts from then on, is less.
"""

from collections.abc import Sequence
from math import ceil

from flows import FlowSpec, count_parameters
from models_store.database.usage import EVENT_BYTES
from models_store.plans.search import trial_training
from models_store.records import Dataset, Version
from models_store.requests.bulk import AcceptedBulk, AcceptedSampling, AcceptedScoring
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
from tabular.formats import Output
from tabular.typed_rows import longest_texts

# The row of a job, some messages, and the rows of files: headers, names of tensors.
_BASE_BYTES = 256 * 1024
_REPORT_BYTES = EVENT_BYTES + 768
# float32, and the mask that a masked weight has beside it
_BYTES_A_WEIGHT = 8
# Weights now and at the best epoch, their average, and two moments of the optimiser.
_WEIGHTS_IN_A_STATE = 5
# The newest two, and the one that is being written.
_STATES = 3
_BYTES_A_NUMBER: dict[Output, int] = {"npy": 8, "parquet": 9, "csv": 26}
_BYTES_A_PART_NUMBER = 8
# A name stands in the schema and in the footer; a column also has statistics in each row group.
_NAME_COPIES, _COLUMN_BYTES = 3, 256
_GROUP_NUMBERS = 1_000_000
# Text to its compressed size, where the former was not recorded.
_PACKING = 20


def training_reservation(accepted: AcceptedTraining, *, rows: int) -> int:
    """Return the bytes of a training's checkpoints, events and model.

    Args:
        accepted: Accepted request.
        rows: Number of rows of all its tables.
    """
    names = [*accepted.columns, *accepted.context_columns]
    files = _files(accepted.flow, len(accepted.columns), len(accepted.context_columns))
    reports = accepted.optimisation.max_epochs * _REPORT_BYTES
    return files + _scores(rows) + _text(names) + reports


def search_reservation(accepted: AcceptedSearch, *, rows: int) -> int:
    """Return the bytes of all trainings of a search, of their requests, and of an ensemble.

    Args:
        accepted: Accepted request.
        rows: Number of rows of all its tables.
    """
    most = [stage.trials for stage in accepted.stages]
    search = accepted.model_dump(mode="json")
    epochs = [trial.optimisation.max_epochs for trial in accepted.trials]
    requests = [
        trial_training(search, number, max_epochs=most, max_seconds=None)
        for number, most in enumerate(epochs)
    ]
    whole = [AcceptedTraining.model_validate(request) for request in requests]
    sizes = [training_reservation(one, rows=rows) + 2 * len(one.model_dump_json()) for one in whole]
    sizes.sort(reverse=True)
    trained = sum(sum(sizes[:count]) for count in most)
    return trained + sum(sizes[: accepted.ensemble])


def variational_reservation(accepted: AcceptedVariational) -> int:
    """Return the bytes of a variational job's checkpoints, events and model."""
    choices = accepted.optimisation
    reports = ceil(choices.iterations / choices.report_every)
    dim, names = dimensions_of(accepted.target)
    files = _files(accepted.flow, dim, context_of(accepted.target))
    return files + _text(names) + reports * _REPORT_BYTES


def scoring_reservation(accepted: AcceptedScoring, dataset: Dataset) -> int:
    """Return the bytes of a scoring's parts and file."""
    beside = [column.name for column in dataset.column_types] if accepted.include_rows else []
    names = ["log_prob", "quantile", *(["discrete", "continuous"] if accepted.parts else [])]
    if accepted.explain:
        names += [f"explanation.{name}" for name in accepted.columns]
    computed = len(names)
    if accepted.explain:
        names += [f"difference.{name}" for name in accepted.columns]
    texts = longest_texts(dataset.column_types) if accepted.include_rows else 0
    table = [*beside, *names]
    numbers = _table(accepted.output, dataset.rows, table, computed=computed, texts=texts)
    numbers += _children(accepted)
    return numbers + (_kept_text(dataset, accepted.output) if accepted.include_rows else 0)


def _kept_text(dataset: Dataset, output: Output) -> int:
    """Return the bytes of the texts of a dataset, as a file has them; npy has none."""
    if dataset.cells is None or output == "npy":
        return 0
    size: int = dataset.cells.get("text_bytes", _PACKING * dataset.cells["bytes"])
    # Each quotation mark is doubled in CSV.
    return 2 * size if output == "csv" else size


def sampling_reservation(accepted: AcceptedSampling, version: Version) -> int:
    """Return the bytes of a sampling's parts and file."""
    texts = longest_texts(version.column_types[: version.dim])
    names = version.columns
    table = _table(accepted.output, accepted.n, names, computed=version.dim, texts=texts)
    return table + _children(accepted)


def _children(accepted: AcceptedBulk) -> int:
    """Return the bytes of the rows and requests of the children of a job; 0 if it has none."""
    if accepted.part_rows is None or accepted.total_rows is None:
        return 0
    count = 1 + ceil(accepted.total_rows / accepted.part_rows)
    return count * (_BASE_BYTES + 2 * len(accepted.model_dump_json()))


def _files(flow: FlowSpec, dim: int, context_dim: int) -> int:
    model = _BYTES_A_WEIGHT * count_parameters(flow, dim, context_dim)
    return _BASE_BYTES + (1 + _STATES * _WEIGHTS_IN_A_STATE) * model


def _scores(rows: int) -> int:
    """Return the bytes of the scores in the states of an evaluation, of a part of the rows at a time."""
    return _STATES * _BYTES_A_PART_NUMBER * rows


def _table(
    output: Output, rows: int, names: Sequence[str], *, computed: int, texts: int = 0
) -> int:
    """Return the bytes of the parts and the file of a table.

    Args:
        output: Format of the file.
        rows: Number of rows.
        names: Names of the columns.
        computed: Number of columns that the parts hold.
        texts: Most bytes of the texts of a row: levels may be as long as the largest list of them.
    """
    parts = rows * computed * _BYTES_A_PART_NUMBER
    numbers = rows * len(names)
    groups = 1 + numbers // _GROUP_NUMBERS
    heads = _text(names) + groups * len(names) * _COLUMN_BYTES
    # npy holds numbers alone; in CSV each quotation mark is doubled.
    copies = {"npy": 0, "parquet": 1, "csv": 2}[output]
    written = numbers * _BYTES_A_NUMBER[output] + copies * rows * texts
    return _BASE_BYTES + parts + written + heads


def _text(names: Sequence[str]) -> int:
    return _NAME_COPIES * sum(len(name.encode()) for name in names)


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
