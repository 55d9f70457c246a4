"""Density estimation with normalising flows, in pure PyTorch."""

from flows.bijections.base import Conditionals as Conditionals
from flows.bijections.batch_norm import BatchNormSpec as BatchNormSpec
from flows.catalogue import (
    FAMILIES as FAMILIES,
    FlowSpec as FlowSpec,
    build as build,
    check_dim as check_dim,
    count_parameters as count_parameters,
    flow_cost as flow_cost,
    spec_from_dict as spec_from_dict,
    spec_to_dict as spec_to_dict,
)
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
from flows.ensemble import EnsembleSpec as EnsembleSpec, ensemble_of as ensemble_of
from flows.errors import (
    DivergedError as DivergedError,
    ElboDivergedError as ElboDivergedError,
    FitError as FitError,
    FlowError as FlowError,
    SpecError as SpecError,
    StateMismatchError as StateMismatchError,
)
from flows.families.gaussian import GaussianSpec as GaussianSpec
from flows.families.gaussian_mixture import GaussianMixtureSpec as GaussianMixtureSpec
from flows.families.made import MadeSpec as MadeSpec
from flows.families.maf import HafSpec as HafSpec, IafSpec as IafSpec, MafSpec as MafSpec
from flows.families.naf import NafSpec as NafSpec
from flows.families.nsf import NsfSpec as NsfSpec
from flows.families.planar import PlanarSpec as PlanarSpec
from flows.families.radial import RadialSpec as RadialSpec
from flows.families.real_nvp import NiceSpec as NiceSpec, RealNvpSpec as RealNvpSpec
from flows.families.spec import EncoderSpec as EncoderSpec
from flows.families.sylvester import SylvesterSpec as SylvesterSpec
from flows.flow import Flow as Flow, Space as Space
from flows.latent import Decoder as Decoder, LatentSpec as LatentSpec
from flows.mixed.building import fit_encoding as fit_encoding, with_tree as with_tree
from flows.mixed.columns import MixedColumn as MixedColumn
from flows.mixed.defaults import (
    default_continuous as default_continuous,
    default_hidden as default_hidden,
)
from flows.mixed.spec import MixedSpec as MixedSpec
from flows.preprocess import (
    MOST_REPEATED as MOST_REPEATED,
    Denoise as Denoise,
    PreprocessingSpec as PreprocessingSpec,
)
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
