"""Time that accepted trainings take, before they start: a rule of their flow and rows, and the pace of this machine.

The rule was fitted to default trainings of tables of 150 to 20,000 rows on one core. `JobRow.estimate_s` keeps what it
says of a job; how long such jobs took tells by how much this machine, with its load, is slower or faster.
"""

from collections.abc import Sequence
from math import ceil

from flows import flow_cost
from models_store.plans.search import trial_training
from models_store.records import Dataset
from models_store.requests.search import AcceptedSearch
from models_store.requests.training import AcceptedTraining

_START_S = 1.5  # of a process, and of the summary
_STEP_S = 1e-3
_VALUE_S = 1.5e-9  # of a weight and a row


def training_s(accepted: AcceptedTraining, datasets: Sequence[Dataset]) -> float:
    """Return about how long a core trains a flow, early stopping included, in seconds.

    Args:
        accepted: Accepted training.
        datasets: Dataset of the training, and those that are held out.
    """
    options = accepted.optimisation
    cost = flow_cost(accepted.flow, len(accepted.columns), len(accepted.context_columns))
    rows = max(1, int(datasets[0].rows * accepted.split.train))
    step_s = _STEP_S + _VALUE_S * options.batch_size * cost.parameters
    training = options.max_epochs * ceil(rows / options.batch_size) * step_s
    return _START_S + min(training, options.max_seconds or training)


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
