"""Questions about some columns by the client and the command, of a model of mixed rows."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from typer.testing import CliRunner

from densityd.cli import app
from densityd.client import Client
from flows.mixed.companion_fitting import fit_companion
from tabular.typed_rows import TypedRows
from tests.api.mixed_model import COLUMNS, NAMES, SPEC, TYPES, mixed_flow, mixed_rows
from tests.api.serving import registered
from tests.client.conftest import Service


@pytest.fixture(scope="module")
def client(service: Service) -> Iterator[Client]:
    flow, table = mixed_flow(SPEC), torch.from_numpy(mixed_rows(200, seed=5))
    flow.companion = fit_companion(flow, table[:150], table[150:], seed=0)
    registered(
        service.database,
        service.blobs,
        name="asked",
        spec=SPEC,
        columns=NAMES,
        types=TYPES,
        flow=flow,
    )
    with Client(service.url) as client:
        yield client


def frame(rows: int = 8) -> pd.DataFrame:
    whole = TypedRows(COLUMNS).batch(mixed_rows(rows, seed=6)).to_pandas()
    return whole.set_axis(range(10, 10 + rows))


def test_a_frame_comes_back_whole_with_its_index(client: Client) -> None:
    gaps = frame()
    gaps.loc[12, "weight"] = np.nan
    gaps.loc[13, "doors"] = None
    whole = client.impute("asked", gaps, level=0.9)
    assert list(whole.index) == list(gaps.index)
    assert not whole[NAMES].isna().any(axis=None)
    assert whole.loc[12, "low.weight"] <= whole.loc[12, "weight"] <= whole.loc[12, "high.weight"]
    other = client.impute("asked", gaps, fill="draw", seed=1)
    assert (
        other.loc[12, "weight"]
        != client.impute("asked", gaps, fill="draw", seed=2).loc[12, "weight"]
    )


def test_columns_are_expected_and_drawn_given_others(client: Client) -> None:
    rows = frame()
    found = client.expect("asked", rows, "weight", quantiles=[0.1, 0.9], low=70)
    assert (found["quantiles.0.1"] <= found["quantiles.0.9"]).all()
    assert found["probability"].between(0, 1).all()
    drawn = client.sample(
        "asked", 20, given={"doors": 3, "weight": {"between": [60, 70]}}, to="table"
    )
    assert set(drawn["doors"].to_pylist()) == {3}
    estimates = client.estimates("asked", rows, columns=["weight"], given=["doors"])
    alone = client.log_prob("asked", rows, columns=["weight"], given=["doors"])
    assert np.array_equal(alone, estimates.log_prob)
    assert (estimates.standard_error < 0.5).all()


@pytest.mark.usefixtures("client")
def test_the_command_writes_whole_rows(service: Service, tmp_path: Path) -> None:
    gaps, out = tmp_path / "gaps.csv", tmp_path / "whole.csv"
    rows = frame()
    rows["sold"] = None
    rows.to_csv(gaps, index=False)
    run = CliRunner().invoke(
        app, ["impute", "asked", str(gaps), "-o", str(out), "--url", service.url]
    )
    assert run.exit_code == 0, run.output
    assert not pd.read_csv(out)["sold"].isna().any()
