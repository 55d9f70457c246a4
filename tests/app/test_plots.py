"""Pictures of versions: drawn once, by a process of their own, from what there is."""

import asyncio
import dataclasses
import io
import re

import numpy as np
import pytest

from app import plots
from app.plot_numbers import Source
from app.plot_process import draw
from app.plots import PlotKind
from flows import compile_flow
from tests.app.conftest import CSV, assert_refused
from tests.app.serving import COLUMNS, a_flow, registered

PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture(scope="module")
def people(shared_client):
    state = shared_client.app.state
    registered(state.database, state.blobs)
    registered(state.database, state.blobs, name="plane", columns=["x$1", "y"])


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
            return {"at": np.arange(3), "elbo": np.array([1, np.nan, 3])}
        case PlotKind.DENSITY:
            at = np.linspace(-1, 1, 5)
            return {"names": names, "x": at, "y": at, "log_prob": np.full((5, 5), -np.inf)}
        case PlotKind.NOISE:
            return {"names": names, "noise": values, "normal": np.linspace(-2, 2, 200)}
        case PlotKind.IMAGES:
            return {"samples": values[:10]}
        case PlotKind.MARGINALS | PlotKind.PAIRS:
            constant = {"data": np.ones((9, 3))} if kind is PlotKind.MARGINALS else {}
            return {"names": names, "samples": values, **constant}


@pytest.mark.parametrize("kind", PlotKind)
def test_every_kind_is_drawn(kind):
    file = io.BytesIO()
    draw(kind, numbers_of(kind)).savefig(file, format="png", dpi=20)
    assert file.getvalue().startswith(PNG)


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
    assert_refused(picture(shared_client, kind, model), 422, "plot-unavailable")


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
        "if 'app.plot_process' in sys.orig_argv:\n"
        f"    open({str(noted)!r}, 'w').write(str(dict(os.environ)))\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("DENSITYD_DATABASE_URL", "postgresql://user:s3same@host/db")

    kind = PlotKind.LEARNING_CURVE
    asyncio.run(plots.Plots().draw("v", kind, "svg", numbers_of(kind)))

    assert "PATH" in noted.read_text()
    assert "s3same" not in noted.read_text()
