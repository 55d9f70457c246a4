"""Searches over many trainings, and ensembles of what they trained, as they are accepted."""

from typing import Annotated, Any

from pydantic import Field

from flows import MixedSpec
from models_store.requests.training import (
    MAX_MEMBERS,
    AcceptedTable,
    Strict,
    Trial,
)

MAX_TRIALS = 64
"""Most trials of one search."""


class Stage(Strict):
    """Stage of a search: its trials are trained for a share of their epochs, and the best continue."""

    trials: Annotated[int, Field(ge=1, le=MAX_TRIALS)]
    share: Annotated[float, Field(gt=0, le=1)]


class AcceptedSearch(AcceptedTable):
    """Accepted search: trials that children train, in stages.

    Attributes:
        mixed: Density of mixed rows whose continuous values the flows of the trials have; None: the
            table has numbers alone.
        trials: Flows to try, with the options of whole trainings.
        stages: Stages. The first one has all trials, or the default alone where time is limited.
        ensemble: Maximum number of members of the ensemble; 1 for the best flow alone.
        max_seconds: Longest time of training over all children; None: no limit.
        points: Values of each trial by the path of their field, of a sweep; None: families differ.
    """

    mixed: MixedSpec | None = None
    trials: Annotated[list[Trial], Field(min_length=1, max_length=MAX_TRIALS)]
    stages: Annotated[list[Stage], Field(min_length=1, max_length=8)]
    ensemble: Annotated[int, Field(ge=1, le=MAX_MEMBERS)]
    max_seconds: float | None = None
    points: list[dict[str, Any]] | None = None


class Member(Strict):
    """Trained flow that an ensemble may have as a member; the file of its weights, and its spec."""

    trial: int
    key: str
    sha256: str
    flow: dict[str, Any]


class AcceptedEnsemble(AcceptedTable):
    """Accepted choice of an ensemble among flows that were trained on the same rows.

    Attributes:
        members: Trained flows, the best one first.
        seed: Seed of the noise on discrete values.
        row_loss_bound: Bound of the losses of single rows, as in a training.
    """

    members: Annotated[list[Member], Field(min_length=2, max_length=MAX_MEMBERS)]
    seed: int
    row_loss_bound: float | None
