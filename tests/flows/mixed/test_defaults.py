import pytest

from flows import (
    MafSpec,
    MixedColumn,
    MixedSpec,
    NsfSpec,
    build,
    check_dim,
    default_continuous,
    default_hidden,
    flow_cost,
)
from flows.defaults import default_flow

KINDS = [
    MixedColumn(levels=3, missing=True),
    MixedColumn(missing=True, spikes=[0.0], low=0.0, transform="quantiles"),
    MixedColumn(transform="log"),
]


def default(
    columns: list[MixedColumn], rows: int, context: tuple[MixedColumn, ...] = ()
) -> MixedSpec:
    count = sum(column.levels == 0 for column in columns)
    return MixedSpec(
        columns=columns,
        context=list(context),
        flow=default_continuous(count, rows) if count else None,
        hidden=default_hidden(rows),
        rows=rows,
    )


@pytest.mark.parametrize("rows", [1, 10, 5_000, 10**6])
def test_defaults_can_be_built_for_any_number_of_rows(rows):
    build(default(KINDS, rows, tuple(KINDS[:2])), 3, context_dim=2, seed=0)


def test_splines_are_for_tables_of_few_columns():
    assert isinstance(default(KINDS, 5_000).flow, NsfSpec)
    wide = default([MixedColumn(missing=True)] * 4096, 5_000)
    check_dim(wide, 4096)
    assert isinstance(wide.flow, MafSpec)
    assert flow_cost(wide, 4096).parameters < 200_000_000


@pytest.mark.parametrize("levels", [1_000, 100_000])
def test_many_levels_are_counted_before_they_take_memory(levels):
    few = flow_cost(default([MixedColumn(levels=10)] * 2, 5_000), 2)
    many = flow_cost(default([MixedColumn(levels=levels)] * 2, 5_000), 2)
    assert many.parameters - few.parameters > 2 * 2 * 128 * (levels - 10)
    assert many.row_bytes - few.row_bytes > 4 * 2 * levels
    if levels == 1_000:
        assert many.load_bytes < 48 * 2**20


def test_a_single_variable_has_one_bias_a_level():
    spec = default([MixedColumn(levels=1_000)], 5_000)
    flow = build(spec, 1, seed=0)
    assert sum(parameter.numel() for parameter in flow.parameters()) == 1_024
    assert flow_cost(spec, 1).parameters == 1_024


@pytest.mark.parametrize(
    ("columns", "rows", "units"),
    [(4_096, 180, 180), (784, 50_000, 1_024), (200, 50_000, 400), (4_096, 3, 32)],
)
def test_wide_flows_have_no_more_units_than_there_are_rows(columns, rows, units):
    for flow in (default_continuous(columns, rows), default_flow(rows, columns)):
        assert isinstance(flow, MafSpec)
        assert flow.hidden == [units, units]
