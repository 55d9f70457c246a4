"""Density estimation with normalising flows, in pure PyTorch.

Specifications, options and compiled flows are known without PyTorch, which takes a second and 200 MB. What
computes with tensors is found in `flows.with_torch`, which is imported when the first of its names is used.
"""

import importlib
from types import ModuleType
from typing import TYPE_CHECKING

from flows.compiled.compiled_flow import CompiledFlow as CompiledFlow, drawn_bytes as drawn_bytes
from flows.cost import (
    Cost as Cost,
    Way as Way,
    fitting_rows as fitting_rows,
    turn_rows as turn_rows,
)
from flows.errors import (
    DivergedError as DivergedError,
    ElboDivergedError as ElboDivergedError,
    FitError as FitError,
    FlowError as FlowError,
    SpecError as SpecError,
    StateMismatchError as StateMismatchError,
)
from flows.mixed.defaults import (
    default_continuous as default_continuous,
    default_hidden as default_hidden,
)
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
    Space as Space,
)
from flows.specs.radial import RadialSpec as RadialSpec
from flows.specs.real_nvp import NiceSpec as NiceSpec, RealNvpSpec as RealNvpSpec
from flows.specs.spec import BatchNormSpec as BatchNormSpec, EncoderSpec as EncoderSpec
from flows.specs.sylvester import SylvesterSpec as SylvesterSpec
from flows.training.calibration import quantiles_of as quantiles_of, rank_among as rank_among
from flows.training.options import (
    FitOptions as FitOptions,
    StepFactor as StepFactor,
    StepSchedule as StepSchedule,
    VariationalOptions as VariationalOptions,
)

if TYPE_CHECKING:
    from flows.with_torch import *  # noqa: F403
else:

    def __getattr__(name: str) -> object:
        if name == "__all__":  # of `from flows import *`
            names = {**globals(), **vars(importlib.import_module("flows.with_torch"))}
            return [
                known
                for known, value in names.items()
                if not known.startswith("_") and not isinstance(value, ModuleType)
            ]
        if name.startswith("_"):
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(importlib.import_module("flows.with_torch"), name)
