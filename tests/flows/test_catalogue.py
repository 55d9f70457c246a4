import dataclasses
import json
import math
import re
from pathlib import Path
from typing import get_args

import pytest
import torch

from flows import (
    FAMILIES,
    BatchNormSpec,
    EnsembleSpec,
    FlowSpec,
    LatentSpec,
    MadeSpec,
    MafSpec,
    MixedColumn,
    MixedSpec,
    PreprocessingSpec,
    RealNvpSpec,
    SpecError,
    build,
    check_dim,
    count_parameters,
    spec_from_dict,
    spec_to_dict,
)
from tests.flows.cases import CASES


def test_every_family_has_its_own_name():
    assert {*FAMILIES.values(), EnsembleSpec, LatentSpec, MixedSpec} == set(get_args(FlowSpec))
    for family, spec in FAMILIES.items():
        assert spec().family == family


def test_every_family_has_a_conformance_case():
    assert {type(case.spec) for case in CASES} == set(FAMILIES.values())


DOCS = Path(__file__).parents[2] / "docs" / "flows.md"


def test_every_family_has_its_row_in_the_docs_with_all_fields_and_defaults():
    table = DOCS.read_text().partition("## The families")[2].partition("\n###")[0]
    rows = re.findall(r"^\| `(\w+)` \|.*$", table, flags=re.MULTILINE)
    assert sorted(rows) == sorted(FAMILIES)
    for family, spec in FAMILIES.items():
        row = re.search(rf"^\| `{family}` \|.*$", DOCS.read_text(), flags=re.MULTILINE)
        assert row is not None
        for field in dataclasses.fields(spec):
            if field.name not in ("family", "batch_norm", "encoder"):
                default = getattr(spec(), field.name)
                assert f"`{field.name}` [{default}]" in row.group(), (family, field.name)


def test_the_refusals_in_the_docs_are_those_of_the_code():
    refusals = re.findall(r"`(\{[^`]*\})` is refused: `([^`]*)`", DOCS.read_text())
    assert refusals
    for fields, reason in refusals:
        with pytest.raises(SpecError) as caught:
            spec_from_dict(json.loads(fields))
        assert caught.value.reason == reason


def test_every_family_has_an_example_in_the_docs_that_works():
    blocks = re.findall(r"```json\n(.*?)```", DOCS.read_text(), flags=re.DOTALL)
    specs = [
        spec_from_dict(fields) for block in blocks if "family" in (fields := json.loads(block))
    ]
    assert {spec.family for spec in specs} == set(FAMILIES)
    for spec in specs:
        build(spec, 4, context_dim=2 if spec.encoder is not None else 0, seed=0)


def test_specs_pass_through_json():
    for case in CASES:
        assert spec_from_dict(json.loads(json.dumps(spec_to_dict(case.spec)))) == case.spec


def test_missing_fields_have_their_defaults():
    assert spec_from_dict({"family": "maf"}) == MafSpec()
    assert spec_from_dict({"family": "maf", "batch_norm": None}) == MafSpec(batch_norm=None)
    norm = {"statistics": "running"}
    assert spec_from_dict({"family": "maf", "batch_norm": norm}) == MafSpec(
        batch_norm=BatchNormSpec(statistics="running")
    )


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({}, "family-unknown"),
        ({"family": "__import__"}, "family-unknown"),
        ({"family": ["maf"]}, "family-unknown"),
        ({"family": "maf", "layerz": 3}, "spec-invalid"),
        ({"family": "maf", "layers": 0}, "spec-invalid"),
        ({"family": "maf", "batch_norm": {"statistics": "batch"}}, "spec-invalid"),
        ({"family": "maf", "batch_norm": {"unknown": 1}}, "spec-invalid"),
    ],
)
def test_specs_that_say_nothing_sensible_are_refused(fields, code):
    with pytest.raises(SpecError) as caught:
        spec_from_dict(fields)
    assert caught.value.code == code


MAF, MIXED = {"family": "maf"}, {"family": "mixed"}
BOUNDED = {"low": 0.0, "high": 1.0}


@pytest.mark.parametrize(
    ("members", "weights", "words"),
    [
        ([], [], "members must list 1 to 64 flows"),
        ([MAF] * 65, [1 / 65] * 65, "64 members at most"),
        ([1], [1.0], "members"),
        ([MAF | {"encoder": {}}], [1.0], "without encoders"),
        ([{"family": "made", "conditional": "bernoulli"}], [1.0], "flows of values"),
        ([MIXED, MAF], [0.5, 0.5], "the same columns"),
        ([MIXED, MIXED | {"columns": [{"levels": 2}]}], [0.5, 0.5], "the same columns"),
        ([MIXED, MIXED | {"context": [{"levels": 2}]}], [0.5, 0.5], "the same columns"),
        ([MAF, MAF], [1.0], "a number above 0 for each"),
        ([MAF, MAF], [1.0, 0.0], "a number above 0 for each"),
        ([MAF, MAF], [0.5, 0.6], "weights must sum to 1"),
    ],
)
def test_ensembles_that_are_none_are_refused(members, weights, words):
    with pytest.raises(SpecError, match=words) as caught:
        spec_from_dict({"family": "ensemble", "members": members, "weights": weights})
    assert caught.value.code == "spec-invalid"
    whole = {"family": "ensemble", "members": [MAF] * 64, "weights": [1 / 64] * 64}
    spec_from_dict(whole)
    with pytest.raises(SpecError, match="no encoder"):
        spec_from_dict(whole | {"encoder": {}})
    with pytest.raises(SpecError, match="residual blocks"):
        spec_from_dict(MAF | {"residual": True})


@pytest.mark.parametrize(
    ("fields", "right", "words"),
    [
        ({"levels": -1}, {"levels": 0}, "levels must be a whole number"),
        ({"levels": 2**24 + 1}, {"levels": 2**24}, "to 16,777,216"),
        ({"levels": True}, {"levels": 1}, "levels must be a whole number"),
        ({"missing": 1}, {"missing": True}, "missing must be true or false"),
        ({"transform": "sqrt"}, {"transform": "asinh"}, "transform must be one of none, "),
        ({"spikes": [math.inf]}, {"spikes": [1]}, "must be finite numbers"),
        ({"levels": 1, "values": [True]}, {"levels": 1, "values": [1]}, "must be finite"),
        ({"low": math.nan}, {"low": 0.0}, "must be finite numbers"),
        ({"high": math.inf}, {"high": 1.0}, "must be finite numbers"),
        ({"step": math.nan}, {"step": 1.0}, "must be finite numbers"),
        ({"noise": math.nan}, {"noise": 1.0}, "must be finite numbers"),
        ({"levels": 2, "values": [1, 1]}, {"levels": 2, "values": [1, 2]}, "values must differ"),
        ({"spikes": [0.0, 0.0]}, {"spikes": [0.0, 1.0]}, "spikes must differ"),
        ({"levels": 3, "values": [1, 2]}, {"levels": 2, "values": [1, 2]}, "as many as levels"),
        ({"levels": 2, "spikes": [0.0]}, {"levels": 0, "spikes": [0.0]}, "neither spikes nor"),
        ({"levels": 2, "step": 1.0}, {"step": 1.0}, "neither spikes nor"),
        ({"levels": 2, "noise": 1.0}, {"noise": 1.0}, "neither spikes nor"),
        ({"levels": 2, "transform": "log"}, {"transform": "log"}, "neither spikes nor"),
        ({"step": -1.0}, {"step": 0.0}, "must be at least 0"),
        ({"noise": -1.0}, {"noise": 0.0}, "must be at least 0"),
        ({"place": -1}, {"place": 0}, "must be at least 0"),
        ({"repeated": -1}, {"repeated": 512}, "must be at least 0"),
        ({"repeated": 513}, {"repeated": 0}, "repeated must be at most 512"),
        ({"unseen": -0.1}, {"unseen": 0.0}, "unseen must be at least 0"),
        ({"unseen": 1.0}, {"unseen": 0.99}, "and below 1"),
        ({"low": 1.0, "high": 1.0}, BOUNDED, "low must be below high"),
        ({"transform": "logit", "low": 0.0}, {"transform": "logit"} | BOUNDED, "low and high"),
        ({"transform": "circular", "high": 1}, {"transform": "circular"} | BOUNDED, "low and high"),
    ],
)
def test_columns_that_are_none_are_refused_and_those_at_the_bounds_are_not(
    unchecked, fields, right, words
):
    with pytest.raises(ValueError, match=words):
        unchecked(MixedColumn, **fields)
    unchecked(MixedColumn, **right)


def test_mixed_densities_that_cannot_be_are_refused(unchecked):
    two, levels = [MixedColumn()] * 2, [MixedColumn(levels=2)]
    for fields, words in (
        ({"columns": [1]}, "kinds of columns"),
        ({"context": [1]}, "kinds"),
        ({"flow": 1}, "of another"),
    ):
        with pytest.raises(ValueError, match=words):
            unchecked(MixedSpec, **fields)
    for spec, dim, context_dim, code in [
        (MixedSpec(columns=two), 3, 0, "dimension-unsupported"),
        (MixedSpec(columns=two, context=levels), 2, 2, "dimension-unsupported"),
        (MixedSpec(columns=two, flow=None), 2, 0, "flow-unsuitable"),
    ]:
        with pytest.raises(SpecError) as caught:
            check_dim(spec, dim, context_dim)
        assert caught.value.code == code
    check_dim(MixedSpec(columns=levels, context=two, flow=None), 1, 2)
    ensemble = EnsembleSpec(members=[MafSpec()], weights=[1.0])
    binary = MadeSpec(conditional="bernoulli")
    for flow in (MixedSpec(columns=two), ensemble, binary):
        with pytest.raises(SpecError, match="noise to rows"):
            flow.for_targets()
    for wrong in ({"levels": 0}, {"logit": 0.0}, {"logit": 0.5}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            PreprocessingSpec(**wrong)
    PreprocessingSpec(levels=1, logit=0.49)


WRONG: dict[str, list[object]] = {
    "family": ["other", None],
    "layers": [0, 2.5, True, 2**32],
    "hidden": [[], [0], [8, -1], [1] * 2000],
    "activation": ["__import__"],
    "closed": ["both"],
    "coupling": ["yes"],
    "units": [0, 1.5, True],
    "tail_bound": [0.0, -1.0, math.inf, math.nan, True, "5"],
    "log_scale_bound": [0.0, -1.0, math.inf, math.nan, "5"],
    "covariance": ["spherical"],
    "regularisation": [0.0, None],
}


@pytest.mark.parametrize("family", FAMILIES)
def test_a_field_out_of_range_is_refused_by_its_name(unchecked, family):
    for field in dataclasses.fields(FAMILIES[family]):
        for value in WRONG.get(field.name, []):
            with pytest.raises(ValueError, match=field.name):
                unchecked(FAMILIES[family], **{field.name: value})


def test_huge_flows_are_counted_without_building_them():
    spec = MafSpec(layers=1000, hidden=[10**6, 10**6])
    assert count_parameters(spec, 100) == 1000 * (
        101 * 10**6 + 10**12 + 10**6 + 200 * (10**6 + 1) + 200
    )
    cost = spec.cost(100)  # a file, its flow, a copy of that in float64, and what is compiled
    assert cost.load_bytes >= (1 + 1 + 2) * cost.flow_bytes + cost.loaded_bytes


def test_no_features_are_refused():
    with pytest.raises(SpecError, match="at least 1 feature"):
        build(MadeSpec(), 0, seed=0)


def test_weights_start_as_those_of_torch_linear_layers():
    flow = build(RealNvpSpec(layers=1, hidden=[400]), 200, seed=0)
    for name, value in flow.named_parameters():
        parameter = value.detach()
        if name.endswith(".weight"):
            bound = parameter.shape[1] ** -0.5
            assert 0.99 * bound < float(parameter.abs().max()) <= bound
            assert float(parameter.std()) == pytest.approx(bound / 3**0.5, rel=0.05)
        elif name.endswith(".bias"):
            assert float(parameter.abs().max()) <= (0.1 if ".0.bias" in name else 0.05)
            assert float(parameter.std()) > 0


def test_a_built_flow_is_in_float32_with_its_standardisation_in_float64():
    mean = torch.ones(3, dtype=torch.float64)
    flow = build(MadeSpec(hidden=[4]), 3, standardise=(mean, mean), seed=0)
    assert flow.dtype == torch.float32
    assert flow.preprocessing.standardise is not None
    assert flow.preprocessing.standardise.mean.dtype == torch.float64


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_flow_can_be_fitted_to_a_target_exactly_if_it_maps_noise_to_rows(case):
    dim = max(2, case.min_dim)
    if not build(case.spec, dim, seed=0).has_noise:
        with pytest.raises(SpecError, match="noise to rows"):
            case.spec.for_targets()
        return
    spec = case.spec.for_targets()
    assert getattr(spec, "closed", "sampling") == "sampling"
    assert spec.for_targets() == spec
    rows, log_det = build(spec, dim, seed=0).eval().forward(torch.zeros(3, dim))
    assert rows.requires_grad or log_det.requires_grad
