"""Request for a variational job, as a caller writes it and as it is accepted."""

from contextlib import suppress
from typing import TYPE_CHECKING, Annotated, Literal, Self

from pydantic import (
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    TypeAdapter,
    ValidationError,
    model_validator,
)

from flows import FlowError, VariationalOptions
from flows.specs.latent import Likelihood
from flows.specs.spec import ActivationName
from models_store.requests.training import (
    Accepted,
    DatasetId,
    Epochs,
    FitRequest,
    Flow,
    Fraction,
    Hidden,
    Name,
    Placed,
    RequestedFlow,
    Strict,
)

if TYPE_CHECKING:
    import flows

MAX_FORMULA_LENGTH, MAX_FORMULA_DIM, MAX_WINDOW_DIM = 10_000, 100, 2
MAX_LATENTS = 100

Coordinate = Annotated[float, Field(ge=-1e12, le=1e12)]
Corner = Annotated[list[Coordinate], Field(min_length=1, max_length=MAX_WINDOW_DIM, fail_fast=True)]
Scale = Annotated[float, Field(ge=1e-6, le=1e6)]
Column = Annotated[str, Field(min_length=1, max_length=128)]
Columns = Annotated[list[Column], Field(max_length=10_000, fail_fast=True)]
Iterations = Annotated[int, Field(ge=1, le=10_000_000)]
SampleSize = Annotated[int, Field(ge=1, le=100_000)]


class PotentialTarget(Strict):
    """Named potential: one of five two-dimensional test densities."""

    potential: Literal["U1", "U2", "U3", "U4", "U5"] = Field(
        description="Name of the potential; U1 to U4 are those of Rezende and Mohamed (2015)."
    )


class Window(Strict):
    """Box with an interval for each coordinate."""

    lower: Corner = Field(description="Lower corner, a value for each coordinate.")
    upper: Corner = Field(description="Upper corner, a value for each coordinate.")

    @model_validator(mode="after")
    def _ordered(self) -> "Window":
        if len(self.lower) != len(self.upper):
            raise ValueError("lower and upper must have as many values as each other")
        if not all(low < high for low, high in zip(self.lower, self.upper, strict=True)):
            raise ValueError("lower must be below upper in every coordinate")
        return self


class DensityTarget(Strict):
    """Formula of a log density, up to a constant."""

    log_density: Annotated[str, Field(min_length=1, max_length=MAX_FORMULA_LENGTH)] = Field(
        description="Formula of z1, ..., zD with numbers, `+ - * / ^`, brackets and functions such as"
        " `exp`, `log`, `norm` and `logaddexp`."
    )
    dim: int = Field(ge=1, le=MAX_FORMULA_DIM, description="Number of coordinates D.")
    window: Window | None = Field(
        default=None,
        description="Box in which the KL divergence is computed by quadrature, for one or two"
        " coordinates.",
    )

    @model_validator(mode="after")
    def _window_fits(self) -> "DensityTarget":
        if self.window is not None and len(self.window.lower) != self.dim:
            raise ValueError("the window must have as many coordinates as the formula, 1 or 2")
        return self


class Posterior(Strict):
    """Bayesian regression on a dataset, whose posterior is a density of the coefficients."""

    dataset_id: DatasetId = Field(description="Dataset of the regression.")
    response: Column = Field(description="Column of the response.")
    columns: Columns | None = Field(
        default=None, description="Columns of the regressors; null for all others."
    )
    prior_scale: Scale = Field(
        default=1.0,
        description="Standard deviation of the Gaussian prior of each coefficient, which has mean 0.",
    )


class LinearPosterior(Posterior):
    """Linear regression: response = intercept + columns . slopes + Gaussian noise of known scale."""

    kind: Literal["linear"] = Field(description="Kind of the regression.")
    noise_scale: Scale = Field(default=1.0, description="Standard deviation of the noise.")


class LogisticPosterior(Posterior):
    """Logistic regression: P(response = 1) = sigmoid(intercept + columns . slopes)."""

    kind: Literal["logistic"] = Field(description="Kind of the regression.")
    batch_rows: Annotated[int, Field(ge=1, le=1_000_000)] | None = Field(
        default=None, description="Number of rows drawn for each iteration; null for all rows."
    )


class PosteriorTarget(Strict):
    """Posterior of a Bayesian regression."""

    posterior: Annotated[LinearPosterior | LogisticPosterior, Field(discriminator="kind")] = Field(
        description="Regression whose posterior is the target."
    )


class LatentModel(Strict):
    """Generative model of the rows of a dataset, each with latent variables of its own.

    z has a standard Gaussian prior, and each column its own distribution given z. The decoder that
    gives it is learnt (`dim`, `hidden`), or a known linear one (`loadings`): then each row is a
    Bayesian linear or logistic regression with the coefficients z and the design `loadings`.
    """

    dataset_id: DatasetId = Field(description="Dataset of the rows that are observed.")
    columns: Columns | None = Field(
        default=None, description="Columns that are observed; null for all."
    )
    likelihood: Likelihood = Field(
        description="Distribution of a column given z: `gaussian`, or `bernoulli` of columns of 0 and 1."
    )
    dim: Annotated[int, Field(ge=1, le=MAX_LATENTS)] | None = Field(
        default=None, description="Number of latent variables of a decoder that is learnt."
    )
    hidden: Hidden | None = Field(
        default=None,
        description="Units of each hidden layer of the decoder; null for a linear one.",
    )
    activation: ActivationName = Field(
        default="tanh", description="Activation between the decoder's layers."
    )
    loadings: (
        Annotated[
            list[
                Annotated[
                    list[Coordinate], Field(min_length=1, max_length=MAX_LATENTS, fail_fast=True)
                ]
            ],
            Field(min_length=1, max_length=10_000, fail_fast=True),
        ]
        | None
    ) = Field(
        default=None,
        description="Known linear decoder: for each column the weights of the latent variables.",
    )
    offset: (
        Annotated[list[Coordinate], Field(min_length=1, max_length=10_000, fail_fast=True)] | None
    ) = Field(
        default=None,
        description="Value of each column of a known decoder at z = 0, or its log-odds; null for 0.",
    )
    noise_scale: Scale | None = Field(
        default=None,
        description="Standard deviation of the Gaussian noise of a known decoder. That of a learnt one is"
        " learnt, one for each column.",
    )
    held_out: Fraction = Field(
        default=0.1,
        description="Fraction of the rows that the fit does not see, by which the model is judged; 0"
        " judges it by the rows that it was fitted to.",
    )

    @model_validator(mode="after")
    def _one_decoder(self) -> Self:
        if (self.dim is None) == (self.loadings is None):
            raise ValueError("a decoder is learnt, with dim, or known, with loadings")
        if self.loadings is None:
            if self.offset is not None or self.noise_scale is not None:
                raise ValueError("offset and noise_scale are of a decoder with loadings")
            return self
        if self.hidden is not None:
            raise ValueError("a decoder with loadings has no hidden layers")
        if (self.noise_scale is None) == (self.likelihood == "gaussian"):
            raise ValueError("a known gaussian decoder, and no other, has a noise_scale")
        if len({len(row) for row in self.loadings}) > 1:
            raise ValueError("loadings must have as many weights for each column")
        if self.offset is not None and len(self.offset) != len(self.loadings):
            raise ValueError("offset must have a value for each column of loadings")
        return self

    @property
    def latents(self) -> int:
        """Number of latent variables."""
        return self.dim or len((self.loadings or [[]])[0])


class LatentTarget(Strict):
    """Latent variables of each row of a dataset, given the row: amortised inference."""

    latent: LatentModel = Field(
        description="Generative model; the flow approximates the posterior of z given any row."
    )


# Tags are no field's name, so that they never look like a part of a JSON pointer.
_TAGS = {
    "potential": "a potential",
    "log_density": "a formula",
    "posterior": "a regression",
    "latent": "a model with latent variables",
}


def _tag_of(target: object) -> str | None:
    fields = target if isinstance(target, dict) else getattr(target, "__dict__", {})
    named = [tag for field, tag in _TAGS.items() if field in fields]
    return named[0] if len(named) == 1 else None


Target = Annotated[
    Annotated[PotentialTarget, Tag("a potential")]
    | Annotated[DensityTarget, Tag("a formula")]
    | Annotated[PosteriorTarget, Tag("a regression")]
    | Annotated[LatentTarget, Tag("a model with latent variables")],
    Discriminator(
        _tag_of,
        custom_error_type="target",
        custom_error_message="a target has exactly one of potential, log_density, posterior and latent",
    ),
]


_TARGETS: TypeAdapter[Target] = TypeAdapter(Target)


def closed_form(target: object) -> "flows.Target | None":
    """Return the density of a named potential or of a formula.

    Args:
        target: Target as it is requested, or its JSON object, which may come from anywhere.

    Returns:
        The density; None for one that depends on a dataset, and for what is no target.
    """
    from flows import (  # noqa: PLC0415  they load PyTorch
        FormulaTarget,
        Potential,
        Window as QuadratureWindow,
    )

    with suppress(ValidationError, FlowError):
        known = _TARGETS.validate_python(target)
        if isinstance(known, PotentialTarget):
            return Potential(known.potential)
        if isinstance(known, DensityTarget):
            box = known.window
            window = QuadratureWindow(tuple(box.lower), tuple(box.upper)) if box else None
            return FormulaTarget(known.log_density, known.dim, window=window)
    return None


class VariationalOptimisationRequest(FitRequest):
    """Options of the optimisation; absent and null options get values that suit the target."""

    schedule: Literal["constant", "cosine"] = Field(
        default="cosine",
        description="Change of the learning rate: `constant`, or a `cosine` that falls towards 0.",
    )
    batch_size: SampleSize | None = Field(
        default=None,
        description="Number of samples of the flow in each iteration; of latent variables, also of rows.",
    )
    iterations: Iterations | None = Field(
        default=None, description="Number of iterations; null for a number that suits the target."
    )
    report_every: Iterations | None = Field(
        default=None, description="Number of iterations between two reports, which are events."
    )
    annealing: Annotated[int, Field(ge=0, le=10_000_000)] | None = Field(
        default=None,
        description="Number of iterations over which the weight of the target rises from 0.01 to 1.",
    )
    patience: Epochs | None = Field(
        default=None,
        description="Reports without a better ELBO after which the job stops; null if unlimited.",
    )


class VariationalRequest(Placed):
    """Body of ``POST /v1/jobs/variational``; `model_name` and `target` are required."""

    model_config = ConfigDict(protected_namespaces=())

    model_name: Name = Field(description="Name of the model that gets a new version.")
    target: Target = Field(
        description="Target that the flow is fitted to, of exactly one of the four kinds."
    )
    flow: RequestedFlow = Field(
        default=None,
        description="Family of the flow and its fields; null for one that suits the target.",
    )
    optimisation: VariationalOptimisationRequest = Field(
        default=VariationalOptimisationRequest(),
        description="Options of the optimisation; absent and null options suit the target.",
    )


class AcceptedVariational(Accepted):
    """Accepted request for a variational job."""

    model_name: str = Field(description="Name of the model that gets a new version.")
    target: Target = Field(description="Target that the flow is fitted to.")
    flow: Flow = Field(description="Family of the flow and its fields.")
    optimisation: VariationalOptions = Field(description="Options of the optimisation.")
