"""Pictures of versions: drawn once, by a process of their own, from what there is."""

import asyncio
import dataclasses
import io
import re

import numpy as np
import pytest
import torch
from starlette.testclient import TestClient

from app.plots import plots
from app.plots.numbers import Source
from app.plots.plots import Drawing, Numbers, PlotKind
from app.problems.problem import Problem
from app.problems.types import PROBLEM_TYPES
from flows import (
    Flow,
    FlowSpec,
    GaussianSpec,
    MadeSpec,
    MafSpec,
    MixedColumn,
    MixedSpec,
    PlanarSpec,
    RealNvpSpec,
    build,
    compile_flow,
)
from tables.columns import Column
from tests.app.conftest import CSV, assert_refused
from tests.app.serving import COLUMNS, a_flow, registered

DECIDES = "robust_validation_log_likelihood"
PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture(scope="module")
def people(shared_client):
    state = shared_client.app.state
    registered(state.database, state.blobs)
    registered(state.database, state.blobs, name="plane", columns=["x$1", "y"])


def draw(kind, numbers):
    from app.plots import drawing  # noqa: PLC0415  half a second, which only the process that runs this needs

    return drawing.draw(kind, numbers)


def picture(client, kind, model="people", **query):
    return client.get(f"/v1/models/{model}/versions/1/plots/{kind}", params=query)


@pytest.mark.usefixtures("people")
def test_a_picture_is_drawn_of_what_there_is(shared_client):
    answer = picture(shared_client, "density", "plane")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "image/png")
    assert answer.content.startswith(PNG)


def with_data(client):
    """A version whose dataset is there."""
    rows = np.random.default_rng(0).normal([170, 70, 40], [10, 12, 15], size=(300, 3))
    table = "\n".join(",".join(map(str, row)) for row in [["age", "height", "weight"], *rows])
    dataset = client.post("/v1/datasets", content=table, headers=CSV).json()
    state = client.app.state
    version = registered(state.database, state.blobs, name="known")
    return dataclasses.replace(version, dataset_id=dataset["id"])


@pytest.mark.usefixtures("people")
def test_data_stand_beside_the_samples_in_the_models_order(shared_client):
    state = shared_client.app.state
    version = with_data(shared_client)
    source = Source(version, state.registry, state.jobs, state.blobs, state.engine)
    flow = compile_flow(a_flow())

    shown = asyncio.run(source.numbers(PlotKind.MARGINALS, flow))
    assert list(shown["names"]) == COLUMNS
    assert shown["data"].shape == (300, 3)
    assert shown["data"].mean(axis=0) == pytest.approx([70, 40, 170], rel=0.1)
    assert shown["samples"].shape == (2000, 3)

    noise = asyncio.run(source.numbers(PlotKind.NOISE, flow))
    assert noise["noise"] == pytest.approx(flow.inverse(shown["data"])[0], abs=1e-4)
    assert np.all(np.diff(noise["normal"]) > 0)
    assert noise["normal"].mean() == pytest.approx(0, abs=1e-9)


def numbers_of(kind: PlotKind) -> dict[str, np.ndarray]:
    values = np.random.default_rng(0).normal(size=(200, 16))
    names = np.array(["a$b", "c", "d"])
    match kind:
        case PlotKind.LEARNING_CURVE:
            likelihoods = {
                "train_log_likelihood": 1.0 * np.arange(3),
                DECIDES: np.array([1, np.nan, 3]),
            }
            return {
                "at": np.arange(3),
                "decides": np.array(DECIDES),
                "best": np.array(2),
                **likelihoods,
            }
        case PlotKind.DENSITY:
            at = np.linspace(-1, 1, 5)
            return {"names": names, "x": at, "y": at, "density": np.zeros((5, 5))}
        case PlotKind.NOISE:
            return {"names": names, "noise": values, "normal": np.linspace(-2, 2, 200)}
        case PlotKind.IMAGES:
            return {"samples": values[:10]}
        case PlotKind.MARGINALS | PlotKind.PAIRS:
            constant = {"data": np.ones((9, 3))} if kind is PlotKind.MARGINALS else {}
            return {"names": names, "samples": values, **constant}


TYPED = [
    Column(name="colour", type="category", levels=("red", "gr$een"), other=True, missing=True),
    Column(name="amount", missing=True, spikes=(-999.0, 0.0), transform="log", low=-1e4),
    Column(name="day", type="datetime", date_only=True),
    Column(name="rank", type="integer", levels=(1.0, 2.0, 5.0)),
]
MIXED = MixedSpec(
    columns=[
        MixedColumn(levels=3, missing=True),
        MixedColumn(missing=True, spikes=[-999.0, 0.0], low=-1e4),
        MixedColumn(step=86_400.0),
        MixedColumn(levels=3, values=[1.0, 2.0, 5.0]),
    ],
    flow=MafSpec(layers=2, hidden=[8], batch_norm=None),
    hidden=[8],
)


@pytest.mark.long
@pytest.mark.usefixtures("people")
def test_levels_spikes_and_gaps_stand_beside_those_of_the_data(shared_client):
    random, state = np.random.default_rng(0), shared_client.app.state
    cells = [["colour", "amount", "day", "rank"]]
    for _ in range(300):
        colour = random.choice(["red", "gr$een", "other", ""])
        day = f"2024-01-{random.integers(10, 28)}"
        cells.append([colour, random.choice(["-999", "0", "1.5", "", "2.25"]), day, "5"])
    dataset = shared_client.post(
        "/v1/datasets", content="\n".join(",".join(map(str, row)) for row in cells), headers=CSV
    ).json()
    flow = build(MIXED, 4, seed=0).eval()
    version = registered(
        state.database,
        state.blobs,
        name="typed",
        spec=MIXED,
        flow=flow,
        columns=[column.name for column in TYPED],
        types=[column.to_dict() for column in TYPED],
        dataset_id=dataset["id"],
    )
    source = Source(version, state.registry, state.jobs, state.blobs, state.engine)
    shown = dict(asyncio.run(source.numbers(PlotKind.PAIRS, compile_flow(flow))))
    assert len(shown["data"]) == 300
    assert set(np.unique(shown["data"][:, 0])) >= {0.0, 1.0, 2.0}
    figure = draw(PlotKind.MARGINALS, dict(shown))
    figure.savefig(io.BytesIO(), format="png", dpi=20)
    bars, amount = figure.axes[:2]
    assert [text.get_text() for text in bars.get_xticklabels()][:2] == ["red", r"gr\$een"]
    assert "missing: data" in amount.get_xlabel()
    figure = draw(PlotKind.PAIRS, shown)
    figure.savefig(io.BytesIO(), format="png", dpi=20)
    data, samples = figure.axes[:2]
    assert (data.get_title(), samples.get_title()) == ("data", "samples")
    assert (data.get_xlim(), data.get_ylim()) == (samples.get_xlim(), samples.get_ylim())
    assert (data.get_xlabel(), data.get_ylabel()) == ("colour", "amount")


@pytest.mark.parametrize("kind", PlotKind)
def test_every_kind_is_drawn(kind):
    file = io.BytesIO()
    draw(kind, numbers_of(kind)).savefig(file, format="png", dpi=20)
    assert file.getvalue().startswith(PNG)


def test_a_learning_curve_marks_the_epoch_that_was_kept():
    figure = draw(PlotKind.LEARNING_CURVE, numbers_of(PlotKind.LEARNING_CURVE))
    (axes,) = figure.axes
    assert axes.get_xlabel() == "epoch"
    (legend,) = figure.legends
    labels = [text.get_text() for text in legend.get_texts()]
    assert "validation rows, far ones bounded (chooses the epoch)" in labels
    assert "kept: epoch 2, 3.000 nats" in labels


def test_tails_get_an_axis_that_shows_them():
    random = np.random.default_rng(0)
    columns = {
        "log": random.lognormal(0, 2, 2000),
        "asinh": random.standard_cauchy(2000),
        "linear": random.normal(size=2000),
    }
    rows = np.stack(list(columns.values()), axis=1)
    for kind in (PlotKind.MARGINALS, PlotKind.PAIRS):
        figure = draw(kind, {"names": np.array(list(columns)), "samples": rows})
        for axes in figure.axes:
            assert axes.get_xlabel() in (axes.get_xscale(), "")


def test_the_data_choose_the_axis_and_not_a_few_samples():
    rows = np.random.default_rng(0).lognormal(0, 2, (2000, 2))
    samples = np.where(np.arange(2000)[:, None] % 100 == 0, -0.5, rows)
    for kind in (PlotKind.MARGINALS, PlotKind.PAIRS):
        numbers = {"names": np.array(["a", "b"]), "data": rows, "samples": samples}
        assert {axes.get_xscale() for axes in draw(kind, numbers).axes} == {"log"}


@pytest.mark.usefixtures("people")
def test_the_density_of_a_target_stands_beside_the_models(shared_client):
    state = shared_client.app.state
    version = registered(state.database, state.blobs, name="ring", columns=["z1", "z2"])
    flow = compile_flow(MODELS["two columns"])

    def shown(target):
        of_target = dataclasses.replace(version, target=target)
        source = Source(of_target, state.registry, state.jobs, state.blobs, state.engine)
        return dict(asyncio.run(source.numbers(PlotKind.DENSITY, flow)))

    known = shown({"log_density": "-(z1^2 + z2^2) / 2", "dim": 2})
    (cell,) = np.diff(known["x"])[:1] * np.diff(known["y"])[:1]
    assert known["target"].sum() * cell == pytest.approx(1, rel=0.05)
    titles = [axes.get_title() for axes in draw(PlotKind.DENSITY, known).axes]
    assert titles[:2] == ["density of the model", "density of the target"]
    odd_ones: list[dict[str, object]] = [
        {"log_density": "z3", "dim": 2},
        {"log_density": "-z1^2", "dim": 1},
        {"dim": []},
    ]
    for odd in odd_ones:
        assert "target" not in shown(odd)


def test_a_project_that_asks_for_too_many_plots_is_told_at_once(monkeypatch):
    begun, release = [], asyncio.Event()

    async def held(kind, *_):
        begun.append(kind)
        await release.wait()
        return PNG

    async def nothing() -> Numbers:
        return {}

    async def main() -> None:
        kept = plots.Plots()
        tasks = [
            asyncio.create_task(
                kept.draw(Drawing(str(number), PlotKind.DENSITY, "png", "light"), nothing)
            )
            for number in range(21)
        ]
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        assert len(begun) == 1
        assert len(done) == 20 - plots._MOST_WAITING
        for task in done:
            assert isinstance(error := task.exception(), Problem)
            assert error.type.slug == "overloaded"
        release.set()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert len(begun) == 1 + plots._MOST_WAITING

    monkeypatch.setattr(plots, "_draw", held)
    asyncio.run(main())


@pytest.mark.usefixtures("people")
def test_a_picture_is_drawn_once(shared_client, monkeypatch):
    first = picture(shared_client, "pairs", format="svg")
    assert first.headers["content-type"] == "image/svg+xml"
    assert re.search(rb"<svg\b", first.content)

    monkeypatch.setattr(plots, "_TIMEOUT_S", 0.0)  # no other is drawn in no time
    assert picture(shared_client, "pairs", format="svg").content == first.content
    assert_refused(picture(shared_client, "pairs"), 503, "overloaded")


@pytest.mark.usefixtures("people")
@pytest.mark.parametrize(
    ("kind", "model"),
    [
        ("learning-curve", "people"),
        ("noise", "people"),
        ("density", "people"),
        ("images", "people"),
    ],
)
def test_what_cannot_be_shown_is_told(shared_client, kind, model):
    refused = picture(shared_client, kind, model)
    assert_refused(refused, 422, "plot-unavailable")
    assert shared_client.head(str(refused.url)).status_code == 422


@pytest.mark.usefixtures("people")
def test_unknown_kinds_formats_and_versions_are_refused(shared_client):
    assert picture(shared_client, "pie").status_code == 422
    assert_refused(picture(shared_client, "pairs", format="gif"), 422, "validation")
    assert_refused(picture(shared_client, "pairs", "nobody"), 404, "not-found")


@pytest.mark.fault(223)
def test_the_process_that_draws_gets_no_secret(monkeypatch, tmp_path):
    noted = tmp_path / "environment"
    (tmp_path / "sitecustomize.py").write_text(
        "import os, sys\n"
        "if 'app.plots.drawing' in sys.orig_argv:\n"
        f"    open({str(noted)!r}, 'w').write(str(dict(os.environ)))\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("DENSITYD_DATABASE_URL", "postgresql://user:s3same@host/db")

    kind = PlotKind.LEARNING_CURVE

    async def numbers() -> plots.Numbers:
        return numbers_of(kind)

    async def main() -> None:
        kept = plots.Plots()
        await kept.draw(Drawing("v", kind, "svg", "dark"), numbers)
        await kept.close()

    asyncio.run(main())

    assert "PATH" in noted.read_text()
    assert "s3same" not in noted.read_text()


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
@pytest.mark.fault(220)
@pytest.mark.parametrize(("name", "rows"), [*CASES, ("gaussian", 2)])
@pytest.mark.usefixtures("people")
def test_fault_220_every_kind_is_drawn_or_refused_whatever_the_model_and_its_data(
    shared_client, name, rows
):
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
@pytest.mark.fault(220)
def test_fault_220_the_picture_says_what_is_left_out(shared_client):
    state = shared_client.app.state
    columns = ["c0", "c1"]
    version = registered(state.database, state.blobs, name="wild", columns=columns)
    source = Source(version, state.registry, state.jobs, state.blobs, state.engine)
    flow = compile_flow(MODELS["some samples finite"])
    for kind in (PlotKind.MARGINALS, PlotKind.PAIRS, PlotKind.DENSITY):
        numbers = dict(asyncio.run(source.numbers(kind, flow)))
        title = draw(kind, numbers).get_suptitle()
        assert re.search(r"\d+ of 2000 rows of samples are not finite", title)


@pytest.mark.fault(193)
@pytest.mark.fault(220)
@pytest.mark.parametrize("rows", [3, 64])
def test_fault_193_a_picture_of_little_data_harms_nobody(shared_client, rows):
    state = shared_client.app.state
    name = f"few{rows}"
    dataset_id = uploaded(shared_client, rows, 3)
    columns = ["c0", "c1", "c2"]
    registered(state.database, state.blobs, name=name, columns=columns, dataset_id=dataset_id)
    assert picture(shared_client, "noise", name).content.startswith(PNG)
    many = {"rows": [[170.0, 70.0, 40.0]] * 300}
    assert shared_client.post(f"/v1/models/{name}/log_prob", json=many).status_code == 200


@pytest.mark.fault(220)
def test_fault_220_a_model_without_finite_samples_is_refused(shared_client):
    state = shared_client.app.state
    spec = RealNvpSpec(layers=3, hidden=[16])
    flow = MODELS["no sample finite"]
    registered(
        state.database, state.blobs, name="infinite", columns=["a", "b"], spec=spec, flow=flow
    )
    for kind in ("marginals", "pairs", "density"):
        assert_refused(picture(shared_client, kind, "infinite"), 422, "plot-unavailable")


@pytest.mark.fault(220)
def test_fault_220_a_file_that_is_gone_is_left_out(shared_client):
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
@pytest.mark.fault(220)
@pytest.mark.parametrize(("scale", "spread", "rows"), EXTREMES)
def test_fault_220_numbers_of_any_size_are_drawn(scale, spread, rows):
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
