"""Metrics of jobs and of versions, as the service documents them.

Densities and likelihoods are natural logarithms in the data's own units: nats per row.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

from flows.specs.explained import Explained
from models_store.job_states import JobState
from models_store.requests.search import RangeValue
from models_store.schema_of import SchemaOf


class Likelihoods(BaseModel):
    """Mean log likelihoods of the trained model on each part of the rows."""

    train_log_likelihood: float | None = Field(
        default=None,
        description="Mean log likelihood of the training rows in nats per row; null if it is not"
        " finite.",
    )
    train_standard_error: float | None = Field(
        default=None, description="Standard error of `train_log_likelihood` in nats per row."
    )
    train_rows: int | None = Field(default=None, description="Number of training rows.")
    validation_log_likelihood: float | None = Field(
        default=None,
        description="Mean log likelihood of the validation rows in nats per row; null if it is not"
        " finite.",
    )
    validation_standard_error: float | None = Field(
        default=None, description="Standard error of `validation_log_likelihood` in nats per row."
    )
    validation_rows: int | None = Field(default=None, description="Number of validation rows.")
    test_log_likelihood: float | None = Field(
        default=None,
        description="Mean log likelihood of the test rows in nats per row, once the job has succeeded.",
    )
    test_standard_error: float | None = Field(
        default=None, description="Standard error of `test_log_likelihood` in nats per row."
    )
    test_rows: int | None = Field(default=None, description="Number of test rows.")
    best_robust_validation_log_likelihood: float | None = Field(
        default=None,
        description="Highest robust mean log likelihood of the validation rows so far, which decides"
        " which weights are kept, in nats per row.",
    )


class Comparison(Likelihoods):
    """Comparison of the trained model with simple densities and with other rows.

    These are the rows of the test part, or of the validation part if there is no test part.
    """

    gain_over_gaussian: float | None = Field(
        default=None,
        description="Robust mean log likelihood of test rows, or else validation rows, above that of one"
        " Gaussian, in nats a row; null if the rows have categories or missing values, or it is not finite.",
    )
    gain_over_gaussian_standard_error: float | None = Field(
        default=None, description="Standard error of `gain_over_gaussian` in nats per row."
    )
    gain_over_independent: float | None = Field(
        default=None,
        description="Robust mean log likelihood of these rows above that of columns which have nothing to do with"
        " each other: shares of levels and kernel densities of values; in nats per row.",
    )
    gain_over_independent_standard_error: float | None = Field(
        default=None, description="Standard error of `gain_over_independent` in nats per row."
    )
    rank_distance: float | None = Field(
        default=None,
        description="Largest difference, from 0 to 1, of the ranks of validation rows among test rows from even"
        " ranks; null without a test part.",
    )
    rank_distance_limit: float | None = Field(
        default=None,
        description="Distance that chance exceeds less than once in 1,000 trainings if validation rows are like test"
        " rows.",
    )
    gain_over_mixture_standard_error: float | None = Field(
        default=None, description="Standard error of `gain_over_mixture` in nats per row."
    )
    gain_over_mixture: float | None = Field(
        default=None,
        description="Robust mean log likelihood of these rows above that of a mixture of Gaussians, whose"
        " number (1, 2, 4 or 8) the Bayesian information criterion chooses, in nats per row; null if none"
        " was fitted.",
    )
    column_distances: dict[str, float] | None = Field(
        default=None,
        description="Largest difference, from 0 to 1, of the distribution functions of samples and of"
        " these rows, by column: those that differ most.",
    )
    summary: list[str] | None = Field(
        default=None, description="Summary of the metrics in sentences."
    )


class TrainingMetrics(Comparison):
    """Metrics of a training: of its last epoch, and of the model once the job has succeeded."""

    epoch: int = Field(description="Number of finished epochs.")
    robust_validation_log_likelihood: float | None = Field(
        default=None,
        description="Mean log likelihood of the validation rows with the losses of single rows"
        " bounded, in nats per row.",
    )
    best_epoch: int | None = Field(
        default=None, description="Epoch whose weights are kept, counted from 1."
    )
    best_validation_log_likelihood: float | None = Field(
        default=None,
        description="Mean log likelihood of the validation rows at the best epoch in nats per row.",
    )
    rows_per_second: float | None = Field(
        default=None, description="Training rows per second of training."
    )
    seconds: float | None = Field(
        default=None, description="Seconds of training so far, over all attempts."
    )
    restarts: int | None = Field(
        default=None,
        description="Number of times that training diverged and continued from its best state.",
    )
    stop_reason: Literal["patience", "max_epochs", "max_seconds", "converged"] | None = Field(
        default=None, description="Reason why this epoch is the last one; null if it is not."
    )
    epochs: int | None = Field(
        default=None, description="Number of epochs in all, once the job has succeeded."
    )
    still_rising: bool | None = Field(
        default=None,
        description="True if twice the training is expected to gain more than two standard errors of the"
        " validation likelihood.",
    )
    expected_gain: float | None = Field(
        default=None,
        description="Nats per row of the validation likelihood that twice the training is expected to gain:"
        " half of what its second half gained; absent unless a limit ended it at its best.",
    )


class EnsembleMetrics(Comparison):
    """Metrics of an ensemble of trained flows."""

    members: list[int] = Field(description="Numbers of the trials that are its members, from 0.")
    weights: list[float] = Field(description="Weight of each member; they sum to 1.")


class KlWindow(BaseModel):
    """Box in which a KL divergence is computed."""

    lower: list[float] = Field(description="Lower corner, a value for each coordinate.")
    upper: list[float] = Field(description="Upper corner, a value for each coordinate.")


class VariationalMetrics(BaseModel):
    """Metrics of variational inference: of its last report, and of the model in the end."""

    iteration: int = Field(description="Number of finished iterations.")
    elbo: float | None = Field(
        default=None, description="Evidence lower bound in nats, the mean of log p(z) - log q(z)."
    )
    elbo_standard_error: float | None = Field(
        default=None, description="Standard error of `elbo` in nats."
    )
    skipped: int | None = Field(
        default=None,
        description="Number of samples left out because their log density or its gradient was not"
        " finite.",
    )
    best_iteration: int | None = Field(
        default=None, description="Iteration whose weights are kept, counted from 1."
    )
    best_elbo: float | None = Field(default=None, description="Highest reported ELBO in nats.")
    samples_per_second: float | None = Field(
        default=None, description="Samples of the flow per second of training."
    )
    seconds: float | None = Field(
        default=None, description="Seconds of training so far, over all attempts."
    )
    stop_reason: Literal["patience", "max_iterations", "max_seconds"] | None = Field(
        default=None, description="Reason why this report is the last one; null if it is not."
    )
    iterations: int | None = Field(
        default=None, description="Number of iterations in all, once the job has succeeded."
    )
    samples: int | None = Field(
        default=None,
        description="Number of samples that the approximation was assessed with; of latent variables, of"
        " each judged row.",
    )
    judged_rows: int | None = Field(
        default=None,
        description="Number of rows, held out if there are any, that `elbo`, `log_evidence` and"
        " `exact_log_evidence` of a model with latent variables are the means of, once the job has"
        " succeeded.",
    )
    non_finite: int | None = Field(
        default=None, description="Number of those samples whose log density is not finite."
    )
    log_evidence: float | None = Field(
        default=None,
        description="Estimate of the log normaliser of the target by importance weights, in nats; of"
        " latent variables the mean importance-weighted bound of the judged rows.",
    )
    log_evidence_standard_error: float | None = Field(
        default=None, description="Standard error of `log_evidence` in nats."
    )
    effective_sample_size: float | None = Field(
        default=None, description="Effective number of samples, from 1 to `samples`."
    )
    pareto_k: float | None = Field(
        default=None,
        description="Shape of the tail of the importance weights; null if there are too few samples.",
    )
    verdict: Literal["good", "ok", "unreliable"] | None = Field(
        default=None, description="Verdict by `pareto_k`: `good` below 0.5, `ok` below 0.7."
    )
    explanation: str | None = Field(default=None, description="Verdict in a sentence.")
    kl: float | None = Field(
        default=None,
        description="KL divergence of the flow from the target inside `kl_window`, by quadrature, in"
        " nats.",
    )
    kl_window: KlWindow | None = Field(default=None, description="Box of the quadrature.")
    mass_inside: float | None = Field(
        default=None, description="Probability, from 0 to 1, that the flow has inside `kl_window`."
    )
    log_evidence_inside: float | None = Field(
        default=None, description="Log of the target's integral over `kl_window`, in nats."
    )
    exact_log_evidence: float | None = Field(
        default=None,
        description="Exact log evidence of a linear regression, or of the judged rows of a linear"
        " decoder with Gaussian noise, in nats.",
    )


class RowMetrics(BaseModel):
    """Metrics of a scoring, sampling or imputation job."""

    rows: int = Field(description="Number of computed rows.")
    part: int | None = Field(
        default=None, description="Number of parts of the rows that are stored, while the job runs."
    )
    rows_per_second: float | None = Field(
        default=None, description="Rows per second of this attempt, while the job runs."
    )
    non_finite: int | None = Field(
        default=None,
        description="Number of rows with a result that is not finite, once the job has succeeded.",
    )
    mean_log_prob: float | None = Field(
        default=None,
        description="Mean log density of the rows with finite results, in nats; null if there are"
        " none.",
    )
    uncertain_rows: int | None = Field(
        default=None,
        description="Number of rows whose filled cells are rough, once an imputation has succeeded.",
    )
    explained: dict[str, Explained] | None = Field(
        default=None,
        description="Kind of explanation of each column, with `explain`, once the job has succeeded.",
    )
    usual: dict[str, float | None] | None = Field(
        default=None,
        description="Usual explanation of each column, with `explain`, once the job has succeeded:"
        " the median over rows of the dataset of the model, in nats; null where none is known.",
    )


class TrialView(BaseModel):
    """Training that a search has tried."""

    stage: int = Field(description="Stage of the search, counted from 1.")
    trial: int = Field(description="Number of the trial, counted from 0.")
    family: str = Field(description="Family of the flow.")
    values: dict[str, RangeValue] | None = Field(
        default=None,
        description="Values of a sweep by the path of their field, such as `flow.layers`.",
    )
    job_id: str = Field(description="Child that trains it.")
    state: JobState = Field(description="State of the child.")
    epochs: int | None = Field(description="Number of finished epochs; null if there is none yet.")
    seconds: float | None = Field(description="Seconds of training; null if there is none yet.")
    robust_validation_log_likelihood: float | None = Field(
        description="Highest robust mean log likelihood of the validation rows, by which trials are"
        " compared, in nats per row; null if there is none yet."
    )
    validation_log_likelihood: float | None = Field(
        description="Mean log likelihood of the validation rows in nats per row; null if there is"
        " none yet."
    )


class SearchMetrics(BaseModel):
    """Metrics of a job whose children try flows: those of `auto`, and sweeps."""

    trials: list[TrialView] = Field(description="Trainings so far, in the order of their start.")
    seconds: float = Field(description="Seconds of training over all children.")


class ImportedMetrics(Likelihoods):
    """Metrics of a version whose file came with others, or without any."""


JobMetrics = Annotated[
    dict[str, Any],
    SchemaOf(TrainingMetrics | EnsembleMetrics | VariationalMetrics | SearchMetrics | RowMetrics),
]
VersionMetrics = Annotated[
    dict[str, Any],
    SchemaOf(TrainingMetrics | EnsembleMetrics | VariationalMetrics | ImportedMetrics),
]
