"""Every family over HTTP, through all ways of the engine: together, in turns, and on the event loop."""

import asyncio
import dataclasses
import io

import numpy as np
import pytest
from starlette.testclient import TestClient

from app.plots.numbers import Source
from app.plots.plots import PlotKind
from flows import (
    EnsembleSpec,
    FlowSpec,
    GaussianMixtureSpec,
    GaussianSpec,
    IafSpec,
    MadeSpec,
    MafSpec,
    NafSpec,
    NsfSpec,
    PlanarSpec,
    RealNvpSpec,
    compile_flow,
    rank_among,
)
from tests.api.conftest import CSV
from tests.api.serving import a_flow, registered

# Both sides of what is small, of a batch and of a first turn; and many turns.
COUNTS = [1, 64, 65, 257, 3000]
# How rows are put together does not depend on the family, of which these show that its numbers do not.
FEW_COUNTS = [1, 65]
FAMILIES: dict[str, FlowSpec] = {
    "maf": MafSpec(layers=2, hidden=[16]),
    "iaf": IafSpec(layers=2, hidden=[12]),
    "made-mixture": MadeSpec(conditional="mixture", components=3, hidden=[12]),
    "realnvp": RealNvpSpec(layers=3, hidden=[16]),
    "planar": PlanarSpec(layers=3),
    "nsf": NsfSpec(layers=2, hidden=[12], bins=4),
    "naf": NafSpec(layers=2, hidden=[10], units=4),
    "gaussian": GaussianSpec(),
    "mixture": GaussianMixtureSpec(components=3),
    "ensemble": EnsembleSpec(
        members=[MafSpec(layers=2, hidden=[12]), NsfSpec(layers=1, hidden=[12])],
        weights=[0.25, 0.75],
    ),
    "conditional": MafSpec(layers=2, hidden=[16]),
}
QUANTILES = np.linspace(-40, 0, 1001)
DIM = 2
NPY = "application/x-npy"


def rows_of(n: int, width: int) -> np.ndarray:
    return np.random.default_rng(n).normal(150, 20, size=(n, width))


def ask(
    client: TestClient, name: str, verb: str, body: np.ndarray | dict[str, object]
) -> np.ndarray:
    """Ask often enough that what is quick is computed on the event loop; the last answer."""
    values = np.empty(0)
    for _ in range(3):
        url, headers = f"/v1/models/{name}/{verb}", {"Accept": NPY}
        if isinstance(body, dict):
            answer = client.post(url, json=body, headers=headers)
        else:
            buffer = io.BytesIO()
            np.save(buffer, body)
            headers["Content-Type"] = NPY
            answer = client.post(url, content=buffer.getvalue(), headers=headers)
        assert answer.status_code == 200, answer.text
        values = np.load(io.BytesIO(answer.content))
    return values


@pytest.mark.parametrize("name", FAMILIES)
def test_numbers_of_any_number_of_rows_are_the_plain_ones(shared_client, name):
    state, spec = shared_client.app.state, FAMILIES[name]
    context_dim = 1 if name == "conditional" else 0
    version = registered(
        state.database,
        state.blobs,
        name=name,
        spec=spec,
        columns=["a", "b"],
        context_columns=("c",) * context_dim,
        held_out={"rows": 100, "quantiles": QUANTILES.tolist()},
    )
    flow = compile_flow(a_flow(spec=spec, dim=DIM, context_dim=context_dim))
    for n in COUNTS if name == "maf" else FEW_COUNTS:
        rows = rows_of(n, DIM + context_dim)
        log_prob = flow.log_prob(rows)
        scores = np.column_stack([log_prob, rank_among(log_prob, QUANTILES, rows=100)])
        found = ask(shared_client, name, "score", rows)
        np.testing.assert_allclose(found, scores, rtol=1e-5, atol=1e-5)
        if flow.has_noise:
            for verb, inputs in (("inverse", rows), ("forward", (rows - 150) / 20)):
                plain = np.column_stack(getattr(flow, verb)(inputs))
                found = ask(shared_client, name, verb, inputs)
                np.testing.assert_allclose(found, plain, rtol=1e-5, atol=1e-5)
        context = np.full((1, 1), 0.5) if context_dim else None
        asked: dict[str, object] = {"n": n, "seed": 7} | (
            {} if context is None else {"context": context.tolist()}
        )
        drawn = ask(shared_client, name, "sample", asked)
        np.testing.assert_allclose(drawn, flow.sample(n, seed=7, context=context), rtol=1e-5)
    assert state.engine.alive
    assert state.engine.waiting == 0

    # the numbers of plots
    rows = rows_of(300, DIM + context_dim).round(3)
    names = ["a", "b", "c"][: DIM + context_dim]
    table = "\n".join(",".join(map(str, row)) for row in [names, *rows.tolist()])
    dataset = shared_client.post("/v1/datasets", content=table, headers=CSV).json()
    version = dataclasses.replace(version, dataset_id=dataset["id"])
    source = Source(version, state.registry, state.jobs, state.blobs, state.engine)

    def numbers(kind: PlotKind) -> dict[str, np.ndarray]:
        return dict(asyncio.run(asyncio.wait_for(source.numbers(kind, flow), 120)))

    shown = numbers(PlotKind.MARGINALS)
    np.testing.assert_allclose(shown["data"], rows[:, :DIM])
    context = rows[:, DIM:] if context_dim else None
    drawn = flow.sample(300 if context_dim else 2000, seed=0, context=context)
    np.testing.assert_allclose(shown["samples"], drawn, rtol=1e-5)
    if flow.has_noise:
        noise = numbers(PlotKind.NOISE)["noise"]
        np.testing.assert_allclose(noise, flow.inverse(rows)[0], rtol=1e-5, atol=1e-5)
    if not context_dim:
        density = numbers(PlotKind.DENSITY)
        grid = np.stack(np.meshgrid(density["x"], density["y"]), axis=-1).reshape(-1, DIM)
        plain = np.exp(flow.log_prob(grid))
        np.testing.assert_allclose(density["density"].reshape(-1), plain, rtol=1e-4, atol=1e-12)
