"""Every caller of the engine, through all of its ways: together, in turns, and on the event loop."""

import asyncio
import dataclasses
import io
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from starlette.testclient import TestClient

from app.engine.engine import Engine
from app.plots.numbers import Source
from app.plots.plots import PlotKind
from flows import (
    CompiledFlow,
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
from models_store.records import Version
from tests.app.conftest import CSV
from tests.app.serving import a_flow, registered

# Both sides of what is small, of a batch and of a first turn; and many turns.
COUNTS = [1, 63, 64, 65, 255, 256, 257, 3000]
# How rows are put together does not depend on the family, of which these show that its numbers do not.
FEW_COUNTS = [1, 65, 257]
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
    "tails": MafSpec(layers=2, hidden=[12], tails=True, log_scale_bound=3.0),
    "ensemble": EnsembleSpec(
        members=[MafSpec(layers=2, hidden=[12]), NsfSpec(layers=1, hidden=[12])],
        weights=[0.25, 0.75],
    ),
    "conditional": MafSpec(layers=2, hidden=[16]),
}
QUANTILES = np.linspace(-40, 0, 1001)
DIM = 2


@dataclasses.dataclass(frozen=True)
class Model:
    """A registered model and the same flow, computed without the engine."""

    version: Version
    flow: CompiledFlow

    @property
    def width(self) -> int:
        return self.flow.dim + self.flow.context_dim


@pytest.fixture(scope="module", params=FAMILIES)
def model(shared_client: TestClient, request: pytest.FixtureRequest) -> Model:
    name, state = request.param, shared_client.app.state  # type: ignore[attr-defined]  # a FastAPI
    context_dim = 1 if name == "conditional" else 0
    spec = FAMILIES[name]
    version = registered(
        state.database,
        state.blobs,
        name=name,
        spec=spec,
        columns=["a", "b"],
        context_columns=("c",) * context_dim,
        held_out={"rows": 100, "quantiles": QUANTILES.tolist()},
    )
    return Model(version, compile_flow(a_flow(spec=spec, dim=DIM, context_dim=context_dim)))


@pytest.fixture(autouse=True)
def _engine_lives(shared_client: TestClient) -> Iterator[None]:
    yield
    engine: Engine = shared_client.app.state.engine  # type: ignore[attr-defined]  # as above
    assert engine.alive
    assert engine.waiting == 0


def counts_of(model: Model) -> list[int]:
    return COUNTS if model.version.name in ("maf", "conditional") else FEW_COUNTS


def rows_of(n: int, width: int) -> np.ndarray:
    return np.random.default_rng(n).normal(150, 20, size=(n, width))


def ask(
    client: TestClient, model: Model, verb: str, body: np.ndarray | dict[str, object]
) -> np.ndarray:
    """Ask often enough that what is quick is computed on the event loop; the last answer."""
    headers = {"Accept": "application/x-npy"}
    values = np.empty(0)
    for _ in range(3):
        if isinstance(body, dict):
            answer = client.post(
                f"/v1/models/{model.version.name}/{verb}", json=body, headers=headers
            )
        else:
            buffer = io.BytesIO()
            np.save(buffer, body)
            answer = client.post(
                f"/v1/models/{model.version.name}/{verb}",
                content=buffer.getvalue(),
                headers={"Content-Type": "application/x-npy", **headers},
            )
        assert answer.status_code == 200, answer.text
        values = np.load(io.BytesIO(answer.content))
    return values


def scored(flow: CompiledFlow, rows: np.ndarray) -> np.ndarray:
    log_prob = flow.log_prob(rows)
    return np.column_stack([log_prob, rank_among(log_prob, QUANTILES, rows=100)])


PLAIN: dict[str, Callable[[CompiledFlow, np.ndarray], np.ndarray]] = {
    "log_prob": lambda flow, rows: flow.log_prob(rows),
    "score": scored,
    "inverse": lambda flow, rows: np.column_stack(flow.inverse(rows)),
    "forward": lambda flow, rows: np.column_stack(flow.forward(rows)),
}


@pytest.mark.long
@pytest.mark.parametrize("verb", PLAIN)
def test_scores_of_any_number_of_rows_are_the_plain_ones(shared_client, model, verb):
    if verb in ("inverse", "forward") and not model.flow.has_noise:
        pytest.skip("the density has no noise")
    for n in counts_of(model):
        rows = rows_of(n, model.width)
        if verb == "forward":
            rows = (rows - 150) / 20
        expected = PLAIN[verb](model.flow, rows)
        np.testing.assert_allclose(
            ask(shared_client, model, verb, rows), expected, rtol=1e-5, atol=1e-5
        )


def test_samples_of_any_number_are_the_plain_ones(shared_client, model):
    context = np.array([[0.5]]) if model.flow.context_dim else None
    for n in counts_of(model):
        body: dict[str, object] = {"n": n, "seed": 7}
        if context is not None:
            body["context"] = context.tolist()
        expected = model.flow.sample(n, seed=7, context=context)
        np.testing.assert_allclose(ask(shared_client, model, "sample", body), expected, rtol=1e-5)


@pytest.mark.parametrize(
    "n", [*[pytest.param(n, marks=pytest.mark.long) for n in (3, 64)], 65, 3000]
)
def test_numbers_of_pictures_are_the_plain_ones(shared_client, model, n):
    rows = rows_of(n, model.width).round(3)
    names = ["a", "b", "c"][: model.width]
    table = "\n".join(",".join(map(str, row)) for row in [names, *rows.tolist()])
    dataset = shared_client.post("/v1/datasets", content=table, headers=CSV).json()
    state, flow = shared_client.app.state, model.flow
    version = dataclasses.replace(model.version, dataset_id=dataset["id"])
    source = Source(version, state.registry, state.jobs, state.blobs, state.engine)

    def numbers(kind: PlotKind) -> dict[str, np.ndarray]:
        return dict(asyncio.run(asyncio.wait_for(source.numbers(kind, flow), 120)))

    shown = numbers(PlotKind.MARGINALS)
    chosen = np.random.default_rng(0).choice(n, min(n, 2000), replace=False, shuffle=False)
    data = rows[np.sort(chosen)]
    np.testing.assert_allclose(shown["data"], data[:, :DIM])
    context = data[:, DIM:] if flow.context_dim else None
    drawn = 2000 if context is None else len(context)
    expected = flow.sample(drawn, seed=0, context=context)
    np.testing.assert_allclose(shown["samples"], expected, rtol=1e-5)
    np.testing.assert_allclose(numbers(PlotKind.PAIRS)["samples"], expected, rtol=1e-5)
    if flow.has_noise:
        noise = numbers(PlotKind.NOISE)["noise"]
        np.testing.assert_allclose(noise, flow.inverse(data)[0], rtol=1e-5, atol=1e-5)
    if not flow.context_dim:
        density = numbers(PlotKind.DENSITY)
        grid = np.stack(np.meshgrid(density["x"], density["y"]), axis=-1).reshape(-1, DIM)
        plain = np.exp(flow.log_prob(grid))
        np.testing.assert_allclose(density["density"].reshape(-1), plain, rtol=1e-4, atol=1e-12)
