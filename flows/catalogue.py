"""Catalogue of the flow families: the only list of them."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from flows.bijections.linear import ACTIVATIONS, apply_network, network
from flows.ensemble import ensemble_of
from flows.flow import Context, Flow
from flows.latent import Decoder
from flows.mixed.building import MixedContext
from flows.mixed.encoding import TableEncoding
from flows.preprocess import Logit, Preprocessing, Rescale, Standardise
from flows.specs.catalogue import FlowSpec, check_dim, flow_cost
from flows.specs.columns import MixedColumn
from flows.specs.ensemble import EnsembleSpec
from flows.specs.latent import LatentSpec
from flows.specs.mixed import MixedSpec
from flows.specs.preprocessing import PreprocessingSpec
from flows.specs.spec import EncoderSpec, Spec

Moments = tuple[Tensor, Tensor]

_SEED_OF_DECODERS = 0x5DEC


def build(  # noqa: PLR0913  the flow, its data side, its context and the seed
    spec: FlowSpec,
    dim: int,
    *,
    standardise: Moments | None = None,
    preprocessing: PreprocessingSpec | None = None,
    columns: Sequence[MixedColumn] | None = None,
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
        columns: Steps, noise and repeated values of the columns, whose samples then have none beyond
            those of training rows; `flows.mixed.building.fit_encoding` fits them. None for rows as they are.
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
                columns=columns,
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
        columns=[MixedColumn(step=1.0)] * dim
        if levels is not None and columns is None
        else columns,
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
