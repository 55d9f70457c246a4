"""Functions of rows that the routes compute."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

from app.engine.held_out_rows import HeldOutRows
from app.problems.problem import Problem
from app.rows.encode import Part
from app.rows.shape import Floats
from flows import CompiledFlow
from tabular.writers import unused_name

Space = Literal["data", "model"]
Compute = Callable[[CompiledFlow, Floats], tuple[Floats, ...]]

SCORES = ["log_prob", "quantile"]
"""Names of a calibrated score."""

_MAX_PASSES, _MAX_PASS_BYTES, _MAX_OPERATIONS = 1024, 2**30, 2**20
"""Most passes over a model for one row, most bytes of weights that they read, and most operations of about a
microsecond one after another: what others wait for."""

_EVIDENCE = ["elbo", "log_evidence"]
_NO_NOISE = "This model gives densities and samples; there is no map between data and noise."

_PARTS = ["discrete", "continuous"]
# Names of JSON members, and starts of the names of their columns elsewhere.
_CONDITIONALS = ["conditional", "mean"]
_EXPLANATIONS = ["explanation", "difference"]


@dataclass(frozen=True)
class RowFunction:
    """Function of rows that a route computes, and the names of its results.

    Args:
        name: Name of the function; those with equal names give a row the same numbers.
        compute: Callable from a flow and rows of shape (n, columns) to arrays of n entries or rows.
        columns: Names of the numbers that a row becomes.
        parts: Members of the JSON response that hold them.
        checked: Number of them that must be finite, the first ones; None: all.
        passes: Rows that the flow computes for each row.
        least_rows: Rows that are computed at a time, as far as there are as many: fixed costs are large.
        members: Further members of the JSON response.
        conditionals: True for one that needs the densities of single columns.
        whole: True for one that needs more of a flow than scores do (`CompiledFlow.prepare`).
        differences: Number of the last columns, which are differences of explanations from the usual ones;
            None if the first column is not the log density of a row of data, which is watched.
    """

    name: str
    compute: Compute
    columns: Sequence[str]
    parts: Sequence[Part]
    checked: int | None = None
    passes: int = 1
    least_rows: int = 1
    members: Mapping[str, Any] = field(default_factory=dict)
    conditionals: bool = False
    whole: bool = False
    differences: int | None = None

    @cached_property
    def width(self) -> int:
        """Numbers that a row becomes."""
        return len(self.columns)


def log_prob_alone(space: Space) -> RowFunction:
    """Return the function that computes log densities."""

    def compute(flow: CompiledFlow, rows: Floats) -> tuple[Floats]:
        return (flow.log_prob(rows, space=space),)

    watched = _watched(space)
    return RowFunction("log_prob", compute, ["log_prob"], _each(["log_prob"]), differences=watched)


def log_prob_parts(space: Space) -> RowFunction:
    """Return the function that computes log densities and their discrete and continuous parts."""

    def compute(flow: CompiledFlow, rows: Floats) -> tuple[Floats, Floats]:
        parts = flow.log_prob_parts(rows, space=space)
        return parts.sum(axis=1), parts

    names = ["log_prob", *_PARTS]
    return RowFunction(
        "log_prob_parts", compute, names, _each(names), checked=1, differences=_watched(space)
    )


def log_prob_conditionals(
    space: Space, columns: Sequence[str], order: Sequence[int]
) -> RowFunction:
    """Return the function that computes log densities, and those of single columns given others.

    Args:
        order: Numbers of the columns, in the order in which each is given those before it.
    """

    def compute(flow: CompiledFlow, rows: Floats) -> tuple[Floats, Floats, Floats]:
        assert flow.conditionals is not None  # noqa: S101  the function asks for such a flow
        return flow.log_prob(rows, space=space), *flow.conditionals.compute(rows, space=space)

    names, parts = ["log_prob"], _each(["log_prob"])
    _add_by_column(names, parts, _CONDITIONALS, columns)
    return RowFunction(
        "log_prob_conditionals",
        compute,
        names,
        parts,
        checked=1,
        passes=2,
        members={"order": [columns[number] for number in order]},
        conditionals=True,
        differences=_watched(space),
    )


def _watched(space: Space) -> int | None:
    """Return the number of differences of a function of log densities, which are watched of data alone."""
    return 0 if space == "data" else None


def conditional_order_of(flow: CompiledFlow) -> list[int]:
    """Return the order of the columns of a flow that has densities of single ones.

    Raises:
        Problem: `conditionals-unavailable`.
    """
    if flow.conditional_order is None:
        raise Problem("conditionals-unavailable")
    return flow.conditional_order


def score_alone(held_out: HeldOutRows) -> RowFunction:
    """Return the function that computes calibrated scores."""

    def compute(flow: CompiledFlow, rows: Floats) -> tuple[Floats, Floats]:
        log_prob = flow.log_prob(rows)
        return log_prob, held_out.rank(log_prob)

    parts = _each(SCORES)
    return RowFunction("score", compute, SCORES, parts, members=held_out.members, differences=0)


def noise_of(columns: Sequence[str], space: Space) -> RowFunction:
    """Return the function that maps rows to noise, with the log determinant of each."""

    def compute(flow: CompiledFlow, rows: Floats) -> tuple[Floats, Floats]:
        if not flow.has_noise:
            raise Problem("model-without-noise", _NO_NOISE)
        return flow.inverse(rows, space=space)

    return _transformed("inverse", compute, columns)


def data_of(columns: Sequence[str], space: Space) -> RowFunction:
    """Return the function that maps noise to rows, with the log determinant of each."""

    def compute(flow: CompiledFlow, rows: Floats) -> tuple[Floats, Floats]:
        if flow.has_parts:
            raise Problem("model-without-noise", _NO_NOISE)
        return flow.forward(rows, space=space)

    return _transformed("forward", compute, columns)


def _transformed(name: str, compute: Compute, columns: Sequence[str]) -> RowFunction:
    parts = [Part("rows", 0, len(columns)), Part("log_det", len(columns), None)]
    return RowFunction(name, compute, [*columns, unused_name("log_det", columns)], parts)


def evidence_of(samples: int, seed: int) -> RowFunction:
    """Return the function that computes the evidence of rows under a model with latent variables."""

    def compute(flow: CompiledFlow, rows: Floats) -> tuple[Floats, Floats]:
        from flows import row_evidence  # noqa: PLC0415  it loads PyTorch

        return row_evidence(flow, rows, samples=samples, seed=seed)

    name, parts = f"evidence_{samples}_{seed}", _each(_EVIDENCE)
    return RowFunction(name, compute, _EVIDENCE, parts, passes=samples, members={"seed": seed})


def check_evidence(flow: CompiledFlow, samples: int) -> None:
    """Refuse the evidence of rows where a model has none, or takes too long for a request.

    Raises:
        Problem: `evidence-unavailable`.
    """
    if flow.decoder is None:
        raise Problem("evidence-unavailable")
    if samples * flow.size_bytes > _MAX_PASS_BYTES:
        raise Problem(
            "evidence-unavailable",
            f"The evidence of a row would take {samples:,} passes over a large model, which would keep"
            " others waiting; lower `samples`.",
        )


def score_explained(
    held_out: HeldOutRows, columns: Sequence[str], flow: CompiledFlow, usual: Floats
) -> RowFunction:
    """Return the function that computes calibrated scores and explains them.

    Args:
        held_out: Rows that scores are ranked among.
        flow: Flow that explains some of them.
        usual: Usual term of each column; NaN where none is known.
    """

    def compute(flow: CompiledFlow, rows: Floats) -> tuple[Floats, ...]:
        log_prob, terms = flow.log_prob(rows), flow.explain(rows)
        return log_prob, held_out.rank(log_prob), terms, terms - usual

    names, parts = [*SCORES], _each(SCORES)
    _add_by_column(names, parts, _EXPLANATIONS, columns)
    known = [None if math.isnan(term) else term for term in usual.tolist()]
    return RowFunction(
        "score_explained",
        compute,
        names,
        parts,
        checked=len(SCORES),
        passes=1 + flow.explaining_passes,
        differences=len(columns),
        members={
            **held_out.members,
            "explained": dict(zip(columns, flow.explained_kinds, strict=True)),
            "usual": dict(zip(columns, known, strict=True)),
        },
    )


def _each(names: Sequence[str]) -> list[Part]:
    """Return members of a response of one number a row each."""
    return [Part(name, place, None) for place, name in enumerate(names)]


def _add_by_column(
    names: list[str], parts: list[Part], members: Sequence[str], columns: Sequence[str]
) -> None:
    """Add members of the response that hold a number for each column of the model."""
    for member in members:
        parts.append(Part(member, len(names), len(names) + len(columns), keys=columns))
        names += [f"{member}.{name}" for name in columns]


def check_explanation(flow: CompiledFlow) -> None:
    """Refuse explanations where a flow explains no column, or takes too long for a request.

    Raises:
        Problem: `explanation-unavailable`.
    """
    if all(kind == "unavailable" for kind in flow.explained_kinds):
        raise Problem("explanation-unavailable")
    passes = flow.explaining_passes
    if (
        passes > _MAX_PASSES
        or passes * flow.size_bytes > _MAX_PASS_BYTES
        or passes * flow.operations.density > _MAX_OPERATIONS
    ):
        raise Problem(
            "explanation-unavailable",
            f"An explanation would take {passes:,} passes over the model for each row, which would keep"
            " others waiting; explain the rows by a scoring job.",
        )
