"""Time that accepted trainings take, before they start: a rule of their flow and rows, and the pace of this machine.

The rule was fitted to default trainings of 19 tables of 240 to 23,000 rows on one core. `JobRow.estimate_s` keeps what
it says of a job; how long such jobs took tells by how much this machine, with its load, is slower or faster.
"""

from collections.abc import Sequence
from math import ceil, sqrt

from flows import GaussianMixtureSpec, MixedSpec, flow_cost
from models_store.plans.search import trial_training
from models_store.records import Dataset
from models_store.requests.search import AcceptedSearch
from models_store.requests.training import AcceptedTraining

_START_S = 1.1  # of a process, and of the summary
_CELL_S, _LAST_ROWS = 4e-5, 20_000  # of what follows the training, on so many rows at most
_EPOCH_S = 3e-3  # beside its steps
_STEP_S = 3.5e-4  # beside its rows
_BYTE_S = 3e-10  # of what a step keeps of its rows
_PAIR_S = 2.8e-10  # of two levels of a row: each is predicted by all before it
_OF_PLAIN_ROWS = 0.6  # time of rows of numbers alone, of that of mixed ones
_COMPILED = ("made", "maf", "naf", "nsf", "realnvp")  # the others are trained by autograd
_OPERATION_S, _BYTE_OF_AUTOGRAD_S = 1e-6, 2e-9
_ITERATION_S, _CELL_OF_ITERATION_S = 2.3e-3, 2e-8  # of expectation maximisation


def training_s(accepted: AcceptedTraining, datasets: Sequence[Dataset]) -> float:
    """Return about how long a core trains a flow, early stopping included, in seconds.

    Args:
        datasets: Dataset of the training, and those that are held out.
    """
    options, flow = accepted.optimisation, accepted.flow
    rows = max(1, int(datasets[0].rows * accepted.split.train))
    steps = ceil(rows / options.batch_size)
    epoch_s = _EPOCH_S + steps * _step_s(accepted)
    if isinstance(flow, GaussianMixtureSpec):
        epoch_s = _ITERATION_S + _CELL_OF_ITERATION_S * rows * len(accepted.columns)
    elif not isinstance(flow, MixedSpec):
        epoch_s *= _OF_PLAIN_ROWS
    # Between the patience after an early best epoch, and all epochs.
    patience = options.patience or options.max_epochs
    epochs = sqrt(min(2 * patience, options.max_epochs) * options.max_epochs)
    training = epochs * epoch_s
    last = _CELL_S * min(rows, _LAST_ROWS) * len(accepted.columns)
    return _START_S + last + min(training, options.max_seconds or training)


def _step_s(accepted: AcceptedTraining) -> float:
    flow, batch = accepted.flow, accepted.optimisation.batch_size
    way = flow_cost(flow, len(accepted.columns), len(accepted.context_columns)).density
    kept, levels, inner = batch * way.kept_row, 0, flow
    if isinstance(flow, MixedSpec):
        levels = sum(one.size for one in flow.layout(len(accepted.columns)).variables)
        inner = flow.flow or flow
    if inner.family not in (*_COMPILED, "mixed"):
        return way.operations * _OPERATION_S + kept * _BYTE_OF_AUTOGRAD_S
    return _STEP_S + kept * _BYTE_S + batch * levels**2 * _PAIR_S


def search_s(accepted: AcceptedSearch, datasets: Sequence[Dataset]) -> float:
    """Return about how long a core trains all trials of a search, in seconds."""
    search = accepted.model_dump(mode="json")
    trainings = [
        AcceptedTraining.model_validate(
            trial_training(
                search, number, max_epochs=trial.optimisation.max_epochs, max_seconds=None
            )
        )
        for number, trial in enumerate(accepted.trials)
    ]
    mean = sum(training_s(one, datasets) for one in trainings) / len(trainings)
    whole = mean * sum(stage.trials * stage.share for stage in accepted.stages)
    return min(whole, accepted.max_seconds or whole)
