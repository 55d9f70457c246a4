import pytest

from flows import MafSpec, MixedColumn, NsfSpec, build, check_dim, default_mixed, flow_cost

KINDS = [
    MixedColumn(levels=3, missing=True),
    MixedColumn(missing=True, spikes=[0.0], low=0.0),
    MixedColumn(transform="log"),
]


@pytest.mark.parametrize("rows", [1, 10, 5_000, 10**6])
def test_defaults_can_be_built_for_any_number_of_rows(rows):
    spec = default_mixed(KINDS, rows, context=KINDS[:2])
    build(spec, 3, context_dim=2, seed=0)
    assert [column.transform for column in spec.columns] == ["none", "quantiles", "log"]
    assert spec.rows == rows


def test_categories_alone_need_no_flow():
    assert default_mixed(KINDS[:1], 100).flow is None


def test_splines_are_for_tables_of_few_columns():
    assert isinstance(default_mixed(KINDS, 5_000).flow, NsfSpec)
    wide = default_mixed([MixedColumn(missing=True)] * 4096, 5_000)
    check_dim(wide, 4096)
    assert isinstance(wide.flow, MafSpec)
    assert flow_cost(wide, 4096).parameters < 200_000_000


@pytest.mark.parametrize("levels", [1_000, 100_000])
def test_many_levels_are_counted_before_they_take_memory(levels):
    few = flow_cost(default_mixed([MixedColumn(levels=10)] * 2, 5_000), 2)
    many = flow_cost(default_mixed([MixedColumn(levels=levels)] * 2, 5_000), 2)
    assert many.parameters - few.parameters > 2 * 2 * 128 * (levels - 10)
    assert many.row_bytes - few.row_bytes > 4 * 2 * levels
    if levels == 1_000:
        assert many.build_bytes < 16 * 2**20


def test_a_single_variable_has_one_bias_a_level():
    spec = default_mixed([MixedColumn(levels=1_000)], 5_000)
    flow = build(spec, 1, seed=0)
    assert sum(parameter.numel() for parameter in flow.parameters()) == 1_024
    assert flow_cost(spec, 1).parameters == 1_024
