"""Specification of a flow of any family."""

from flows.families.gaussian import GaussianSpec
from flows.families.gaussian_mixture import GaussianMixtureSpec
from flows.families.made import MadeSpec
from flows.families.maf import HafSpec, IafSpec, MafSpec
from flows.families.naf import NafSpec
from flows.families.nsf import NsfSpec
from flows.families.planar import PlanarSpec
from flows.families.radial import RadialSpec
from flows.families.real_nvp import NiceSpec, RealNvpSpec
from flows.families.sylvester import SylvesterSpec

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
"""Families of flows of continuous rows; a new family is a member."""
