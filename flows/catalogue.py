"""Catalogue of the flow families: the only list of them."""

import dataclasses
from collections.abc import Mapping
from typing import get_args

import torch
from jaxtyping import Float
from torch import Tensor, nn

from flows.bijections.batch_norm import BatchNormSpec
from flows.bijections.linear import ACTIVATIONS, apply_network, network, network_cost
from flows.cost import Cost, Way
from flows.ensemble import MAX_MEMBERS, EnsembleSpec, ensemble_of
from flows.errors import SpecError
from flows.families.family import FamilySpec
from flows.families.spec import EncoderSpec, Spec
from flows.flow import Context, Flow
from flows.latent import Decoder, LatentSpec
from flows.mixed.building import MixedContext
from flows.mixed.columns import MixedColumn
from flows.mixed.encoding import TableEncoding
from flows.mixed.spec import MixedSpec
from flows.preprocess import (
    Denoise,
    Logit,
    Preprocessing,
    PreprocessingSpec,
    Rescale,
    Standardise,
    preprocessing_cost,
)
from flows.training.state import Json

FAMILIES: dict[str, type[FamilySpec]] = {spec.family: spec for spec in get_args(FamilySpec)}
"""Families of continuous rows, which `MixedSpec` combines with categories and missing cells."""

FlowSpec = FamilySpec | MixedSpec | EnsembleSpec | LatentSpec

Moments = tuple[Tensor, Tensor]

_SEED_OF_DECODERS = 0x5DEC


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


def build(  # noqa: PLR0913  the flow, its data side, its context and the seed
    spec: FlowSpec,
    dim: int,
    *,
    standardise: Moments | None = None,
    preprocessing: PreprocessingSpec | None = None,
    steps: Float[Tensor, " dim"] | None = None,
    widths: Float[Tensor, " dim"] | None = None,
    denoise: Denoise | None = None,
    extent: Float[Tensor, "2 dim"] | None = None,
    context_dim: int = 0,
    standardise_context: Moments | None = None,
    seed: int,
) -> Flow:
    """Return an untrained flow on the CPU, in float32.

    Args:
        spec: Specification of the flow. One of family `mixed` describes its preprocessing itself,
            which `flows.mixed.building.fit_encoding` fits to rows: the arguments for it are left out.
            One of family `latent` takes the context and its moments alone.
        standardise: Mean and standard deviation of each feature, after the other preprocessing;
            None leaves that layer out.
        steps: Distance between neighbouring values of each discrete column, 0 for continuous ones.
        widths: Widths of the noise on each column; None takes the steps.
        denoise: Maps that take wide noise off samples; None leaves them out.
        extent: Least and greatest value of samples of each feature; None leaves these out.
        standardise_context: Mean and standard deviation of each context column; None leaves it as
            it is.
        seed: Seed of initial weights and random orders; the global generators are not touched.

    Raises:
        SpecError: The family does not support this number of features.
    """
    if isinstance(spec, MixedSpec):
        return _build_mixed(spec, dim, context_dim=context_dim, seed=seed)
    if isinstance(spec, LatentSpec):
        moments = standardise_context
        return _build_latent(spec, dim, moments, context_dim=context_dim, seed=seed)
    if isinstance(spec, EnsembleSpec):
        members = [
            build(
                member,
                dim,
                standardise=standardise,
                preprocessing=preprocessing,
                steps=steps,
                widths=widths,
                denoise=denoise,
                extent=extent,
                context_dim=context_dim,
                standardise_context=standardise_context,
                seed=seed,
            )
            for member in spec.members
        ]
        return ensemble_of(members, spec.weights)
    described: Spec = spec
    check_dim(spec, dim, context_dim)
    generator = torch.Generator().manual_seed(seed)
    encoder = spec.encoder
    features = context_dim if encoder is None else encoder.features
    transform = described.build(dim, generator, features if context_dim else 0)
    chosen = preprocessing or PreprocessingSpec()
    levels, margin = chosen.levels, chosen.logit
    outer = Preprocessing(
        steps=torch.ones(dim) if levels is not None and steps is None else steps,
        widths=widths,
        denoise=denoise,
        extent=extent,
        rescale=None if levels is None else Rescale(dim, levels),
        logit=None if margin is None else Logit(dim, margin),
        standardise=None if standardise is None else Standardise(*standardise),
    )
    context = None
    if context_dim:
        moments = standardise_context
        context = Context(
            context_dim,
            None if moments is None else Standardise(*moments),
            None if encoder is None else Encoder(context_dim, encoder, generator),
        )
    cost = flow_cost(spec, dim, context_dim)
    return Flow(
        transform, outer, context=context, row_bytes=cost.row_bytes, operations=cost.operations
    )


def _build_mixed(spec: MixedSpec, dim: int, *, context_dim: int, seed: int) -> Flow:
    check_dim(spec, dim, context_dim)
    generator = torch.Generator().manual_seed(seed)
    given = spec.features(context_dim)
    context = encoder = None
    if context_dim and spec.encoder is not None:
        encoder = Encoder(given, spec.encoder, generator)
        given = spec.encoder.features
    transform = spec.build(dim, generator, given if context_dim else 0)
    if context_dim:
        table = MixedContext(spec.context_layout(context_dim))
        context = Context(context_dim, None, encoder, table=table)
    cost = flow_cost(spec, dim, context_dim)
    encoding = TableEncoding(spec.layout(dim))
    return Flow(
        transform, encoding, context=context, row_bytes=cost.row_bytes, operations=cost.operations
    )


def _build_latent(
    spec: LatentSpec, dim: int, moments: Moments | None, *, context_dim: int, seed: int
) -> Flow:
    check_dim(spec, dim, context_dim)
    flow = build(spec.flow, dim, context_dim=context_dim, standardise_context=moments, seed=seed)
    # A generator of its own: the flow alone has the same weights.
    generator = torch.Generator().manual_seed(seed ^ _SEED_OF_DECODERS)
    flow.decoder = Decoder(spec, dim, context_dim, generator)
    cost = flow_cost(spec, dim, context_dim)
    flow.row_bytes, flow.operations = cost.row_bytes, cost.operations
    return flow


class Encoder(nn.Module):
    """Encoder network of the context, described by an `EncoderSpec`."""

    def __init__(self, dim: int, spec: EncoderSpec, generator: torch.Generator) -> None:
        super().__init__()
        self.layers = network([dim, *spec.hidden, spec.features], generator)
        self.activation = ACTIVATIONS[spec.activation]

    def forward(self, context: Float[Tensor, "batch columns"]) -> Float[Tensor, "batch features"]:
        """Return the encoded features of each row."""
        return apply_network(self.layers, context, self.activation)
