"""Models with data frames in and out, and options that help and completion show."""

import dataclasses
import inspect
import pydoc

import numpy as np
import pandas as pd
import polars as pl
import pytest

from densityd.client import ApiError, Client
from tabular.typed_rows import TypedRows
from tests.api.mixed_model import COLUMNS, NAMES, SPEC, TYPES, mixed_flow, mixed_rows
from tests.api.serving import registered
from tests.client.conftest import Service

FRAME = pd.DataFrame(
    {"age": [40, 41], "height": [170.0, 400.0], "weight": [70.0, 60.0]}, index=["usual", "giant"]
)


def test_scores_are_a_frame_of_the_callers_library_with_its_index(service: Service) -> None:
    with Client(service.url) as client:
        model = client.model("ranked")
        scored = model.score(FRAME)
        as_polars = model.score(pl.from_pandas(FRAME))
        expected = client.score("ranked", FRAME)

    assert list(scored.columns) == ["log_prob", "rank"]  # a model that explains nothing
    assert list(scored.index) == ["usual", "giant"]
    np.testing.assert_array_equal(scored["log_prob"], expected.log_prob)
    assert isinstance(as_polars, pl.DataFrame)
    np.testing.assert_array_equal(as_polars["rank"], expected.quantile)


def test_scores_have_reasons_where_the_model_can_explain(service: Service) -> None:
    spec = dataclasses.replace(SPEC, missing="any")
    held_out = {"rows": 300, "quantiles": np.linspace(-80, 0, 1001).tolist()}
    registered(
        service.database,
        service.blobs,
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
    [
        (Client.fit, "quality"),
        (Client.fit, "optimisation"),
        (Client.log_prob, "extra"),
    ],
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


def test_a_model_counts_what_it_scores_and_says_that_it_cannot_be_trained_anew(
    service: Service,
) -> None:
    with Client(service.url) as client:
        model = client.model("ranked")
        before = model.monitoring().rows
        model.score(FRAME)
        watched = model.monitoring(bucket="hour")
        with pytest.raises(ApiError, match="is not known"):
            model.retrain("ds_" + "0" * 32)
    assert watched.rows == before + 2
    assert sum(watched.ranks) == watched.rows
