"""Density estimation with normalising flows, in pure PyTorch."""

from flows.batch_norm import BatchNormSpec
from flows.catalogue import (
    FAMILIES,
    FlowSpec,
    build,
    check_dim,
    count_parameters,
    spec_from_dict,
    spec_to_dict,
)
from flows.epoch_report import EpochReport
from flows.errors import DivergedError, FitError, FitInterrupted, FlowError, SpecError
from flows.evaluate import Evaluation, evaluate
from flows.fit import fit
from flows.fit_state import FitState
from flows.flow import Flow, Space
from flows.haf import HafSpec
from flows.inference import CompiledFlow, compile_flow
from flows.made import MadeSpec
from flows.maf import IafSpec, MafSpec
from flows.options import FitOptions, StepSchedule
from flows.preprocess import PreprocessingSpec
from flows.real_nvp import NiceSpec, RealNvpSpec
from flows.spec import EncoderSpec

__all__ = [
    "FAMILIES",
    "BatchNormSpec",
    "CompiledFlow",
    "DivergedError",
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
    "HafSpec",
    "IafSpec",
    "MadeSpec",
    "MafSpec",
    "NiceSpec",
    "PreprocessingSpec",
    "RealNvpSpec",
    "Space",
    "SpecError",
    "StepSchedule",
    "build",
    "check_dim",
    "compile_flow",
    "count_parameters",
    "evaluate",
    "fit",
    "spec_from_dict",
    "spec_to_dict",
]
