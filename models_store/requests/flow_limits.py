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
# Fields whose halves take as much, up to this factor, are alike.
_ALIKE = 1.1
_DISCRETE, _DECODER = "discrete.hidden", "decoder.hidden"

Measure = Callable[[Cost], int]


@dataclass(frozen=True)
class TrainingLimits:
    """Limits of one flow, and of one job that fits it.

    Args:
        max_parameters: Weights of one flow.
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

    def refuse(self, slug: Slug, text: str, measure: Measure) -> RequestError:
        """Return the error that names the field of the flow which counts most.

        Args:
            slug: Slug of the problem.
            text: Sentence with the amount that is needed and the one that is allowed.
            measure: Function that returns the part of the cost that is too much.
        """
        field = self._heaviest(measure)
        remedy = "make the flow smaller" if field is None else f"lower {field!r} of the flow"
        where = self.pointer or ""
        if field is not None and self.pointer is not None:
            where = f"{where}/{field}"
        if field == _DISCRETE:
            remedy = "lower `discrete.hidden`, or take fewer columns and levels"
            where = "" if self.pointer is None else "/discrete/hidden"
        if field == _DECODER:
            remedy = "lower `hidden` of the target"
            where = "" if self.pointer is None else "/target/latent/hidden"
        return RequestError(slug, f"{text}; {remedy}", pointer=where)

    def _heaviest(self, measure: Measure) -> str | None:
        """Return the field which, halved, takes most away; None if none takes anything.

        Of several that take about as much, it is the one with the greatest number.
        """
        found = [
            (measure(dataclasses.replace(self, flow=smaller).cost), size, field)
            for field, size, smaller in _halved(self.flow)
        ]
        least = min(found, default=(measure(self.cost), 0, ""))[0]
        if least >= measure(self.cost):
            return None
        alike = [(size, field) for cost, size, field in found if cost <= _ALIKE * least]
        return max(alike)[1]


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
    for most, measure, what in (
        (limits.max_layers, _layers, "hidden layers"),
        (limits.max_parameters, _parameters, "parameters"),
    ):
        if measure(cost) > most:
            text = f"the flow would have {measure(cost):,} {what}; this server allows {most:,}"
            raise described.refuse("limit-parameters", text, measure)
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
        described: Flow to check.
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
        raise described.refuse("limit-memory", text, _loaded)
    if _operations(cost) > _MOST_OPERATIONS:
        text = (
            f"a row would take {_operations(cost):,} operations one after another; this server"
            f" allows {_MOST_OPERATIONS:,}"
        )
        raise described.refuse("limit-parameters", text, _operations)


def _layers(cost: Cost) -> int:
    return cost.layers


def _parameters(cost: Cost) -> int:
    return cost.parameters


def _loaded(cost: Cost) -> int:
    return cost.loaded_bytes + cost.score_bytes(_LEAST_ROWS)


def _operations(cost: Cost) -> int:
    return max(cost.operations)


def _halved(flow: FlowSpec) -> Iterator[tuple[str, int, FlowSpec]]:
    """Yield each field that is a size, its greatest number, and the flow with half of it."""
    if isinstance(flow, MixedSpec):
        yield from _halved_mixed(flow)
        return
    if isinstance(flow, EnsembleSpec):
        kept = flow.members[: (len(flow.members) + 1) // 2]
        weights = [1 / len(kept)] * len(kept)
        yield "members", len(flow.members), EnsembleSpec(members=kept, weights=weights)
        return
    if isinstance(flow, LatentSpec):
        for field, size, smaller in _halved_fields(flow.flow):
            yield field, size, dataclasses.replace(flow, flow=smaller)  # type: ignore[arg-type]  # of the same family
        if flow.hidden:
            halved = dataclasses.replace(flow, hidden=_half_of(flow.hidden))
            yield _DECODER, max(flow.hidden), halved
        return
    yield from _halved_fields(flow)


def _halved_fields(flow: FlowSpec) -> Iterator[tuple[str, int, FlowSpec]]:
    for field in dataclasses.fields(flow):
        value = getattr(flow, field.name)
        smaller: object
        size = 0
        match value:
            case bool():
                continue
            case int():
                size, smaller = value, max(1, value // 2)
            case [*widths]:
                size, smaller = max(widths), _half_of(widths)
            case EncoderSpec():
                features, size = max(1, value.features // 2), max(value.hidden)
                smaller = EncoderSpec(_half_of(value.hidden), features, value.activation)
            case _:
                continue
        try:
            yield field.name, size, dataclasses.replace(flow, **{field.name: smaller})  # type: ignore[arg-type]  # of the field's own type
        except ValueError:
            continue  # such a flow has no less


def _halved_mixed(flow: MixedSpec) -> Iterator[tuple[str, int, FlowSpec]]:
    smaller = dataclasses.replace(flow, hidden=_half_of(flow.hidden))
    yield _DISCRETE, max(flow.hidden), smaller
    if flow.flow is not None:
        for field, size, inner in _halved(flow.flow):
            if not isinstance(inner, MixedSpec | EnsembleSpec | LatentSpec):
                yield field, size, dataclasses.replace(flow, flow=inner)


def _half_of(widths: list[int]) -> list[int]:
    kept = widths if len(widths) <= 2 else widths[: len(widths) // 2]
    return [max(1, width // 2) for width in kept]
