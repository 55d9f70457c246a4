"""A model of mixed rows for the tests of routes that use it."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from starlette.testclient import TestClient

from flows import Flow, MixedColumn, MixedSpec, NsfSpec, build, fit_encoding
from models_store.records import Version
from tabular.columns import Column
from tests.api.serving import registered, stores

COLUMNS = (
    Column(name="cut", type="category", levels=("Ideal", "Good, really", "=1+1"), missing=True),
    Column(name="price", decimals=2, missing=True),
    Column(name="sold", type="boolean", levels=("no", "yes")),
    Column(name="on", type="datetime", date_only=True),
    Column(name="doors", type="integer", levels=(3.0, 5.0)),
    Column(name="weight", decimals=1),
)
NAMES = [column.name for column in COLUMNS]
TYPES = [column.to_dict() for column in COLUMNS]
DAY = 86400.0
SPEC = MixedSpec(
    columns=[
        MixedColumn(levels=3, missing=True),
        MixedColumn(missing=True, step=0.01),
        MixedColumn(levels=2),
        MixedColumn(step=DAY),
        MixedColumn(levels=2, values=[3.0, 5.0]),
        MixedColumn(step=0.1),
    ],
    flow=NsfSpec(layers=1, hidden=[8], bins=4),
    hidden=[8],
    rows=1000,
)


def mixed_rows(rows: int = 300, *, seed: int = 0) -> NDArray[np.float64]:
    """Rows of a table as it is stored."""
    random = np.random.default_rng(seed)
    values = np.column_stack(
        [
            random.integers(0, 3, rows).astype(np.float64),
            np.round(random.lognormal(2, 1, rows), 2),
            random.integers(0, 2, rows).astype(np.float64),
            random.integers(19_000, 20_000, rows) * DAY,
            random.choice([3.0, 5.0], rows),
            np.round(random.normal(70, 10, rows), 1),
        ]
    )
    values[random.random(rows) < 0.1, 0] = np.nan
    values[random.random(rows) < 0.1, 1] = np.nan
    return values


def mixed_flow(spec: MixedSpec = SPEC, *, context: NDArray[np.float64] | None = None) -> Flow:
    """A flow that knows the scales of the rows, and nothing else of them."""
    rows = torch.from_numpy(mixed_rows())
    if context is not None:
        rows = torch.cat([rows, torch.from_numpy(context)], dim=1)
    dim = len(spec.columns)
    flow = build(spec, dim, context_dim=rows.shape[1] - dim, seed=1)
    fit_encoding(flow, rows)
    return flow.eval()


def registered_mixed(client: TestClient, name: str, **options: Any) -> Version:
    """Add a model of the mixed columns to an application."""
    flow = options.get("flow") or mixed_flow(options.get("spec", SPEC))
    usual: dict[str, Any] = {"spec": SPEC, "columns": NAMES, "types": TYPES, "flow": flow}
    return registered(*stores(client), name=name, **usual | options)
