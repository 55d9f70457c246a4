"""Catalogue of the flow families: the only list of them."""

import dataclasses
from collections.abc import Mapping
from typing import get_args

from flows.cost import Cost, Way
from flows.errors import SpecError
from flows.specs.columns import MixedColumn
from flows.specs.costs import network_cost, preprocessing_cost
from flows.specs.ensemble import MAX_MEMBERS, EnsembleSpec
from flows.specs.family import FamilySpec
from flows.specs.latent import LatentSpec
from flows.specs.mixed import MixedSpec
from flows.specs.spec import BatchNormSpec, EncoderSpec, Json, Spec

FAMILIES: dict[str, type[FamilySpec]] = {spec.family: spec for spec in get_args(FamilySpec)}
"""Families of continuous rows, which `MixedSpec` combines with categories and missing cells."""


FlowSpec = FamilySpec | MixedSpec | EnsembleSpec | LatentSpec


def spec_to_dict(spec: FlowSpec) -> dict[str, Json]:
    """Return the specification as JSON."""
    return dataclasses.asdict(spec)


def spec_from_dict(fields: Mapping[str, object]) -> FlowSpec:
    """Return the specification from `spec_to_dict` output; missing fields take their defaults.

    Raises:
        SpecError: Unknown family or field, or a value out of range.
    """
    kinds = FAMILIES | {spec.family: spec for spec in (MixedSpec, EnsembleSpec, LatentSpec)}
    family = fields.get("family")
    if not isinstance(family, str) or family not in kinds:
        raise SpecError("family-unknown", f"family must be one of {', '.join(FAMILIES)}")
    values = dict(fields)
    if values.pop("residual", False):  # earlier releases wrote false
        raise SpecError("spec-invalid", "networks with residual blocks are no longer supported")
    try:
        values = {name: _part_from(family, name, value) for name, value in values.items()}
        return kinds[family](**values)  # type: ignore[arg-type]  # checked by the class
    except (TypeError, ValueError) as error:
        raise SpecError("spec-invalid", str(error)) from error


_PARTS: dict[str, type[BatchNormSpec | EncoderSpec | MixedColumn]] = {
    "batch_norm": BatchNormSpec,
    "encoder": EncoderSpec,
    "columns": MixedColumn,
    "context": MixedColumn,
}


def _part_from(family: str, name: str, value: object) -> object:
    """Return the value of a field of a family: dictionaries become what they describe."""
    if isinstance(value, list):
        if family == "ensemble" and len(value) > MAX_MEMBERS:
            raise SpecError("spec-invalid", f"an ensemble has {MAX_MEMBERS} members at most")
        return [_part_from(family, name, one) if isinstance(one, dict) else one for one in value]
    if not isinstance(value, dict):
        return value
    if name in _PARTS:
        return _PARTS[name](**value)
    if name in ("flow", "members"):
        inner = value.get("family")
        if inner not in FAMILIES and (family, inner) != ("ensemble", "mixed"):
            raise SpecError("spec-invalid", f"{name} must be of a single family, not {inner}")
        return spec_from_dict(value)
    return value


def check_dim(spec: FlowSpec, dim: int, context_dim: int = 0) -> None:
    """Check that the family supports this number of features and of context columns.

    Raises:
        SpecError: The family does not support them.
    """
    spec.check_dim(dim)
    spec.check_context(context_dim)


def count_parameters(spec: FlowSpec, dim: int, context_dim: int = 0) -> int:
    """Return the number of trainable parameters, masked ones included, without allocating them."""
    return flow_cost(spec, dim, context_dim).parameters


def flow_cost(spec: FlowSpec, dim: int, context_dim: int = 0) -> Cost:
    """Return the cost of the flow, encoder and preprocessing included, without allocating it."""
    if isinstance(spec, LatentSpec):
        return flow_cost(spec.flow, dim, context_dim) + spec.decoder_cost(dim, context_dim)
    described: Spec = spec
    outer, given = preprocessing_cost(dim, context_dim), context_dim
    mixed = spec.mixed if isinstance(spec, EnsembleSpec) else spec
    if isinstance(mixed, MixedSpec):
        outer += mixed.context_cost(context_dim)
        given = mixed.features(context_dim)
    encoder = spec.encoder
    if encoder is None or context_dim == 0:
        return described.cost(dim, given) + outer
    encoding = network_cost([given, *encoder.hidden, encoder.features])
    # A compiled flow encodes in float64.
    exact = Way(used_row=2 * encoding.density.used_row)
    encoding += Cost(density=exact, sampling=exact)
    return described.cost(dim, encoder.features) + encoding + outer
