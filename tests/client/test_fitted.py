"""Models with data frames in and out, and options that help and completion show."""

import dataclasses
import inspect
import pydoc
from collections.abc import Iterator
from pathlib import Path

import dask.dataframe as dd
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa  # type: ignore[import-untyped] # it ships no type information
import pytest
import torch
from typer.testing import CliRunner

from densityd import scorer
from densityd.cli import app
from densityd.client import ApiError, Client
from flows.mixed.companion_fitting import fit_companion
from tabular.typed_rows import TypedRows
from tests.api.mixed_model import COLUMNS, NAMES, SPEC, TYPES, mixed_flow, mixed_rows
from tests.client.conftest import Service

FRAME = pd.DataFrame(
    {"age": [40, 41], "height": [170.0, 400.0], "weight": [70.0, 60.0]}, index=["usual", "giant"]
)


def test_scores_are_a_frame_of_the_callers_library_with_its_index(service: Service) -> None:
    with Client(service.url) as client:
        model = client.model("ranked")
        scored = model.score(FRAME)
        with pytest.raises(ApiError, match="explanation"):
            model.score(FRAME, reasons=True)
        as_polars = model.score(pl.from_pandas(FRAME))
        as_arrow = model.score(pa.Table.from_pandas(FRAME, preserve_index=False))
        expected = client.score("ranked", FRAME)

    assert list(scored.columns) == ["log_prob", "rank"]  # a model that explains nothing
    assert list(scored.index) == ["usual", "giant"]
    np.testing.assert_array_equal(scored["log_prob"], expected.log_prob)
    assert isinstance(as_polars, pl.DataFrame)
    assert isinstance(as_arrow, pa.Table)
    np.testing.assert_array_equal(as_polars["rank"], expected.quantile)


def test_scores_have_reasons_where_the_model_can_explain(service: Service) -> None:
    spec = dataclasses.replace(SPEC, missing="any")
    held_out = {"rows": 300, "quantiles": np.linspace(-80, 0, 1001).tolist()}
    service.add(
        name="hiding",
        spec=spec,
        columns=NAMES,
        types=TYPES,
        flow=mixed_flow(spec),
        held_out=held_out,
    )
    rows = TypedRows(COLUMNS).batch(mixed_rows(20, seed=5)).to_pandas()
    with Client(service.url) as client:
        scored = client.model("hiding").score(rows)
        explained = client.explain("hiding", rows)
    assert list(scored.columns) == ["log_prob", "rank", "reasons"]
    assert list(scored["reasons"]) == [explained.describe(row) for row in range(20)]
    assert scored["reasons"].str.contains(r"^\w+ -\d").any()


def test_drawn_rows_are_a_frame_with_the_columns_of_the_data(service: Service) -> None:
    with Client(service.url) as client:
        model = client.model("people")
        drawn = model.sample(100, seed=7)
        pd.testing.assert_frame_equal(drawn, model.sample(100, seed=7))
    assert drawn.shape == (100, 3)
    assert list(drawn.columns) == ["height", "weight", "age"]


@pytest.mark.parametrize(
    ("method", "option"),
    [(Client.fit, "quality"), (Client.fit, "optimisation"), (Client.log_prob, "extra")],
)
def test_options_are_named_arguments(method: object, option: str) -> None:
    parameters = inspect.signature(method).parameters  # type: ignore[arg-type] # a method
    assert parameters[option].kind is inspect.Parameter.KEYWORD_ONLY
    assert inspect.Parameter.VAR_KEYWORD not in {one.kind for one in parameters.values()}


def test_help_and_dir_show_what_there_is() -> None:
    with Client() as client:
        assert {"fit", "model", "datasets", "jobs", "models", "keys", "webhooks"} <= set(
            dir(client)
        )
        text = pydoc.plain(pydoc.render_doc(client.jobs.train))
    assert "quality: Literal['fast', 'balanced', 'best'] = Ellipsis" in text
    assert "quality: Trade-off of time and quality: `fast` takes a quarter of the epochs" in text


def test_a_model_counts_what_it_scores_and_says_that_it_cannot_be_trained_anew(service):
    with Client(service.url) as client:
        model = client.model("ranked")
        before = model.monitoring().rows
        model.score(FRAME)
        watched = model.monitoring(bucket="hour")
        with pytest.raises(ApiError, match="is not known"):
            model.retrain("ds_" + "0" * 32)
    assert watched.rows == before + 2
    assert sum(watched.ranks) == watched.rows


@pytest.fixture(scope="module")
def client(service: Service) -> Iterator[Client]:
    flow, table = mixed_flow(SPEC), torch.from_numpy(mixed_rows(200, seed=5))
    flow.companion = fit_companion(flow, table[:150], table[150:], seed=0)
    service.add(name="asked", spec=SPEC, columns=NAMES, types=TYPES, flow=flow)
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
    pd.testing.assert_frame_equal(client.model("asked").impute(gaps, level=0.9), whole)
    other = client.impute("asked", gaps, fill="draw", seed=1)
    assert (
        other.loc[12, "weight"]
        != client.impute("asked", gaps, fill="draw", seed=2).loc[12, "weight"]
    )


def test_columns_are_expected_and_drawn_given_others(client: Client) -> None:
    rows = frame()
    found = client.expect("asked", rows, "weight", quantiles=[0.1, 0.9], low=70)
    asked = client.model("asked").expect(rows, "weight", quantiles=[0.1, 0.9], low=70)
    pd.testing.assert_frame_equal(asked, found)
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


RANKS = {"rows": 300, "quantiles": np.linspace(-80, 0, 1001).tolist()}
EXPORTED_FRAME: pd.DataFrame = TypedRows(COLUMNS).batch(mixed_rows(200, seed=5)).to_pandas()


@pytest.fixture(scope="module")
def export(service: Service, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The export of a model of numbers, levels, dates and gaps."""
    service.add(
        name="mixed", spec=SPEC, columns=NAMES, types=TYPES, flow=mixed_flow(SPEC), held_out=RANKS
    )
    file = tmp_path_factory.mktemp("export") / "mixed.safetensors"
    with Client(service.url) as client:
        client.models.export("mixed", 1, file)
    return file


@pytest.fixture(scope="module")
def served(service: Service, export: Path) -> pd.DataFrame:
    """What the service says of the rows."""
    assert export.exists()
    with Client(service.url) as client:
        scored: pd.DataFrame = client.model("mixed").score(EXPORTED_FRAME, reasons=False)
    return scored


def test_scores_equal_those_of_the_service(export: Path, served: pd.DataFrame) -> None:
    model = scorer.load(export)
    shuffled = (
        EXPORTED_FRAME[EXPORTED_FRAME.columns[::-1]].assign(more=1).sample(frac=1, random_state=0)
    )
    pd.testing.assert_frame_equal(model.score(EXPORTED_FRAME), served, check_exact=True)
    pd.testing.assert_frame_equal(
        model.score(shuffled).sort_index(), served.sort_index(), check_exact=True
    )


def test_plain_numbers_in_an_array_score_as_by_the_service(service, export, tmp_path):
    rows = np.random.default_rng(0).normal([170, 70, 40], [10, 12, 15], size=(50, 3))
    (tmp_path / "people").write_bytes(export.read_bytes())
    assert scorer.load(tmp_path / "people").columns == NAMES  # until the file is another one
    with Client(service.url) as client:
        client.models.export("people", 1, tmp_path / "people")
        expected = client.log_prob("people", rows)
    np.testing.assert_array_equal(scorer.load(tmp_path / "people").log_prob(rows), expected)


def test_polars_and_dask_score_a_folder_of_parquet_files(export, served, tmp_path):
    for number, part in enumerate(np.array_split(np.arange(len(EXPORTED_FRAME)), 4)):
        EXPORTED_FRAME.iloc[part].to_parquet(tmp_path / f"{number}.parquet")
    model = scorer.load(export)

    by_polars = pl.concat([model.score(pl.read_parquet(f)) for f in sorted(tmp_path.iterdir())])
    by_dask = dd.read_parquet(tmp_path).map_partitions(
        model.score, meta={"log_prob": "f8", "rank": "f8"}
    )

    np.testing.assert_array_equal(by_polars.to_numpy(), served.to_numpy())
    np.testing.assert_array_equal(
        by_dask.compute(scheduler="threads").to_numpy(), served.to_numpy()
    )


def test_what_is_wrong_is_told(export: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"lack columns of the model: {NAMES[0]}$"):
        scorer.load(export).score(EXPORTED_FRAME.drop(columns=NAMES[0]))
    (tmp_path / "other").write_bytes(b"no model")
    with pytest.raises(ValueError, match="is no export of a version"):
        scorer.load(tmp_path / "other")
