"""Acceptance of training requests: checks against the data, and values for all options.

The choices aim at a good model of an unknown table on a small machine; `docs/api.md` lists them.
"""

import secrets
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any, Literal

from flows import (
    Cost,
    FitOptions,
    FlowSpec,
    GaussianMixtureSpec,
    MixedSpec,
    default_continuous,
    default_hidden,
)
from flows.defaults import LARGE_TABLE, default_epochs, default_flow, default_learning_rate
from flows.specs.gaussian_mixture import sample_bytes
from models_store.errors import RequestError
from models_store.records import Dataset
from models_store.requests.encoding import encoded_columns, encodes_numbers, has_profile
from models_store.requests.flow_limits import Described, TrainingLimits, check_flow
from models_store.requests.mixed import (
    accept_preprocessing,
    accept_types,
    check_held_out,
    is_mixed,
    is_numeric,
    needs_values,
)
from models_store.requests.training import (
    AcceptedSplit,
    AcceptedTraining,
    OptimisationRequest,
    Preprocessing,
    Quality,
    SplitRequest,
    TrainingRequest,
)
from tabular.columns import Column
from tabular.source import MAX_NAME_LENGTH

MIN_TRAIN_ROWS = 10
MIN_HELD_OUT_ROWS = 2
_FEWEST_ROWS = MIN_TRAIN_ROWS + MIN_HELD_OUT_ROWS
_HELD_OUT = 0.1  # share of the rows for validation, and for the test
ROW_LOSS_BOUND = 30.0
WEIGHT_AVERAGE = 0.99
# Multiples of the default number of epochs, and the longest patience, by the wanted quality.
_EPOCHS: dict[Quality, float] = {"fast": 0.25, "balanced": 1.0, "best": 4.0}
_PATIENCE: dict[Quality, int] = {"fast": 10, "balanced": 30, "best": 60}
_MOST_EPOCHS = 100_000
FLOAT_BYTES = 4
# Weights, gradients, two moments of Adam, average and best so far; a snapshot of all but two.
COPIES_OF_WEIGHTS = 10
EVALUATED_ROWS = 512  # at a time
_COPIES_OF_ROWS = 3  # the rows, their noise, slack


@dataclass(frozen=True)
class HeldOut:
    """Datasets that a split names beside the training dataset."""

    validation: Dataset | None = None
    test: Dataset | None = None


def accept_training(
    request: TrainingRequest,
    dataset: Dataset,
    *,
    limits: TrainingLimits,
    held_out: HeldOut = HeldOut(),
) -> AcceptedTraining:
    """Check `request` against its data and fill in everything that it left open.

    Raises:
        RequestError: The request cannot work on this data or is too large.
    """
    context = check_columns(request.context_columns, dataset, pointer="/context_columns")
    columns = check_columns(_modelled(request, dataset), dataset, pointer="/columns")
    _refuse_overlap(columns, context)
    types = accept_types(request, dataset, columns=columns, context=context)
    if not needs_values(request):
        _refuse_constant(types[: len(columns)], dataset, pointer="/columns")
    _refuse_constant(types[len(columns) :], dataset, pointer="/context_columns")
    for part in (held_out.validation, held_out.test):
        if part is not None:
            check_columns([*columns, *context], part, pointer="/columns")
            check_held_out(types, part)
    split = _split(request.split, dataset.rows, held_out)
    train_rows = int(dataset.rows * split.train)
    flow = _accepted_flow(request, dataset, types, train_rows=train_rows)
    described = Described(flow, len(columns), len(context))
    check_flow(described, limits=limits)
    modelled = set(columns)
    preprocessing = accept_preprocessing(
        request.preprocessing, flow, [c for c in dataset.columns if c["name"] in modelled]
    )
    optimisation = choose_optimisation(
        request.optimisation,
        quality=request.quality,
        flow=flow,
        train_rows=train_rows,
        dim=len(columns),
    )
    check_memory(
        described,
        batch_size=optimisation.batch_size,
        beside=_row_bytes(
            sum(part.rows for part in (dataset, held_out.validation, held_out.test) if part),
            row_width(flow, len(columns) + len(context)),
            limits,
        )
        + start_bytes(flow, train_rows, len(columns) + len(context)),
        limits=limits,
    )
    return AcceptedTraining(
        model_name=request.model_name,
        dataset_id=request.dataset_id,
        columns=columns,
        context_columns=context,
        types=[one.to_dict() for one in types],
        **_encoding(flow, preprocessing, types[: len(columns)], dataset),
        split=split,
        preprocessing=preprocessing,
        flow=flow,
        optimisation=optimisation,
    )


def _encoding(
    flow: FlowSpec, preprocessing: Preprocessing, types: Sequence[Column], dataset: Dataset
) -> dict[str, Any]:
    """Return the fields that say what is done with the cells of the columns to model."""
    statistics = {column["name"]: column for column in dataset.columns}
    is_decided = has_profile(types, statistics)
    encoding = None
    if is_decided and encodes_numbers(flow, preprocessing):
        encoding = encoded_columns(types, statistics, rows=dataset.rows, grids=True)
    return {"encoding": encoding, "is_decided": is_decided}


def _accepted_flow(
    request: TrainingRequest, dataset: Dataset, types: Sequence[Column], *, train_rows: int
) -> FlowSpec:
    """Return the flow of a training: of numbers alone, or of a mixed table."""
    dim = len(types) - len(request.context_columns)
    if not is_mixed(types) and request.missing == "observed":
        return request.chosen_flow or default_flow(train_rows, dim)
    statistics = {column["name"]: column for column in dataset.columns}
    grids = request.preprocessing.dequantise == "auto"
    columns = encoded_columns(types[:dim], statistics, rows=dataset.rows, grids=grids)
    context = encoded_columns(types[dim:], statistics, rows=dataset.rows, grids=False)
    count = sum(column.levels == 0 for column in columns)
    # Tables of numbers keep the family that their rankings were measured with.
    default = (
        default_flow(train_rows, count)
        if is_numeric(types)
        else default_continuous(count, train_rows)
    )
    return MixedSpec(
        columns=columns,
        context=context,
        flow=(request.chosen_flow or default) if count else None,
        hidden=request.discrete.hidden or default_hidden(train_rows),
        missing=request.missing,
        rows=train_rows,
    )


def row_width(flow: FlowSpec, columns: int) -> int:
    """Return the numbers of a row in training: a cell of a mixed row may have a state beside it."""
    return 2 * columns if isinstance(flow, MixedSpec) else columns


def _modelled(request: TrainingRequest, dataset: Dataset) -> list[str]:
    if request.columns is not None:
        return request.columns
    context = set(request.context_columns)
    columns = [one["name"] for one in dataset.stored_columns if one["name"] not in context]
    if not columns:
        raise RequestError(
            "columns-overlap", "no column is left to model", pointer="/context_columns"
        )
    return columns


def _refuse_overlap(columns: Sequence[str], context: Sequence[str]) -> None:
    modelled = set(columns)
    both = [index for index, name in enumerate(context) if name in modelled]
    if both:
        raise RequestError(
            "columns-overlap",
            f"entry {both[0]} of `context_columns` is among the columns to model, too",
            pointer=f"/context_columns/{both[0]}",
        )


def check_columns(columns: list[str], dataset: Dataset, *, pointer: str) -> list[str]:
    """Return the columns, each of which the dataset has and is named once.

    Raises:
        RequestError: A column is missing or named twice.
    """
    known: dict[str, dict[str, Any]] = {one["name"]: one for one in dataset.stored_columns}
    missing = [name for name in columns if name not in known]
    if missing:
        every = {one["name"] for one in dataset.columns}
        ignored = next((name for name in missing if name in every), None)
        first, more = missing[0][:MAX_NAME_LENGTH], len(missing) - 1
        remedy = "" if ignored is None else f"; {ignored!r} is ignored there: change its type first"
        like = next((name for name in known if name.casefold() == first.casefold()), None)
        if like is not None:
            remedy = f"; did you mean {like!r}?"
        raise RequestError(
            "unknown-column",
            f"dataset {dataset.id} has no column {first!r}{f' and {more} more' if more else ''}{remedy}",
            pointer=pointer,
        )
    twice = next((name for name, times in Counter(columns).items() if times > 1), None)
    if twice is not None:
        raise RequestError("duplicate-column", f"column {twice!r} is named twice", pointer=pointer)
    return columns


def _refuse_constant(columns: Sequence[Column], dataset: Dataset, *, pointer: str) -> None:
    """Refuse columns of one value from before such columns had a level."""
    spread = {column["name"]: column.get("std") for column in dataset.columns}
    for index, column in enumerate(columns):
        if not column.is_discrete and spread[column.name] == 0:
            raise RequestError(
                "dataset-constant-column",
                f"column {index + 1} of the {len(columns)} in `{pointer[1:]}` is constant:"
                " it has no density and tells nothing; leave it out",
                pointer=pointer,
            )


def _split(split: SplitRequest, rows: int, held_out: HeldOut) -> AcceptedSplit:
    own_validation, own_test = held_out.validation is not None, held_out.test is not None
    stated = own_validation or own_test or {split.train, split.validation, split.test} != {None}
    if not stated and _FEWEST_ROWS <= rows < MIN_HELD_OUT_ROWS / _HELD_OUT:
        # No row is left for a test.
        split = split.model_copy(update={"validation": MIN_HELD_OUT_ROWS / rows, "test": 0.0})
    test = 0.0 if own_test else _HELD_OUT if split.test is None else split.test
    validation = (
        0.0 if own_validation else _HELD_OUT if split.validation is None else split.validation
    )
    train = split.train if split.train is not None else round(1.0 - validation - test, 12)
    if train + validation + test > 1 + 1e-9:
        raise RequestError(
            "split-invalid",
            f"train {train:g}, validation {validation:g} and test {test:g} sum to more than 1"
            " (parts left out are 0.1)",
            pointer="/split",
        )
    _check_part("train", max(0, int(rows * train + 1e-9)), MIN_TRAIN_ROWS)
    validation_rows = rows * validation if held_out.validation is None else held_out.validation.rows
    _check_part("validation", int(validation_rows), MIN_HELD_OUT_ROWS)
    if test > 0 or held_out.test is not None:
        test_rows = rows * test if held_out.test is None else held_out.test.rows
        _check_part("test", int(test_rows), MIN_HELD_OUT_ROWS)
    return AcceptedSplit(
        train=train,
        validation=validation,
        test=test,
        shuffle=split.shuffle,
        seed=split.seed,
        validation_dataset_id=split.validation_dataset_id,
        test_dataset_id=split.test_dataset_id,
    )


def _check_part(name: str, rows: int, least: int) -> None:
    if rows < least:
        raise RequestError(
            "split-too-small",
            f"the {name} part would have {rows} rows; it needs at least {least}",
            pointer=f"/split/{name}",
        )


def chosen_norm(wanted: float | Literal["none"] | None, *, default: float) -> float | None:
    """Return the bound of a gradient's norm: the wanted one, the default, or none."""
    return None if wanted == "none" else wanted or default


def choose_optimisation(
    request: OptimisationRequest, *, quality: Quality, flow: FlowSpec, train_rows: int, dim: int
) -> FitOptions:
    """Return the options of a training, with values that suit the data where the request leaves them open."""
    chosen = 500 if train_rows >= LARGE_TABLE else max(32, min(250, train_rows // 16))
    batch_size = max(2, min(request.batch_size or chosen, train_rows))
    steps = ceil(train_rows / batch_size)
    chosen_epochs = ceil(_EPOCHS[quality] * default_epochs(flow, dim, rows=train_rows, steps=steps))
    max_epochs = request.max_epochs or min(chosen_epochs, _MOST_EPOCHS)
    return FitOptions(
        optimiser=request.optimiser,
        learning_rate=request.learning_rate or default_learning_rate(flow, dim),
        weight_decay=request.weight_decay,
        max_gradient_norm=chosen_norm(request.max_gradient_norm, default=5.0),
        batch_size=batch_size,
        max_epochs=max_epochs,
        patience=request.patience or max(10, min(_PATIENCE[quality], max_epochs // 3)),
        max_seconds=request.max_seconds,
        schedule=request.schedule,
        row_loss_bound=ROW_LOSS_BOUND if request.robust else None,
        weight_average=request.weight_average or (WEIGHT_AVERAGE if request.robust else None),
        noise="epoch" if request.robust else "once",
        restarts=1 if request.robust else 0,
        mixed_precision=request.mixed_precision,
        seed=secrets.randbits(31) if request.seed is None else request.seed,
    )


def _row_bytes(rows: int, columns: int, limits: TrainingLimits) -> int:
    """Return the bytes of the rows: in memory, or a window of them beside their numbers."""
    mapped = limits.max_memory_bytes // 4 + mapped_bytes(rows)
    return min(resident_bytes(rows, columns), mapped)


def resident_bytes(rows: int, columns: int) -> int:
    """Return the bytes of rows in memory."""
    return _COPIES_OF_ROWS * FLOAT_BYTES * rows * columns


def mapped_bytes(rows: int) -> int:
    """Return the bytes of the numbers of rows that stay in their file."""
    return 4 * FLOAT_BYTES * rows


def start_bytes(flow: FlowSpec, rows: int, columns: int) -> int:
    """Return the bytes of the rows that a mixture of Gaussians starts from."""
    inner = flow.flow if isinstance(flow, MixedSpec) else flow
    return sample_bytes(rows, columns) if isinstance(inner, GaussianMixtureSpec) else 0


def training_bytes(cost: Cost, *, batch_size: int, sampling: bool = False) -> int:
    """Return the most memory of a trainer, beside its rows.

    Args:
        batch_size: Rows of a step.
        sampling: True if training goes from noise to data.
    """
    weights = FLOAT_BYTES * cost.parameters
    way = cost.sampling if sampling else cost.density
    computing = max(way.step(batch_size), cost.score_bytes(EVALUATED_ROWS))
    return max(
        COPIES_OF_WEIGHTS * weights + 3 * cost.buffers + computing, 2 * weights + cost.load_bytes
    )


def check_memory(
    described: Described,
    *,
    batch_size: int,
    beside: int,
    limits: TrainingLimits,
    sampling: bool = False,
    sample_bytes: int = 0,
) -> None:
    """Refuse a job that needs more memory than one may take.

    Args:
        batch_size: Rows of a step.
        beside: Bytes of the rows of the dataset.
        sampling: True if training goes from noise to data.
        sample_bytes: Bytes that a target keeps of a row of a step.

    Raises:
        RequestError: The job needs too much; the error names the field that counts most.
    """
    own = training_bytes(described.cost, batch_size=batch_size, sampling=sampling)
    total = own + batch_size * sample_bytes + beside
    if total <= limits.max_memory_bytes:
        return
    text = (
        f"training would need about {total / 2**20:,.0f} MiB;"
        f" this server allows {limits.max_memory_bytes / 2**20:,.0f} MiB"
    )
    if 2 * beside > total:
        raise RequestError("limit-memory", f"{text}; leave out rows or columns", pointer="")
    single = training_bytes(described.cost, batch_size=1, sampling=sampling) + sample_bytes
    if 2 * (single + beside) < limits.max_memory_bytes:
        pointer = "/optimisation/batch_size"
        raise RequestError("limit-memory", f"{text}; lower the batch size", pointer=pointer)
    raise described.refuse("limit-memory", text)
