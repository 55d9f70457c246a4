"""Recipes of the published experiments, read from `recipes.toml`."""

import dataclasses
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flows import (
    FitOptions,
    FlowSpec,
    PreprocessingSpec,
    StepFactor,
    StepSchedule,
    VariationalOptions,
    spec_from_dict,
    spec_to_dict,
)


@dataclass(frozen=True)
class Published:
    """Result of the literature, as a mean test log-likelihood in nats.

    Attributes:
        two_standard_errors: Two standard errors; None if none were given.
    """

    value: float
    source: str
    two_standard_errors: float | None = None


@dataclass(frozen=True)
class DensityRecipe:
    """Recipe of maximum likelihood training on a table.

    Attributes:
        data: Name of a data set (`experiments.data.catalogue`).
        standardise: True to standardise by the training rows after that; likelihoods are those
            before it.
        published: Published results, if there are any.
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

    def request(self, dataset_id: str, *, seed: int) -> dict[str, Any]:
        """Return the recipe as the body of `POST /v1/jobs/training`, for a dataset of the rows."""
        options, levels, margin = self.options, self.preprocessing.levels, self.preprocessing.logit
        names = ["optimiser", "learning_rate", "weight_decay", "batch_size", "max_epochs"]
        names += ["schedule", "weight_average"]
        told = dataclasses.asdict(options)
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
                **{name: told[name] for name in names},
                "max_gradient_norm": options.max_gradient_norm or "none",
                "patience": options.patience or options.max_epochs,
                "robust": False,
                "seed": seed,
            },
        }


@dataclass(frozen=True)
class VariationalRecipe:
    """Recipe of maximising the ELBO towards a potential (Rezende and Mohamed 2015, section 6.1).

    Attributes:
        potential: Name of the potential, U1 to U5.
    """

    name: str
    title: str
    potential: str
    flow: FlowSpec
    options: VariationalOptions
    remark: str = ""

    def request(self, *, seed: int) -> dict[str, Any]:
        """Return the recipe as the body of `POST /v1/jobs/variational`."""
        options = dataclasses.asdict(dataclasses.replace(self.options, seed=seed))
        options["max_gradient_norm"] = options["max_gradient_norm"] or "none"
        return {
            "model_name": self.name,
            "target": {"potential": self.potential},
            "flow": spec_to_dict(self.flow),
            "optimisation": options,
        }


Recipe = DensityRecipe | VariationalRecipe


def _recipe(name: str, fields: dict[str, Any]) -> Recipe:
    options = _known(fields.pop("options"))
    flow = spec_from_dict(_known(fields.pop("flow")))
    if "potential" in fields:
        return VariationalRecipe(name, flow=flow, options=VariationalOptions(**options), **fields)
    if isinstance(schedule := options.get("schedule"), dict):
        options["schedule"] = StepSchedule(StepFactor(**schedule["step"]))
    preprocessing = PreprocessingSpec(**fields.pop("preprocessing", {}))
    published = tuple(Published(**known) for known in fields.pop("published", []))
    return DensityRecipe(
        name,
        flow=flow,
        options=FitOptions(**options),
        preprocessing=preprocessing,
        published=published,
        **fields,
    )


def _known(fields: dict[str, Any]) -> dict[str, Any]:
    """Return the fields with None for what the file calls "none": TOML has no such value."""
    return {name: None if value == "none" else value for name, value in fields.items()}


RECIPES: dict[str, Recipe] = {
    name: _recipe(name, fields)
    for name, fields in tomllib.loads(
        Path(__file__).with_suffix(".toml").read_text(encoding="utf-8")
    ).items()
}
