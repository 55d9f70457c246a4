"""The families of flows of continuous rows: those of this package, and those that other packages bring."""

import functools
import operator
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, get_args, get_type_hints

from flows.specs.gaussian import GaussianSpec
from flows.specs.gaussian_mixture import GaussianMixtureSpec
from flows.specs.made import MadeSpec
from flows.specs.maf import HafSpec, IafSpec, MafSpec
from flows.specs.naf import NafSpec
from flows.specs.nsf import NsfSpec
from flows.specs.planar import PlanarSpec
from flows.specs.radial import RadialSpec
from flows.specs.real_nvp import NiceSpec, RealNvpSpec
from flows.specs.spec import Spec
from flows.specs.sylvester import SylvesterSpec

FamilySpec = (
    GaussianSpec
    | GaussianMixtureSpec
    | MadeSpec
    | MafSpec
    | IafSpec
    | RealNvpSpec
    | NiceSpec
    | HafSpec
    | PlanarSpec
    | RadialSpec
    | SylvesterSpec
    | NsfSpec
    | NafSpec
)
"""Specification of a family; a new family is a member, or an entry point of its own package."""

ENTRY_POINTS = "densityd.flows"
"""Group of the entry points of other packages: each is named as its family and names its specification."""

_TAKEN = {"auto", "ensemble", "latent", "mixed", *(spec.family for spec in get_args(FamilySpec))}


def _installed(point: EntryPoint) -> type[Spec]:
    """Return the specification that an installed package has for a family.

    Raises:
        ImportError: It cannot be used, for a reason that the message names.
    """
    package = "an unknown package" if point.dist is None else point.dist.name
    if point.name in _TAKEN:
        raise ImportError(
            f"{package} brings a flow of family {point.name!r}, which there is already"
        )
    try:
        spec = point.load()
        if not issubclass(spec, Spec) or get_args(get_type_hints(spec)["family"]) != (point.name,):
            raise TypeError(f"its `family` is not Literal[{point.name!r}]")  # noqa: TRY301
    except (ImportError, AttributeError, TypeError) as error:
        raise ImportError(
            f"the flow {point.name!r} of {package} ({point.value}) cannot be used: {error}; a module of"
            " such a flow is imported after `flows`"
        ) from error
    _TAKEN.add(point.name)
    return spec  # type: ignore[no-any-return]  # as was checked


if not TYPE_CHECKING:
    _FOUND = sorted(entry_points(group=ENTRY_POINTS), key=lambda point: point.name)
    FamilySpec = functools.reduce(operator.or_, map(_installed, _FOUND), FamilySpec)
