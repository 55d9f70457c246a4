"""Acceptance of variational requests: checks of the target, and values for all options.

The choices aim at a good approximation of an unknown density on a small machine; `docs/api.md`
lists them.
"""

import secrets
from math import ceil

from flows import (
    FlowSpec,
    FormulaError,
    FormulaTarget,
    GaussianSpec,
    SpecError,
    VariationalOptions,
    for_targets,
)
from flows.defaults import default_for_target
from models_store.errors import RequestError
from models_store.registry import Dataset
from models_store.requests.accept_training import (
    FLOAT_BYTES,
    check_columns,
    check_memory,
    chosen_norm,
)
from models_store.requests.flow_limits import Described, TrainingLimits, check_flow, spec_refusal
from models_store.requests.mixed import check_values
from models_store.requests.preprocessing import is_binary
from models_store.requests.variational import (
    AcceptedVariational,
    DensityTarget,
    LinearPosterior,
    LogisticPosterior,
    PosteriorTarget,
    PotentialTarget,
    Target,
    VariationalOptimisationRequest,
    VariationalRequest,
)

INTERCEPT = "intercept"
_POSTERIOR = "/target/posterior"
_EXCERPT = 40  # characters of a formula on each side of an error
_STEPS_OF_FORMULA = 2_000
_BYTES_PER_STEP = 16  # a float64 value and its gradient
_BYTES_PER_ROW_VALUE = 24  # three copies in float64
_MOST_REPORTS = 100_000  # each is a row of the database


def accept_variational(
    request: VariationalRequest, dataset: Dataset | None, *, limits: TrainingLimits
) -> AcceptedVariational:
    """Check `request` against its target and fill in everything that it left open.

    Args:
        request: Request body.
        dataset: Dataset of a posterior.
        limits: Limits of one job.

    Raises:
        RequestError: The request cannot work or is too large.
    """
    target, dim = _target(request.target, dataset)
    flow = (
        _for_targets(request.flow)
        if request.flow is not None
        else default_for_target(dim, is_gaussian=_is_gaussian(target))
    )
    described = Described(flow, dim)
    check_flow(described, limits=limits)
    optimisation = _optimisation(request.optimisation, flow, target)
    check_memory(
        described,
        batch_size=optimisation.batch_size,
        beside=target_bytes(target, dim, dataset, samples=optimisation.batch_size),
        limits=limits,
        sampling=True,
        sample_bytes=bytes_per_sample(target, dim),
    )
    return AcceptedVariational(
        model_name=request.model_name, target=target, flow=flow, optimisation=optimisation
    )


def dataset_of(target: Target) -> str | None:
    """Return the id of the dataset that a target reads, if it reads one."""
    return target.posterior.dataset_id if isinstance(target, PosteriorTarget) else None


def _target(target: Target, dataset: Dataset | None) -> tuple[Target, int]:
    """Return the target with its columns named, and its dimensions."""
    match target:
        case PotentialTarget():
            return target, 2
        case DensityTarget():
            check_formula(target)
            return target, target.dim
        case PosteriorTarget(posterior=posterior):
            if dataset is None:
                raise ValueError("a posterior needs its dataset")
            columns = _regressors(posterior, dataset)
            chosen = posterior.model_copy(update={"columns": columns})
            return PosteriorTarget(posterior=chosen), 1 + len(columns)


def check_formula(target: DensityTarget) -> None:
    """Refuse a text that is no formula.

    Raises:
        RequestError: `formula`, with the position of what does not fit.
    """
    try:
        FormulaTarget(target.log_density, target.dim)
    except FormulaError as error:
        raise RequestError(
            "formula",
            f"the formula cannot be read at character {error.position}: {error.reason}\n"
            f"{_excerpt(error, target.log_density)}",
            pointer="/target/log_density",
            position=error.position,
        ) from error


def _excerpt(error: FormulaError, text: str) -> str:
    """Return the surroundings of an error on one line, with a caret under the place."""
    line, caret = error.pointer(text).split("\n")
    at = len(caret) - 1
    start = max(0, at - _EXCERPT)
    shown = "".join(c if c.isprintable() else " " for c in line[start : at + _EXCERPT])
    return f"{shown}\n{' ' * (at - start)}^"


def _regressors(posterior: LinearPosterior | LogisticPosterior, dataset: Dataset) -> list[str]:
    response = posterior.response
    check_columns([response], dataset, pointer=f"{_POSTERIOR}/response")
    if isinstance(posterior, LogisticPosterior):
        _check_binary(response, dataset)
    names = [one["name"] for one in dataset.stored_columns if one["name"] != response]
    wanted = names if posterior.columns is None else posterior.columns
    pointer = f"{_POSTERIOR}/columns"
    columns = check_columns(wanted, dataset, pointer=pointer)
    types = {column.name: column for column in dataset.column_types}
    check_values([types[name] for name in columns], pointer=pointer)
    check_values([types[response]], pointer=f"{_POSTERIOR}/response")
    for index, name in enumerate(columns):
        if name in (response, INTERCEPT):
            what = "the response itself" if name == response else f"called {INTERCEPT}, as the"
            what += "" if name == response else " constant term is, which every regression has"
            raise RequestError(
                "columns-overlap",
                f"column {index + 1} of the {len(columns)} that explain is {what}: leave it out",
                pointer=pointer,
            )
    return columns


def _check_binary(response: str, dataset: Dataset) -> None:
    [column] = [column for column in dataset.stored_columns if column["name"] == response]
    if not is_binary(column):
        raise RequestError(
            "response-not-binary",
            "the response of a logistic regression must be 0 or 1 in every row",
            pointer=f"{_POSTERIOR}/response",
        )


def _for_targets(flow: FlowSpec) -> FlowSpec:
    try:
        return for_targets(flow)
    except SpecError as error:
        raise spec_refusal(error, pointer="/flow") from error


def _is_gaussian(target: Target) -> bool:
    return isinstance(target, PosteriorTarget) and isinstance(target.posterior, LinearPosterior)


def _optimisation(
    request: VariationalOptimisationRequest, flow: FlowSpec, target: Target
) -> VariationalOptions:
    simple = isinstance(flow, GaussianSpec)
    iterations = request.iterations or (2_000 if simple else 5_000)
    annealing = request.annealing
    if annealing is None:  # a posterior starts where its mass is
        annealing = 0 if isinstance(target, PosteriorTarget) else iterations // 5
    return VariationalOptions(
        optimiser=request.optimiser,
        learning_rate=request.learning_rate or (3e-2 if simple else 1e-3),
        schedule=request.schedule,
        max_gradient_norm=chosen_norm(request.max_gradient_norm, default=10.0),
        batch_size=request.batch_size or 128,
        iterations=iterations,
        report_every=max(
            request.report_every or min(1_000, iterations // 50), ceil(iterations / _MOST_REPORTS)
        ),
        annealing=annealing,
        patience=request.patience,
        max_seconds=request.max_seconds,
        seed=secrets.randbits(31) if request.seed is None else request.seed,
    )


def bytes_per_sample(target: Target, dim: int) -> int:
    """Return the bytes that the target keeps of a sample for the gradient."""
    steps = 0
    if isinstance(target, DensityTarget):
        steps = min(len(target.log_density), _STEPS_OF_FORMULA)
    return _BYTES_PER_STEP * steps + 8 * FLOAT_BYTES * dim


def target_bytes(target: Target, dim: int, dataset: Dataset | None, *, samples: int) -> int:
    """Return the bytes of the rows of a posterior, and of the products with them."""
    if dataset is None:
        return 0
    rows = _BYTES_PER_ROW_VALUE * dataset.rows * (dim + 1)
    drawn = getattr(getattr(target, "posterior", None), "batch_rows", None) or 0
    products = 4 * 8 * max(2**22, samples)  # a chunk of rows and samples, in float64
    return rows + 2 * 8 * drawn * (dim + 1) + products + 6 * 8 * dim**2
