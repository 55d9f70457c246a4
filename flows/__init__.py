"""Density estimation with normalising flows, in pure PyTorch."""

from flows.bijections.base import Conditionals
from flows.bijections.batch_norm import BatchNormSpec
from flows.catalogue import (
    FAMILIES,
    FlowSpec,
    build,
    check_dim,
    count_parameters,
    flow_cost,
    spec_from_dict,
    spec_to_dict,
)
from flows.compiled.compiled_flow import CompiledFlow, drawn_bytes
from flows.compiled.ensemble import compile_flow
from flows.compiled.evidence import row_evidence
from flows.conditionals import conditional_densities, conditional_order
from flows.cost import Cost, Way, fitting_rows, turn_rows
from flows.ensemble import EnsembleSpec, ensemble_of
from flows.errors import (
    DivergedError,
    ElboDivergedError,
    FitError,
    FlowError,
    SpecError,
    StateMismatchError,
)
from flows.families.gaussian import GaussianSpec
from flows.families.gaussian_mixture import GaussianMixtureSpec
from flows.families.made import MadeSpec
from flows.families.maf import HafSpec, IafSpec, MafSpec
from flows.families.naf import NafSpec
from flows.families.nsf import NsfSpec
from flows.families.planar import PlanarSpec
from flows.families.radial import RadialSpec
from flows.families.real_nvp import NiceSpec, RealNvpSpec
from flows.families.spec import EncoderSpec
from flows.families.sylvester import SylvesterSpec
from flows.flow import Flow, Space
from flows.latent import Decoder, LatentSpec
from flows.mixed.building import fit_encoding, with_tree
from flows.mixed.columns import MixedColumn
from flows.mixed.defaults import default_continuous, default_hidden
from flows.mixed.spec import MixedSpec
from flows.preprocess import Denoise, PreprocessingSpec
from flows.training.calibration import quantiles_of, rank_among
from flows.training.evaluate import Evaluation, evaluate
from flows.training.fit import fit
from flows.training.options import FitOptions, StepFactor, StepSchedule, VariationalOptions
from flows.training.state import EpochReport, FitInterrupted, FitState
from flows.variational.diagnostics import Diagnostics, QuadratureKl, diagnose, quadrature_kl
from flows.variational.elbo import VariationalReport, fit_variational
from flows.variational.formula import FormulaError, FormulaTarget
from flows.variational.plane import Plane, density_in_plane
from flows.variational.posteriors import GaussianPosterior, LinearRegression, LogisticRegression
from flows.variational.targets import (
    POTENTIALS,
    ConditionalTarget,
    LatentTarget,
    Potential,
    Target,
    Window,
)

__all__ = [
    "FAMILIES",
    "POTENTIALS",
    "BatchNormSpec",
    "CompiledFlow",
    "ConditionalTarget",
    "Conditionals",
    "Cost",
    "Decoder",
    "Denoise",
    "Diagnostics",
    "DivergedError",
    "ElboDivergedError",
    "EncoderSpec",
    "EnsembleSpec",
    "EpochReport",
    "Evaluation",
    "FitError",
    "FitInterrupted",
    "FitOptions",
    "FitState",
    "Flow",
    "FlowError",
    "FlowSpec",
    "FormulaError",
    "FormulaTarget",
    "GaussianMixtureSpec",
    "GaussianPosterior",
    "GaussianSpec",
    "HafSpec",
    "IafSpec",
    "LatentSpec",
    "LatentTarget",
    "LinearRegression",
    "LogisticRegression",
    "MadeSpec",
    "MafSpec",
    "MixedColumn",
    "MixedSpec",
    "NafSpec",
    "NiceSpec",
    "NsfSpec",
    "PlanarSpec",
    "Plane",
    "Potential",
    "PreprocessingSpec",
    "QuadratureKl",
    "RadialSpec",
    "RealNvpSpec",
    "Space",
    "SpecError",
    "StateMismatchError",
    "StepFactor",
    "StepSchedule",
    "SylvesterSpec",
    "Target",
    "VariationalOptions",
    "VariationalReport",
    "Way",
    "Window",
    "build",
    "check_dim",
    "compile_flow",
    "conditional_densities",
    "conditional_order",
    "count_parameters",
    "default_continuous",
    "default_hidden",
    "density_in_plane",
    "diagnose",
    "drawn_bytes",
    "ensemble_of",
    "evaluate",
    "fit",
    "fit_encoding",
    "fit_variational",
    "fitting_rows",
    "flow_cost",
    "quadrature_kl",
    "quantiles_of",
    "rank_among",
    "row_evidence",
    "spec_from_dict",
    "spec_to_dict",
    "turn_rows",
    "with_tree",
]
