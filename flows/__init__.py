"""Density estimation with normalising flows, in pure PyTorch."""

from flows.bijections.base import Conditionals as Conditionals
from flows.catalogue import build as build
from flows.compiled.compiled_flow import CompiledFlow as CompiledFlow, drawn_bytes as drawn_bytes
from flows.compiled.ensemble import compile_flow as compile_flow
from flows.compiled.evidence import row_evidence as row_evidence
from flows.conditionals import (
    conditional_densities as conditional_densities,
    conditional_order as conditional_order,
)
from flows.cost import (
    Cost as Cost,
    Way as Way,
    fitting_rows as fitting_rows,
    turn_rows as turn_rows,
)
from flows.ensemble import ensemble_of as ensemble_of
from flows.errors import (
    DivergedError as DivergedError,
    ElboDivergedError as ElboDivergedError,
    FitError as FitError,
    FlowError as FlowError,
    SpecError as SpecError,
    StateMismatchError as StateMismatchError,
)
from flows.flow import Flow as Flow, Space as Space
from flows.latent import Decoder as Decoder
from flows.mixed.building import fit_encoding as fit_encoding, with_tree as with_tree
from flows.mixed.defaults import (
    default_continuous as default_continuous,
    default_hidden as default_hidden,
)
from flows.preprocess import Denoise as Denoise
from flows.specs.catalogue import (
    FAMILIES as FAMILIES,
    FlowSpec as FlowSpec,
    check_dim as check_dim,
    count_parameters as count_parameters,
    flow_cost as flow_cost,
    spec_from_dict as spec_from_dict,
    spec_to_dict as spec_to_dict,
)
from flows.specs.columns import MixedColumn as MixedColumn
from flows.specs.ensemble import EnsembleSpec as EnsembleSpec
from flows.specs.gaussian import GaussianSpec as GaussianSpec
from flows.specs.gaussian_mixture import GaussianMixtureSpec as GaussianMixtureSpec
from flows.specs.latent import LatentSpec as LatentSpec
from flows.specs.made import MadeSpec as MadeSpec
from flows.specs.maf import HafSpec as HafSpec, IafSpec as IafSpec, MafSpec as MafSpec
from flows.specs.mixed import MixedSpec as MixedSpec
from flows.specs.naf import NafSpec as NafSpec
from flows.specs.nsf import NsfSpec as NsfSpec
from flows.specs.planar import PlanarSpec as PlanarSpec
from flows.specs.preprocessing import (
    MOST_REPEATED as MOST_REPEATED,
    PreprocessingSpec as PreprocessingSpec,
)
from flows.specs.radial import RadialSpec as RadialSpec
from flows.specs.real_nvp import NiceSpec as NiceSpec, RealNvpSpec as RealNvpSpec
from flows.specs.spec import BatchNormSpec as BatchNormSpec, EncoderSpec as EncoderSpec
from flows.specs.sylvester import SylvesterSpec as SylvesterSpec
from flows.training.calibration import quantiles_of as quantiles_of, rank_among as rank_among
from flows.training.evaluate import Evaluation as Evaluation, evaluate as evaluate
from flows.training.fit import fit as fit
from flows.training.options import (
    FitOptions as FitOptions,
    StepFactor as StepFactor,
    StepSchedule as StepSchedule,
    VariationalOptions as VariationalOptions,
)
from flows.training.state import (
    EpochReport as EpochReport,
    FitInterrupted as FitInterrupted,
    FitState as FitState,
)
from flows.variational.diagnostics import (
    Diagnostics as Diagnostics,
    QuadratureKl as QuadratureKl,
    diagnose as diagnose,
    quadrature_kl as quadrature_kl,
)
from flows.variational.elbo import (
    VariationalReport as VariationalReport,
    fit_variational as fit_variational,
)
from flows.variational.formula import FormulaError as FormulaError, FormulaTarget as FormulaTarget
from flows.variational.plane import Plane as Plane, density_in_plane as density_in_plane
from flows.variational.posteriors import (
    GaussianPosterior as GaussianPosterior,
    LinearRegression as LinearRegression,
    LogisticRegression as LogisticRegression,
)
from flows.variational.targets import (
    POTENTIALS as POTENTIALS,
    ConditionalTarget as ConditionalTarget,
    LatentTarget as LatentTarget,
    Potential as Potential,
    Target as Target,
    Window as Window,
)
