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
    MixedSpec,
    RealNvpSpec,
    SpecError,
    build,
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
