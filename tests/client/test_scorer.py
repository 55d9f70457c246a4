"""Exports that score without the service, alone and in engines that spread the work, to the last bit alike."""

from pathlib import Path

import dask.dataframe as dd
import numpy as np
import pandas as pd
import polars as pl
import pytest

from densityd import scorer
from densityd.client import Client
from tabular.typed_rows import TypedRows
from tests.api.mixed_model import COLUMNS, NAMES, SPEC, TYPES, mixed_flow, mixed_rows
from tests.api.serving import registered
from tests.client.conftest import Service

RANKS = {"rows": 300, "quantiles": np.linspace(-80, 0, 1001).tolist()}
FRAME: pd.DataFrame = TypedRows(COLUMNS).batch(mixed_rows(200, seed=5)).to_pandas()


@pytest.fixture(scope="module")
def export(service: Service, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The export of a model of numbers, levels, dates and gaps."""
    registered(
        service.database,
        service.blobs,
        name="mixed",
        spec=SPEC,
        columns=NAMES,
        types=TYPES,
        flow=mixed_flow(SPEC),
        held_out=RANKS,
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
        scored: pd.DataFrame = client.model("mixed").score(FRAME, reasons=False)
    return scored


def test_scores_equal_those_of_the_service(export: Path, served: pd.DataFrame) -> None:
    model = scorer.load(export)
    shuffled = FRAME[FRAME.columns[::-1]].assign(more=1).sample(frac=1, random_state=0)
    pd.testing.assert_frame_equal(model.score(FRAME), served, check_exact=True)
    pd.testing.assert_frame_equal(
        model.score(shuffled).sort_index(), served.sort_index(), check_exact=True
    )


def test_plain_numbers_in_an_array_score_as_by_the_service(
    service: Service, tmp_path: Path
) -> None:
    rows = np.random.default_rng(0).normal([170, 70, 40], [10, 12, 15], size=(50, 3))
    with Client(service.url) as client:
        client.models.export("people", 1, tmp_path / "people")
        expected = client.log_prob("people", rows)
    np.testing.assert_array_equal(scorer.load(tmp_path / "people").log_prob(rows), expected)


def test_polars_and_dask_score_a_folder_of_parquet_files(
    export: Path, served: pd.DataFrame, tmp_path: Path
) -> None:
    for number, part in enumerate(np.array_split(np.arange(len(FRAME)), 4)):
        FRAME.iloc[part].to_parquet(tmp_path / f"{number}.parquet")
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
        scorer.load(export).score(FRAME.drop(columns=NAMES[0]))
    (tmp_path / "other").write_bytes(b"no model")
    with pytest.raises(ValueError, match="is no export of a version"):
        scorer.load(tmp_path / "other")
