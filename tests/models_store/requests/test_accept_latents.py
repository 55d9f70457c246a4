"""Acceptance of variational jobs whose target are latent variables of rows."""

from dataclasses import replace
from typing import Any

import pytest
from pydantic import ValidationError

from flows import GaussianSpec, IafSpec, LatentSpec
from models_store.jobs.memory import variational_memory
from models_store.requests.accept_variational import accept_variational, dataset_of
from models_store.requests.variational import AcceptedVariational, LatentTarget
from tests.models_store.requests.test_accept_training import LIMITS
from tests.models_store.requests.test_accept_variational import (
    accepted,
    refusal,
    request,
    table_of,
)

TABLE = table_of(names=("x1", "x2", "y"))
GAUSSIAN: dict[str, Any] = {"likelihood": "gaussian", "dim": 2}
KNOWN = {"likelihood": "gaussian", "loadings": [[1.0], [2.0], [0.5]], "noise_scale": 0.1}
BINARY = {"likelihood": "bernoulli", "dim": 2, "columns": ["y"], "hidden": [20]}


def latent(fields: dict[str, Any]) -> dict[str, Any]:
    return {"latent": {"dataset_id": TABLE.id} | fields}


@pytest.mark.parametrize(
    ("fields", "flow", "latents"),
    [(GAUSSIAN, GaussianSpec, 2), (KNOWN, GaussianSpec, 1), (BINARY, IafSpec, 2)],
    ids=["learnt", "known", "binary"],
)
def test_the_flow_suits_the_model_and_its_columns_are_shown(
    fields: dict[str, Any], flow: type, latents: int
) -> None:
    chosen = accepted(latent(fields), table=TABLE)
    assert isinstance(chosen.flow, LatentSpec)
    assert isinstance(chosen.flow.flow, flow)
    assert chosen.flow.hidden == fields.get("hidden", [])
    assert isinstance(chosen.target, LatentTarget)
    assert chosen.target.latent.columns == fields.get("columns", ["x1", "x2", "y"])
    assert chosen.target.latent.latents == latents
    assert dataset_of(chosen.target) == TABLE.id
    assert chosen.optimisation.annealing == 0
    assert AcceptedVariational.model_validate(chosen.model_dump(mode="json")) == chosen


def test_a_flow_of_the_callers_choice_gets_the_decoder() -> None:
    chosen = accepted(latent(GAUSSIAN), table=TABLE, flow={"family": "realnvp", "layers": 2})
    assert isinstance(chosen.flow, LatentSpec)
    assert chosen.flow.flow.family == "realnvp"
    error = refusal(latent(GAUSSIAN), table=TABLE, flow={"family": "made", "masks": 4})
    assert (error.slug, error.pointer) == ("flow-unsuitable", "/flow")


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"likelihood": "gaussian"}, "with dim, or known"),
        (GAUSSIAN | {"loadings": [[1.0]]}, "with dim, or known"),
        (GAUSSIAN | {"noise_scale": 1.0}, "with loadings"),
        (GAUSSIAN | {"offset": [0.0]}, "with loadings"),
        (KNOWN | {"hidden": [3]}, "no hidden layers"),
        (KNOWN | {"noise_scale": None}, "has a noise_scale"),
        (KNOWN | {"likelihood": "bernoulli"}, "has a noise_scale"),
        (KNOWN | {"loadings": [[1.0], [1.0, 2.0], [1.0]]}, "as many weights"),
        (KNOWN | {"offset": [1.0]}, "a value for each column"),
        (GAUSSIAN | {"dim": 101}, "less than or equal to 100"),
        (GAUSSIAN | {"held_out": 1.0}, "less than 1"),
        (GAUSSIAN | {"prior": 1}, "Extra inputs"),
    ],
    ids=str,
)
def test_a_model_that_cannot_be_is_refused(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        request(latent(fields))


@pytest.mark.parametrize(
    ("fields", "slug", "pointer"),
    [
        (GAUSSIAN | {"columns": ["a"]}, "unknown-column", "columns"),
        (GAUSSIAN | {"columns": ["x1", "x1"]}, "duplicate-column", "columns"),
        (BINARY | {"columns": ["x1"]}, "response-not-binary", "columns"),
        (KNOWN | {"columns": ["x1"]}, "dimension-mismatch", "loadings"),
        (GAUSSIAN | {"held_out": 0.001}, "split-too-small", "held_out"),
        (GAUSSIAN | {"held_out": 0.999}, "split-too-small", "held_out"),
    ],
    ids=["unknown", "twice", "binary", "loadings", "few held out", "few fitted"],
)
def test_a_model_that_does_not_fit_the_table_is_refused(
    fields: dict[str, Any], slug: str, pointer: str
) -> None:
    error = refusal(latent(fields), table=TABLE)
    assert (error.slug, error.pointer) == (slug, f"/target/latent/{pointer}")


def test_columns_of_one_value_and_of_the_names_of_latents_are_refused() -> None:
    table = table_of(names=("z1", "x2", "y"))
    assert refusal(latent(GAUSSIAN), table=table).slug == "columns-overlap"
    table.columns[0] |= {"name": "x1", "std": 0.0}
    assert refusal(latent(GAUSSIAN), table=table).slug == "dataset-constant-column"
    table.columns[0] |= {"std": 1.0, "missing": 3}
    assert refusal(latent(GAUSSIAN), table=table).slug == "preprocessing-unsuitable"


def test_a_decoder_that_is_too_large_is_refused_before_it_is_built() -> None:
    error = refusal(latent(BINARY | {"hidden": [2**31, 2**31]}), table=TABLE)
    assert error.slug in ("limit-parameters", "limit-memory")
    assert error.pointer == "/target/latent/hidden"
    least = replace(LIMITS, max_parameters=100)
    with pytest.raises(Exception, match="parameters"):
        accept_variational(request(latent(BINARY)), TABLE, limits=least)


def test_memory_and_storage_count_the_decoder_and_the_rows() -> None:
    small, large = (
        accepted(latent(BINARY | {"hidden": [width]}), table=TABLE) for width in (10, 2000)
    )
    assert variational_memory(large, TABLE) > variational_memory(small, TABLE) + 8 * 2000
    long = replace(TABLE, rows=10_000_000)
    assert variational_memory(small, long) > variational_memory(small, TABLE) + 8 * 9_000_000
