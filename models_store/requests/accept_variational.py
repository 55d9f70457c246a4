"""Acceptance of variational requests: checks of the target, and values for all options.

The choices aim at a good approximation of an unknown density on a small machine; `docs/api.md`
lists them.
"""

import secrets
from math import ceil
from typing import TYPE_CHECKING

from flows import (
    EncoderSpec,
    FlowSpec,
    GaussianSpec,
    IafSpec,
    LatentSpec,
    SpecError,
    VariationalOptions,
)
from flows.defaults import default_for_target
from flows.specs.latent import latent_names
from models_store.errors import RequestError
from models_store.records import Dataset
from models_store.requests.accept_training import (
    FLOAT_BYTES,
    check_columns,
    check_memory,
    chosen_norm,
)
from models_store.requests.flow_limits import Described, TrainingLimits, check_flow, spec_refusal
from models_store.requests.mixed import check_values, is_binary
from models_store.requests.variational import (
    AcceptedVariational,
    DensityTarget,
    LatentModel,
    LatentTarget,
    LinearPosterior,
    LogisticPosterior,
    PosteriorTarget,
    PotentialTarget,
    Target,
    VariationalOptimisationRequest,
    VariationalRequest,
)

if TYPE_CHECKING:
    from flows import FormulaError

INTERCEPT = "intercept"
_POSTERIOR, _LATENT = "/target/posterior", "/target/latent"
_JUDGED_ROWS = 10  # fewest rows to fit to, and to judge by if any are held out
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
        dataset: Dataset of a posterior.

    Raises:
        RequestError: The request cannot work or is too large.
    """
    target, dim = _target(request.target, dataset)
    flow = (
        _for_targets(request.flow)
        if request.flow is not None
        else default_for_target(dim, is_gaussian=_is_gaussian(target))
        if not isinstance(target, LatentTarget)
        else _default_for_latents(target.latent)
    )
    context_dim = 0
    if isinstance(target, LatentTarget):
        flow, context_dim = _with_decoder(flow, target.latent), len(target.latent.columns or [])
    described = Described(flow, dim, context_dim)
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
    match target:
        case PosteriorTarget(posterior=posterior):
            return posterior.dataset_id
        case LatentTarget(latent=latent):
            return latent.dataset_id
        case _:
            return None


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
        case LatentTarget(latent=latent):
            if dataset is None:
                raise ValueError("latent variables need a dataset that they explain")
            observed = latent.model_copy(update={"columns": _observed(latent, dataset)})
            return LatentTarget(latent=observed), latent.latents


def check_formula(target: DensityTarget) -> None:
    """Refuse a text that is no formula.

    Raises:
        RequestError: `formula`, with the position of what does not fit.
    """
    from flows import FormulaError, FormulaTarget  # noqa: PLC0415  they load PyTorch

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


def _excerpt(error: "FormulaError", text: str) -> str:
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


def _observed(latent: LatentModel, dataset: Dataset) -> list[str]:
    """Return the columns that latent variables explain, which have values of their distribution.

    Raises:
        RequestError: A column is missing or does not fit, or there are too few rows.
    """
    pointer = f"{_LATENT}/columns"
    names = [one["name"] for one in dataset.stored_columns]
    columns = check_columns(
        names if latent.columns is None else latent.columns, dataset, pointer=pointer
    )
    types = {column.name: column for column in dataset.column_types}
    check_values([types[name] for name in columns], pointer=pointer)
    own = set(latent_names(latent.latents))
    known = {column["name"]: column for column in dataset.stored_columns}
    for index, name in enumerate(columns):
        place = f"column {index + 1} of the {len(columns)} that are observed"
        if name in own:
            text = f"{place} has the name of a latent variable, z1 to z{latent.latents}"
            raise RequestError("columns-overlap", text, pointer=pointer)
        if latent.likelihood == "bernoulli" and not is_binary(known[name]):
            text = f"{place} is not 0 or 1 in every row, as a bernoulli likelihood needs"
            raise RequestError("response-not-binary", text, pointer=pointer)
        if latent.likelihood == "gaussian" and not (known[name].get("std") or 0) > 0:
            text = f"{place} is constant: no latent variable explains it; leave it out"
            raise RequestError("dataset-constant-column", text, pointer=pointer)
    if latent.loadings is not None and len(latent.loadings) != len(columns):
        text = f"loadings have {len(latent.loadings)} columns; {len(columns)} are observed"
        raise RequestError("dimension-mismatch", text, pointer=f"{_LATENT}/loadings")
    judged = int(dataset.rows * latent.held_out)
    if dataset.rows - judged < _JUDGED_ROWS or (latent.held_out > 0 and judged < _JUDGED_ROWS):
        text = f"there would be {dataset.rows - judged} rows to fit to and {judged} held out; each"
        text += f" part needs {_JUDGED_ROWS}"
        raise RequestError("split-too-small", text, pointer=f"{_LATENT}/held_out")
    return columns


def _default_for_latents(latent: LatentModel) -> FlowSpec:
    """Return the default flow of a posterior given a row: the exact family, or an encoder and an IAF."""
    if latent.likelihood == "gaussian" and latent.hidden is None:
        return GaussianSpec()
    width = max(64, min(512, 2 * len(latent.columns or [])))
    encoder = EncoderSpec(hidden=[width], features=max(16, min(64, 4 * latent.latents)))
    hidden = [max(64, 2 * latent.latents)]
    return IafSpec(layers=4, hidden=hidden, batch_norm=None, encoder=encoder)


def _with_decoder(flow: FlowSpec, latent: LatentModel) -> FlowSpec:
    try:
        return LatentSpec(
            flow=flow,  # type: ignore[arg-type]  # of a single family, as it was requested
            likelihood=latent.likelihood,
            hidden=latent.hidden or [],
            activation=latent.activation,
        )
    except ValueError as error:
        raise RequestError("flow-unsuitable", str(error), pointer="/flow") from error


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
        return flow.for_targets()
    except SpecError as error:
        raise spec_refusal(error, pointer="/flow") from error


def _is_conjugate(flow: FlowSpec) -> bool:
    """Return True for Gaussian posteriors of a linear decoder."""
    return isinstance(flow, LatentSpec) and isinstance(flow.flow, GaussianSpec) and not flow.hidden


def _is_gaussian(target: Target) -> bool:
    return isinstance(target, PosteriorTarget) and isinstance(target.posterior, LinearPosterior)


def _optimisation(
    request: VariationalOptimisationRequest, flow: FlowSpec, target: Target
) -> VariationalOptions:
    simple = isinstance(flow, GaussianSpec) or _is_conjugate(flow)
    iterations = request.iterations or (2_000 if simple else 5_000)
    annealing = request.annealing
    if annealing is None:  # a posterior starts where its mass is
        starts_near = isinstance(target, PosteriorTarget | LatentTarget)
        annealing = 0 if starts_near else iterations // 5
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
    if isinstance(target, LatentTarget):
        return _BYTES_PER_ROW_VALUE * dataset.rows * (1 + len(target.latent.columns or []))
    rows = _BYTES_PER_ROW_VALUE * dataset.rows * (dim + 1)
    drawn = getattr(getattr(target, "posterior", None), "batch_rows", None) or 0
    products = 4 * 8 * max(2**22, samples)  # a chunk of rows and samples, in float64
    return rows + 2 * 8 * drawn * (dim + 1) + products + 6 * 8 * dim**2
