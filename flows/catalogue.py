"""The families: the only list of them."""

import dataclasses
from collections.abc import Mapping
from typing import get_args

import torch
from jaxtyping import Float
from torch import Tensor

from flows.batch_norm import BatchNormSpec
from flows.compose import Standardise
from flows.errors import SpecError
from flows.fit_state import Json
from flows.flow import Flow
from flows.gaussian import GaussianSpec
from flows.made import MadeSpec
from flows.maf import MafSpec
from flows.real_nvp import RealNvpSpec
from flows.spec import Spec

FlowSpec = GaussianSpec | MadeSpec | MafSpec | RealNvpSpec

FAMILIES: dict[str, type[FlowSpec]] = {spec.family: spec for spec in get_args(FlowSpec)}


def spec_to_dict(spec: FlowSpec) -> dict[str, Json]:
    """The spec as JSON."""
    return dataclasses.asdict(spec)


def spec_from_dict(fields: Mapping[str, object]) -> FlowSpec:
    """The spec that `spec_to_dict` gave, or one whose missing fields have their defaults.

    Raises:
        SpecError: no such family, no such field, or a value out of range.
    """
    family = fields.get("family")
    if not isinstance(family, str) or family not in FAMILIES:
        raise SpecError("family-unknown", f"family must be one of {', '.join(FAMILIES)}")
    values = dict(fields)
    try:
        if isinstance(norm := values.get("batch_norm"), dict):
            values["batch_norm"] = BatchNormSpec(**norm)
        return FAMILIES[family](**values)  # type: ignore[arg-type]  # checked by the class
    except (TypeError, ValueError) as error:
        raise SpecError("spec-invalid", str(error)) from error


def check_dim(spec: FlowSpec, dim: int) -> None:
    """Checks that a spec has a flow of so many features.

    Raises:
        SpecError: it has none.
    """
    spec.check_dim(dim)


def count_parameters(spec: FlowSpec, dim: int) -> int:
    """Trainable numbers of the flow, masked ones included; nothing is allocated."""
    return spec.count_parameters(dim)


def build(
    spec: FlowSpec,
    dim: int,
    *,
    standardise: tuple[Float[Tensor, " dim"], Float[Tensor, " dim"]] | None = None,
    seed: int,
) -> Flow:
    """An untrained flow on the CPU, in float32.

    Args:
        spec: its description.
        dim: features.
        standardise: mean and standard deviation of each feature; None leaves that layer out.
        seed: of the initial weights and of random orders; the global generators are not touched.

    Raises:
        SpecError: the spec has no flow of so many features.
    """
    described: Spec = spec
    described.check_dim(dim)
    transform = described.build(dim, torch.Generator().manual_seed(seed))
    return Flow(transform, None if standardise is None else Standardise(*standardise))
