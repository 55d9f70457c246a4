"""Public names of `flows` that compute with PyTorch: importing them loads it."""

from flows.bijections.base import Conditionals as Conditionals
from flows.catalogue import build as build
from flows.compiled.ensemble import compile_flow as compile_flow
from flows.compiled.evidence import row_evidence as row_evidence
from flows.conditionals import (
    conditional_densities as conditional_densities,
    conditional_order as conditional_order,
)
from flows.ensemble import ensemble_of as ensemble_of
from flows.flow import Flow as Flow
from flows.latent import Decoder as Decoder
from flows.mixed.building import fit_encoding as fit_encoding, with_tree as with_tree
from flows.preprocess import Denoise as Denoise
from flows.training.evaluate import Evaluation as Evaluation, evaluate as evaluate
from flows.training.fit import fit as fit
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
