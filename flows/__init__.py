"""Density estimation with normalising flows, in pure PyTorch."""

from flows.batch_norm import BatchNormSpec
from flows.calibration import quantiles_of, rank_among
from flows.catalogue import (
    FAMILIES,
    FlowSpec,
    build,
    check_dim,
    count_parameters,
    flow_cost,
    for_targets,
    spec_from_dict,
    spec_to_dict,
)
from flows.cost import Cost, Way, fitting_rows
from flows.diagnostics import Diagnostics, QuadratureKl, diagnose, quadrature_kl
from flows.epoch_report import EpochReport
from flows.errors import (
    DivergedError,
    ElboDivergedError,
    FitError,
    FitInterrupted,
    FlowError,
    SpecError,
)
from flows.evaluate import Evaluation, evaluate
from flows.fit import fit
from flows.fit_rows import MappedTable, Table
from flows.fit_state import FitState
from flows.flow import Flow, Space
from flows.formula import FormulaError, FormulaTarget
from flows.gaussian import GaussianSpec
from flows.haf import HafSpec
from flows.inference import CompiledFlow, compile_flow
from flows.made import MadeSpec
from flows.maf import IafSpec, MafSpec
from flows.naf import NafSpec
from flows.nsf import NsfSpec
from flows.options import FitOptions, StepSchedule, VariationalOptions
from flows.planar import PlanarSpec
from flows.posteriors import GaussianPosterior, LinearRegression, LogisticRegression
from flows.preprocess import PreprocessingSpec
from flows.radial import RadialSpec
from flows.real_nvp import NiceSpec, RealNvpSpec
from flows.spec import EncoderSpec
from flows.sylvester import SylvesterSpec
from flows.targets import POTENTIALS, ConditionalTarget, Potential, Target, Window
from flows.variational import VariationalReport, fit_variational

__all__ = [
    "FAMILIES",
    "POTENTIALS",
    "BatchNormSpec",
    "CompiledFlow",
    "ConditionalTarget",
    "Cost",
    "Diagnostics",
    "DivergedError",
    "ElboDivergedError",
    "EncoderSpec",
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
    "GaussianPosterior",
    "GaussianSpec",
    "HafSpec",
    "IafSpec",
    "LinearRegression",
    "LogisticRegression",
    "MadeSpec",
    "MafSpec",
    "MappedTable",
    "NafSpec",
    "NiceSpec",
    "NsfSpec",
    "PlanarSpec",
    "Potential",
    "PreprocessingSpec",
    "QuadratureKl",
    "RadialSpec",
    "RealNvpSpec",
    "Space",
    "SpecError",
    "StepSchedule",
    "SylvesterSpec",
    "Table",
    "Target",
    "VariationalOptions",
    "VariationalReport",
    "Way",
    "Window",
    "build",
    "check_dim",
    "compile_flow",
    "count_parameters",
    "diagnose",
    "evaluate",
    "fit",
    "fit_variational",
    "fitting_rows",
    "flow_cost",
    "for_targets",
    "quadrature_kl",
    "quantiles_of",
    "rank_among",
    "spec_from_dict",
    "spec_to_dict",
]
