"""Pictures of models and data that are hard to draw."""

import asyncio
import dataclasses
import io
import re

import numpy as np
import pytest
import torch
from starlette.testclient import TestClient

from app.plots.numbers import Source
from app.plots.plots import PlotKind
from app.problems.problem import Problem
from app.problems.types import PROBLEM_TYPES
from flows import (
    Flow,
    FlowSpec,
    GaussianSpec,
    MadeSpec,
    MafSpec,
    PlanarSpec,
    RealNvpSpec,
    compile_flow,
)
from tests.app.conftest import CSV, assert_refused
from tests.app.plots.pictures import PNG, draw, picture
from tests.app.serving import a_flow, registered


def wild(spec: FlowSpec, dim: int, factor: float) -> Flow:
    """A flow that is sure of itself, and of which some or no samples are finite."""
    flow = a_flow(spec=spec, dim=dim)
    with torch.no_grad():
        for weights in flow.parameters():
            weights.mul_(factor)
    flow.load_state_dict(flow.state_dict())
    return flow.eval()


MODELS = {
    "one column": a_flow(dim=1),
    "two columns": a_flow(dim=2),
    "an image": a_flow(dim=16),
    "some samples finite": wild(RealNvpSpec(layers=3, hidden=[16]), 2, 75),
    "no sample finite": wild(RealNvpSpec(layers=3, hidden=[16]), 2, 120),
    "some images finite": wild(MafSpec(layers=2, hidden=[16]), 16, 65),
    "conditional": a_flow(dim=2, context_dim=1),
    "no noise": a_flow(spec=MadeSpec(conditional="mixture", components=2, hidden=[8]), dim=2),
    "binary": a_flow(spec=MadeSpec(conditional="bernoulli", hidden=[8]), dim=16),
    "variational": a_flow(spec=PlanarSpec(layers=3, closed="sampling"), dim=2),
    "gaussian": a_flow(spec=GaussianSpec(), dim=3),
}


# Pictures of sixteen panels take their time, and some models are drawn as others are.
ALIKE = ("one column", "variational")


CASES = [
    pytest.param(
        name,
        rows,
        marks=[pytest.mark.slow] if flow.dim == 16 else [pytest.mark.long] * (name in ALIKE),
    )
    for name, flow in MODELS.items()
    for rows in ((0, 64) if name in ("two columns", "no sample finite", "an image") else (64,))
]


def uploaded(client: TestClient, rows: int, columns: int) -> str:
    """A dataset whose first column is constant, as far as that is possible."""
    values = np.random.default_rng(rows).normal(150, 30, size=(rows, columns)).round(2)
    if columns > 1:
        values[:, 0] = 5.0
    names = [f"c{index}" for index in range(columns)]
    table = "\n".join(",".join(map(str, row)) for row in [names, *values])
    answer = client.post("/v1/datasets?constant=keep", content=table, headers=CSV)
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


@pytest.mark.long
@pytest.mark.parametrize(("name", "rows"), [*CASES, ("gaussian", 2)])
@pytest.mark.usefixtures("people")
def test_every_kind_is_drawn_or_refused_whatever_the_model_and_its_data(shared_client, name, rows):
    flow, state = MODELS[name], shared_client.app.state
    columns = [f"c{index}" for index in range(flow.dim + flow.context_dim)]
    version = registered(state.database, state.blobs, name="any", columns=columns)
    dataset_id = uploaded(shared_client, rows, len(columns)) if rows else None
    version = dataclasses.replace(
        version,
        columns=columns[: flow.dim],
        context_columns=columns[flow.dim :],
        dataset_id=dataset_id,
    )
    source = Source(version, state.registry, state.jobs, state.blobs, state.engine)
    compiled = compile_flow(flow)
    drawn = set()
    for kind in PlotKind:
        try:
            numbers = dict(asyncio.run(asyncio.wait_for(source.numbers(kind, compiled), 120)))
        except Problem as problem:
            if problem.type is not PROBLEM_TYPES["plot-unavailable"]:
                raise
            continue
        file = io.BytesIO()
        draw(kind, numbers).savefig(file, format="png", dpi=20)
        assert file.getvalue().startswith(PNG)
        drawn.add(kind)
    assert state.engine.alive
    if name == "two columns":
        assert drawn >= {PlotKind.MARGINALS, PlotKind.PAIRS, PlotKind.DENSITY}
    if name == "no sample finite":
        assert (PlotKind.MARGINALS in drawn) == (rows > 0)
    if name in ("two columns", "conditional", "gaussian") and rows:
        assert PlotKind.NOISE in drawn


@pytest.mark.long
def test_the_picture_says_what_is_left_out(shared_client):
    state = shared_client.app.state
    columns = ["c0", "c1"]
    version = registered(state.database, state.blobs, name="wild", columns=columns)
    source = Source(version, state.registry, state.jobs, state.blobs, state.engine)
    flow = compile_flow(MODELS["some samples finite"])
    for kind in (PlotKind.MARGINALS, PlotKind.PAIRS, PlotKind.DENSITY):
        numbers = dict(asyncio.run(source.numbers(kind, flow)))
        title = draw(kind, numbers).get_suptitle()
        assert re.search(r"\d+ of 2000 rows of samples are not finite", title)


@pytest.mark.parametrize("rows", [3, 64])
def test_a_picture_of_little_data_harms_nobody(shared_client, rows):
    state = shared_client.app.state
    name = f"few{rows}"
    dataset_id = uploaded(shared_client, rows, 3)
    columns = ["c0", "c1", "c2"]
    registered(state.database, state.blobs, name=name, columns=columns, dataset_id=dataset_id)
    assert picture(shared_client, "noise", name).content.startswith(PNG)
    many = {"rows": [[170.0, 70.0, 40.0]] * 300}
    assert shared_client.post(f"/v1/models/{name}/log_prob", json=many).status_code == 200


def test_a_model_without_finite_samples_is_refused(shared_client):
    state = shared_client.app.state
    spec = RealNvpSpec(layers=3, hidden=[16])
    flow = MODELS["no sample finite"]
    registered(
        state.database, state.blobs, name="infinite", columns=["a", "b"], spec=spec, flow=flow
    )
    for kind in ("marginals", "pairs", "density"):
        assert_refused(picture(shared_client, kind, "infinite"), 422, "plot-unavailable")


def test_a_file_that_is_gone_is_left_out(shared_client):
    state = shared_client.app.state
    dataset_id = uploaded(shared_client, 5, 3)
    version = registered(state.database, state.blobs, name="left")
    version = dataclasses.replace(version, columns=["c0", "c1", "c2"], dataset_id=dataset_id)
    state.blobs.delete(state.registry.dataset(version.project, dataset_id).key)
    source = Source(version, state.registry, state.jobs, state.blobs, state.engine)
    numbers = asyncio.run(source.numbers(PlotKind.MARGINALS, compile_flow(a_flow())))
    assert "data" not in numbers


WITH_NAMES = {PlotKind.MARGINALS, PlotKind.PAIRS, PlotKind.NOISE}


EXTREMES = [
    (0.0, 1.0, 1),
    pytest.param(1e-100, 1.0, 50, marks=pytest.mark.long),
    (1e100, 1.0, 50),
    pytest.param(-1e100, 1e-15, 50, marks=pytest.mark.long),
    (1e100, 1.0, 1),
]


@pytest.mark.long
@pytest.mark.parametrize(("scale", "spread", "rows"), EXTREMES)
def test_numbers_of_any_size_are_drawn(scale, spread, rows):
    noise = np.random.default_rng(0).normal(size=(rows, 2))
    values = np.clip(scale * (1 + spread * noise), -1e100, 1e100)
    names = np.array(["a", "b"])
    for kind, numbers in {
        PlotKind.MARGINALS: {"samples": values, "data": values[:1]},
        PlotKind.PAIRS: {"samples": values[:0], "data": values},
        PlotKind.NOISE: {"noise": values, "normal": np.linspace(-2, 2, rows)},
        PlotKind.LEARNING_CURVE: {"at": np.arange(rows), "elbo": values[:, 0]},
        PlotKind.IMAGES: {"samples": np.tile(values, 8)[:4]},
    }.items():
        file = io.BytesIO()
        draw(kind, {"names": names, **numbers} if kind in WITH_NAMES else numbers).savefig(
            file, format="png", dpi=20
        )
        assert file.getvalue().startswith(PNG)
