"""Recipe of an experiment: data, flow, training options and published results."""

import dataclasses
from dataclasses import dataclass, field
from typing import Any

from flows import (
    FitOptions,
    FlowSpec,
    PreprocessingSpec,
    StepSchedule,
    VariationalOptions,
    spec_to_dict,
)
from flows.training.options import Optimiser


@dataclass(frozen=True)
class Published:
    """Result of the literature, as a mean test log-likelihood in nats.

    Attributes:
        value: Published value; higher is better.
        two_standard_errors: Two standard errors; None if none were given.
        source: Place of publication.
    """

    value: float
    source: str
    two_standard_errors: float | None = None


@dataclass(frozen=True)
class DensityRecipe:
    """Recipe of maximum likelihood training on a table.

    Attributes:
        name: Name of the experiment.
        title: Title for people.
        data: Name of a data set (`experiments.data.catalogue`).
        flow: Specification of the flow.
        options: Training options; the seed is the run's.
        preprocessing: Preprocessing layers. Likelihoods are those of the preprocessed rows, as
            published.
        standardise: True to standardise by the training rows after that; likelihoods are those
            before it.
        published: Published results, if there are any.
        remark: Remark for readers of the result.
    """

    name: str
    title: str
    data: str
    flow: FlowSpec
    options: FitOptions
    preprocessing: PreprocessingSpec = field(default_factory=PreprocessingSpec)
    standardise: bool = False
    published: tuple[Published, ...] = ()
    remark: str = ""

    def in_mixed_precision(self) -> "DensityRecipe":
        """Return the same recipe with training steps in mixed precision."""
        options = dataclasses.replace(self.options, mixed_precision=True)
        return dataclasses.replace(self, options=options)

    def request(self, dataset_id: str, *, seed: int) -> dict[str, Any]:
        """Return the recipe as the body of `POST /v1/jobs/training`, for a dataset of the rows."""
        options, levels, margin = self.options, self.preprocessing.levels, self.preprocessing.logit
        schedule: Any = options.schedule
        if isinstance(schedule, StepSchedule):
            schedule = {"step": dataclasses.asdict(schedule)}
        return {
            "model_name": self.name,
            "dataset_id": dataset_id,
            "preprocessing": {
                "standardise": self.standardise,
                "dequantise": None if levels is None else {"levels": levels},
                "logit": None if margin is None else {"lambda": margin},
            },
            "flow": spec_to_dict(self.flow),
            "optimisation": {
                "optimiser": options.optimiser,
                "learning_rate": options.learning_rate,
                "weight_decay": options.weight_decay,
                "max_gradient_norm": options.max_gradient_norm or "none",
                "batch_size": options.batch_size,
                "max_epochs": options.max_epochs,
                "patience": options.patience or options.max_epochs,
                "schedule": schedule,
                "robust": False,
                "weight_average": options.weight_average,
                "mixed_precision": options.mixed_precision,
                "seed": seed,
            },
        }


@dataclass(frozen=True)
class VariationalRecipe:
    """Recipe of maximising the ELBO towards a potential (Rezende and Mohamed 2015, section 6.1).

    Attributes:
        name: Name of the experiment.
        title: Title for people.
        potential: Name of the potential, U1 to U5.
        flow: Specification of the flow.
        options: Training options; the seed is the run's.
        remark: Remark for readers of the result.
    """

    name: str
    title: str
    potential: str
    flow: FlowSpec
    options: VariationalOptions
    remark: str = ""

    def request(self, *, seed: int) -> dict[str, Any]:
        """Return the recipe as the body of `POST /v1/jobs/variational`."""
        options = self.options
        return {
            "model_name": self.name,
            "target": {"potential": self.potential},
            "flow": spec_to_dict(self.flow),
            "optimisation": {
                "optimiser": options.optimiser,
                "learning_rate": options.learning_rate,
                "schedule": options.schedule,
                "max_gradient_norm": options.max_gradient_norm or "none",
                "batch_size": options.batch_size,
                "iterations": options.iterations,
                "report_every": options.report_every,
                "annealing": options.annealing,
                "patience": options.patience,
                "max_seconds": options.max_seconds,
                "seed": seed,
            },
        }


Recipe = DensityRecipe | VariationalRecipe


def early_stopping(optimiser: Optimiser, rate: float, **changes: Any) -> FitOptions:  # noqa: ANN401  fields of many types
    """Return early stopping with patience 30 on the validation likelihood, as in the papers."""
    return FitOptions(optimiser=optimiser, learning_rate=rate, **({"patience": 30} | changes))
