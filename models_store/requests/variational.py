"""A variational request: what a caller may say, and what was accepted once every gap is filled."""

from typing import Annotated, Literal

from pydantic import ConfigDict, Discriminator, Field, Tag, model_validator

from flows import VariationalOptions
from flows.training.options import Optimiser
from models_store.requests.training import (
    DatasetId,
    Epochs,
    Flow,
    GradientNorm,
    LearningRate,
    Name,
    RequestedFlow,
    Seconds,
    Seed,
    Strict,
)

MAX_FORMULA_LENGTH, MAX_FORMULA_DIM, MAX_WINDOW_DIM = 10_000, 100, 2

Coordinate = Annotated[float, Field(ge=-1e12, le=1e12)]
Corner = Annotated[list[Coordinate], Field(min_length=1, max_length=MAX_WINDOW_DIM)]
Scale = Annotated[float, Field(ge=1e-6, le=1e6)]
Column = Annotated[str, Field(min_length=1, max_length=128)]
Columns = Annotated[list[Column], Field(max_length=10_000)]
Iterations = Annotated[int, Field(ge=1, le=10_000_000)]
SampleSize = Annotated[int, Field(ge=1, le=100_000)]


class PotentialTarget(Strict):
    """One of five densities in two dimensions that flows are tried on."""

    potential: Literal["U1", "U2", "U3", "U4", "U5"]


class Window(Strict):
    """A box, one interval a coordinate."""

    lower: Corner
    upper: Corner

    @model_validator(mode="after")
    def _ordered(self) -> "Window":
        if len(self.lower) != len(self.upper):
            raise ValueError("lower and upper must have as many values as each other")
        if not all(low < high for low, high in zip(self.lower, self.upper, strict=True)):
            raise ValueError("lower must be below upper in every coordinate")
        return self


class DensityTarget(Strict):
    """A log density, up to a constant, as a formula."""

    log_density: Annotated[str, Field(min_length=1, max_length=MAX_FORMULA_LENGTH)] = Field(
        description="Of z1, ..., zD: numbers, `+ - * / ^`, brackets and functions such as `exp`,"
        " `log`, `norm` and `logaddexp`."
    )
    dim: int = Field(ge=1, le=MAX_FORMULA_DIM, description="Coordinates D.")
    window: Window | None = Field(
        default=None,
        description="Where the KL divergence is computed by quadrature; one or two coordinates.",
    )

    @model_validator(mode="after")
    def _window_fits(self) -> "DensityTarget":
        if self.window is not None and len(self.window.lower) != self.dim:
            raise ValueError("the window must have as many coordinates as the formula, 1 or 2")
        return self


class Posterior(Strict):
    """A Bayesian regression on a dataset: a density of the intercept and the slopes."""

    dataset_id: DatasetId
    response: Column = Field(description="The column that is explained.")
    columns: Columns | None = Field(
        default=None, description="The columns that explain it. Null: all others."
    )
    prior_scale: Scale = Field(
        default=1.0, description="Standard deviation of each coefficient before the data; mean 0."
    )


class LinearPosterior(Posterior):
    """response = intercept + columns . slopes + Gaussian noise of known scale."""

    kind: Literal["linear"]
    noise_scale: Scale = Field(default=1.0, description="Standard deviation of the noise.")


class LogisticPosterior(Posterior):
    """The response is 1 with chance sigmoid(intercept + columns . slopes), else 0."""

    kind: Literal["logistic"]
    batch_rows: Annotated[int, Field(ge=1, le=1_000_000)] | None = Field(
        default=None, description="Rows drawn for each iteration. Null: all of them."
    )


class PosteriorTarget(Strict):
    """The posterior of a Bayesian regression."""

    posterior: Annotated[LinearPosterior | LogisticPosterior, Field(discriminator="kind")]


# Tags are no field's name, so that they never look like a part of a JSON pointer.
_TAGS = {"potential": "a potential", "log_density": "a formula", "posterior": "a regression"}


def _tag_of(target: object) -> str | None:
    fields = target if isinstance(target, dict) else getattr(target, "__dict__", {})
    named = [tag for field, tag in _TAGS.items() if field in fields]
    return named[0] if len(named) == 1 else None


Target = Annotated[
    Annotated[PotentialTarget, Tag("a potential")]
    | Annotated[DensityTarget, Tag("a formula")]
    | Annotated[PosteriorTarget, Tag("a regression")],
    Discriminator(
        _tag_of,
        custom_error_type="target",
        custom_error_message="a target has exactly one of potential, log_density and posterior",
    ),
]


class VariationalOptimisationRequest(Strict):
    """How the ELBO is maximised; what is left out or null is chosen."""

    optimiser: Optimiser = "adam"
    learning_rate: LearningRate | None = None
    schedule: Literal["constant", "cosine"] = "cosine"
    max_gradient_norm: GradientNorm | None = Field(
        default=None,
        description="A longer gradient is shortened to this norm; `none` leaves gradients as they"
        " are.",
    )
    batch_size: SampleSize | None = Field(
        default=None, description="Samples of the flow in one iteration."
    )
    iterations: Iterations | None = None
    report_every: Iterations | None = Field(
        default=None, description="Iterations from one report, an event, to the next."
    )
    annealing: Annotated[int, Field(ge=0, le=10_000_000)] | None = Field(
        default=None,
        description="Iterations over which the weight of the target rises from 0.01 to 1.",
    )
    patience: Epochs | None = Field(
        default=None, description="Reports without a better ELBO before it stops. Null: it goes on."
    )
    max_seconds: Seconds | None = Field(
        default=None, description="Time over all attempts; the best flow so far is kept."
    )
    seed: Seed | None = Field(default=None, description="Null: the server picks one and shows it.")


class VariationalRequest(Strict):
    """The body of ``POST /v1/jobs/variational``; `model_name` and `target` are required."""

    model_config = ConfigDict(protected_namespaces=())

    model_name: Name = Field(description="The registered model that gets a new version.")
    target: Target = Field(
        description="What the flow is fitted to: exactly one of the three kinds."
    )
    flow: RequestedFlow = Field(default=None, description="Null: chosen from the target.")
    optimisation: VariationalOptimisationRequest = VariationalOptimisationRequest()


class AcceptedVariational(Strict):
    """A variational request with every choice made; the columns of a posterior are named."""

    model_config = ConfigDict(protected_namespaces=())

    model_name: str
    target: Target
    flow: Flow
    optimisation: VariationalOptions
