"""Limits of flows, checked by their estimated cost before anything is built."""

import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from flows import (
    Cost,
    EncoderSpec,
    EnsembleSpec,
    FlowSpec,
    LatentSpec,
    MixedSpec,
    SpecError,
    check_dim,
    flow_cost,
)
from models_store.errors import RequestError
from tabular.slugs import Slug

# Rows that a score or a sample computes at once at the least: a block of noise.
_LEAST_ROWS = 64
# About half a second of small operations, for which a sample keeps the engine from others.
_MOST_OPERATIONS = 2**19
_MIB = 2**20


@dataclass(frozen=True)
class TrainingLimits:
    """Limits of one flow, and of one job that fits it.

    Args:
        max_layers: Hidden layers of all the networks of one flow together.
        max_memory_bytes: Estimated peak memory of the trainer.
        max_model_bytes: Estimated memory of one loaded flow while it computes.
    """

    max_parameters: int
    max_layers: int
    max_memory_bytes: int
    max_model_bytes: int


@dataclass(frozen=True)
class Described:
    """Flow that is requested, or that is to be loaded.

    Args:
        flow: Specification of the flow.
        dim: Number of features.
        context_dim: Number of columns that the density is conditioned on.
        pointer: JSON pointer of the description in the request; None: it is no part of it.
    """

    flow: FlowSpec
    dim: int
    context_dim: int = 0
    pointer: str | None = "/flow"

    @property
    def cost(self) -> Cost:
        """Cost of the flow."""
        return flow_cost(self.flow, self.dim, self.context_dim)

    def refuse(self, slug: Slug, text: str) -> RequestError:
        """Return the error that names the greatest number of the flow as what may be lowered.

        Args:
            slug: Slug of the problem.
            text: Sentence with the amount that is needed and the one that is allowed.
        """
        size, where = max(_sizes(self.flow), default=(0, "/flow"))
        field = where.strip("/").replace("/", ".")
        remedy = f"lower `{field}`" if size else "make the flow smaller"
        if isinstance(self.flow, MixedSpec):
            remedy += ", or take fewer columns and levels"
        return RequestError(slug, f"{text}; {remedy}", pointer=where if self.pointer else "")


def check_flow(described: Described, *, limits: TrainingLimits) -> Cost:
    """Return the cost of a flow that exists and is not too large.

    Raises:
        RequestError: There is no such flow, or the flow passes a limit.
    """
    try:
        check_dim(described.flow, described.dim, described.context_dim)
    except SpecError as error:
        raise spec_refusal(error, pointer=described.pointer or "") from error
    cost = described.cost
    for most, found, what in (
        (limits.max_layers, cost.layers, "hidden layers"),
        (limits.max_parameters, cost.parameters, "parameters"),
    ):
        if found > most:
            text = f"the flow would have {found:,} {what}; this server allows {most:,}"
            raise described.refuse("limit-parameters", text)
    check_model(described, max_bytes=limits.max_model_bytes)
    return cost


def spec_refusal(error: SpecError, *, pointer: str) -> RequestError:
    """Return the refusal of a flow that cannot be built.

    Args:
        error: Error that names the reason.
        pointer: JSON pointer of the flow in the request.
    """
    match error.code:
        case "family-unknown" | "spec-invalid":
            return RequestError("validation", str(error), pointer=pointer)
        case code:
            return RequestError(code, str(error), pointer=pointer)


def check_model(described: Described, *, max_bytes: int) -> None:
    """Check that a flow can be loaded, and computes without keeping others waiting.

    Args:
        max_bytes: Memory of the loaded flow while it computes.

    Raises:
        RequestError: The flow passes a limit.
    """
    cost = described.cost
    if _loaded(cost) > max_bytes:
        text = (
            f"the flow would take about {_loaded(cost) / _MIB:,.0f} MiB to compute scores and"
            f" samples; this server allows {max_bytes / _MIB:,.0f} MiB"
        )
        raise described.refuse("limit-memory", text)
    if _operations(cost) > _MOST_OPERATIONS:
        text = (
            f"a row would take {_operations(cost):,} operations one after another; this server"
            f" allows {_MOST_OPERATIONS:,}"
        )
        raise described.refuse("limit-parameters", text)


def _loaded(cost: Cost) -> int:
    return cost.loaded_bytes + cost.score_bytes(_LEAST_ROWS)


def _operations(cost: Cost) -> int:
    return max(cost.operations)


MEASURES: tuple[Callable[[Cost], int], ...] = (
    lambda cost: cost.layers,
    lambda cost: cost.parameters,
    _loaded,
    _operations,
)
"""Parts of a cost that have limits."""


def _sizes(flow: FlowSpec) -> Iterator[tuple[int, str]]:
    """Yield each number of a flow that makes it larger, with its place in a request."""
    match flow:
        case MixedSpec():
            yield sum(flow.hidden), "/discrete/hidden"
            if flow.flow is not None:
                yield from _sizes(flow.flow)
        case LatentSpec():
            yield sum(flow.hidden), "/target/latent/hidden"
            yield from _sizes(flow.flow)
        case EnsembleSpec():
            return
        case _:
            for field in dataclasses.fields(flow):
                yield _size(getattr(flow, field.name)), f"/flow/{field.name}"


def _size(value: object) -> int:
    if isinstance(value, list):
        return sum(value)
    if isinstance(value, EncoderSpec):
        return sum(value.hidden) + value.features
    return value if isinstance(value, int) else 0
