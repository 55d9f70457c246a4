import asyncio
import csv
import dataclasses
import io
import json
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from prometheus_client import CollectorRegistry
from starlette.testclient import TestClient

from app import remembered
from app.engine.loaded_models import CacheLimits, LoadedModels
from app.engine.reference_rows import UsualTerms
from app.metrics import ModelMetrics
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
    MixedColumn,
    NafSpec,
    NsfSpec,
    PlanarSpec,
    RealNvpSpec,
    compile_flow,
    rank_among,
)
from models_store.aliases import Aliases
from models_store.database.database import Database
from models_store.errors import BlobCorruptError, BlobMissingError, NotFoundError, RequestError
from models_store.files.blobs import Blobs
from models_store.files.store_address import StoreAddress
from models_store.records import Version
from models_store.registry import Registry
from tabular.columns import Column
from tabular.typed_rows import TypedRows
from tests.api.conftest import CSV
from tests.api.mixed_model import (
    COLUMNS,
    NAMES,
    SPEC,
    TYPES,
    mixed_flow,
    mixed_rows,
    registered_mixed,
)
from tests.api.serving import a_flow, registered, uploaded
from tests.store.makers import PROJECT
from tests.support.waiting import Clock

pytestmark = pytest.mark.anyio

ROW = np.array([[170.0, 70.0, 40.0]])


class CountingStore(Blobs):
    """A blob store that knows how often each file was read."""

    def __init__(self, address: StoreAddress) -> None:
        super().__init__(address)
        self.reads: list[str] = []

    def verify(self, key: str, sha256: str) -> Path:
        self.reads.append(key)
        return super().verify(key, sha256)


class SlowRegistry(Registry):
    """A registry whose answers take longer to come back than they hold."""

    looks = 0

    def resolve(self, project: str, ref: str) -> Version:
        self.looks += 1
        found = super().resolve(project, ref)
        time.sleep(0.3)
        return found


@pytest.fixture
def database(sqlite_url: str) -> Iterator[Database]:
    database = Database(sqlite_url)
    yield database
    database.dispose()


@pytest.fixture
def blobs(tmp_path: Path) -> CountingStore:
    return CountingStore.in_folder(tmp_path / "blobs")


@pytest.fixture
def versions(database: Database, blobs: CountingStore) -> list[Version]:
    return [registered(database, blobs, name=f"m{seed}", seed=seed) for seed in range(4)]


@pytest.fixture
def cache(database: Database, blobs: CountingStore) -> Callable[..., LoadedModels]:
    def cache(max_bytes: int, *, resolved_for_s: float = 1.0, **options: Any) -> LoadedModels:
        limits = CacheLimits(max_bytes, 2**30, resolved_for_s=resolved_for_s)
        return LoadedModels(Registry(database), blobs, limits=limits, **options)

    return cache


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The clock of what is remembered, which goes when it is told."""
    clock = Clock()
    monkeypatch.setattr(remembered, "time", clock)
    return clock


def run(main: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(main)


async def size_of(models: LoadedModels, version: Version) -> int:
    async with models.use(version) as flow:
        return flow.size_bytes


async def score(models: LoadedModels, version: Version) -> float:
    async with models.use(version) as flow:
        return float(flow.log_prob(ROW)[0])


async def test_a_model_is_read_once_however_many_want_it_at_once(cache, blobs, versions):
    models = cache(10**9)
    scores = await asyncio.gather(*(score(models, versions[0]) for _ in range(20)))
    assert len(set(scores)) == 1
    assert blobs.reads == [versions[0].checkpoint_key]


async def test_the_least_recently_used_model_goes_first(cache, blobs, versions):
    size = await size_of(cache(10**9), versions[0])
    models = cache(2 * size)
    blobs.reads.clear()
    first, second, third, _ = versions
    for version in (first, second, first, third, first):
        await score(models, version)
        assert models.size_bytes <= 2 * size
    assert blobs.reads == [version.checkpoint_key for version in (first, second, third)]
    await score(models, second)
    assert blobs.reads[-1] == second.checkpoint_key


async def test_what_is_in_use_is_not_evicted(cache, blobs, versions):
    models = cache(1)
    async with models.use(versions[0]) as used:
        await score(models, versions[1])
        async with models.use(versions[0]) as again:
            assert again is used
    assert models.size_bytes == 0
    keys = [version.checkpoint_key for version in versions[:2]]
    assert blobs.reads == keys


async def test_a_load_that_failed_is_tried_again(cache, blobs, versions):
    path = blobs.path(versions[0].checkpoint_key)
    data = path.read_bytes()
    models = cache(10**9)
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(BlobCorruptError):
        await score(models, versions[0])
    path.unlink()
    with pytest.raises(BlobMissingError):
        await score(models, versions[0])
    path.write_bytes(data)
    assert np.isfinite(await score(models, versions[0]))
    assert await score(models, versions[1]) != await score(models, versions[0])


async def test_a_caller_who_leaves_does_not_stop_the_load_for_the_others(cache, blobs, versions):
    models = cache(10**9)
    leaver = asyncio.create_task(score(models, versions[0]))
    stayer = asyncio.create_task(score(models, versions[0]))
    await asyncio.sleep(0)
    leaver.cancel()
    assert np.isfinite(await stayer)
    assert len(blobs.reads) == 1


async def test_loads_that_nobody_waits_for_any_more_are_bounded_too(cache, versions):
    others = asyncio.all_tasks()
    models = cache(0)
    room = await size_of(models, versions[0])
    models = cache(room)
    for version in versions:
        leaver = asyncio.create_task(score(models, version))
        await asyncio.sleep(0)
        leaver.cancel()
        await asyncio.wait({leaver})
    await asyncio.wait(asyncio.all_tasks() - others)
    await asyncio.sleep(0)  # what the end of the last one calls
    assert 0 < models.size_bytes <= room
    assert np.isfinite(await score(models, versions[0]))


def test_all_who_ask_at_once_share_one_look(database, blobs):
    registered(database, blobs, name="m0")
    registry = SlowRegistry(database)

    async def main() -> None:
        models = LoadedModels(registry, blobs, limits=CacheLimits(10**9, 2**30))
        leaver, *others = [asyncio.create_task(models.resolve(PROJECT, "m0")) for _ in range(20)]
        await asyncio.sleep(0)
        leaver.cancel()
        assert {version.name for version in await asyncio.gather(*others)} == {"m0"}
        assert registry.looks == 1
        asked = [models.resolve(PROJECT, "m1") for _ in range(3)]
        errors = await asyncio.gather(*asked, return_exceptions=True)
        assert {type(error) for error in errors} == {NotFoundError}
        assert registry.looks == 2

    run(main())


async def test_a_reference_is_looked_up_again_after_a_second_or_when_told(
    cache, database, blobs, clock
):
    aliases = Aliases(database)
    registered(database, blobs, name="m0")
    models = cache(10**9, resolved_for_s=0.2)
    assert (await models.resolve(PROJECT, "m0")).version == 1
    newer = registered(database, blobs, name="m0", seed=9)
    assert (await models.resolve(PROJECT, "m0")).version == 1
    clock.now += 0.25
    assert (await models.resolve(PROJECT, "m0")).version == newer.version
    aliases.set(PROJECT, "m0", "production", version=1)
    models.forget(PROJECT)
    assert (await models.resolve(PROJECT, "m0")).version == 1


async def test_a_model_that_needs_more_memory_than_one_may_take_is_refused(database, blobs):
    version = registered(database, blobs, name="m0")
    models = LoadedModels(Registry(database), blobs, limits=CacheLimits(10**9, 2**10))
    with pytest.raises(RequestError, match="would take about"):
        async with models.use(version):
            pass


@pytest.mark.usefixtures("clock")
async def test_changes_of_a_project_leave_the_references_of_others(database, blobs):
    registered(database, blobs, name="m0")
    registry = SlowRegistry(database)
    models = LoadedModels(registry, blobs, limits=CacheLimits(10**9, 2**30))
    for forgotten, looks in (("another", 1), ("another", 1), (PROJECT, 2)):
        models.forget(forgotten)
        await models.resolve(PROJECT, "m0")
        assert registry.looks == looks


class HeldRegistry(Registry):
    """A registry that answers with what it found once it may."""

    def __init__(self, database: Database) -> None:
        super().__init__(database)
        self.go_on, self.answered = threading.Event(), threading.Event()
        self.go_on.set()

    def resolve(self, project: str, ref: str) -> Version:
        found = super().resolve(project, ref)
        self.go_on.wait(120)
        self.answered.set()
        return found


async def test_no_request_waits_while_a_reference_in_use_is_looked_up_again(database, blobs, clock):
    registered(database, blobs, name="m0")
    registry = HeldRegistry(database)
    models = LoadedModels(registry, blobs, limits=CacheLimits(10**9, 2**30))

    async def resolved(version: int) -> None:
        found = await asyncio.wait_for(models.resolve(PROJECT, "m0"), 60)
        assert found.version == version

    await resolved(1)
    newer = registered(database, blobs, name="m0", seed=9)
    clock.now += 0.75
    registry.go_on.clear()
    registry.answered.clear()
    await resolved(1)
    registry.go_on.set()
    await asyncio.to_thread(registry.answered.wait, 60)
    while (await models.resolve(PROJECT, "m0")).version == 1:  # noqa: ASYNC110 - it tells nobody
        await asyncio.sleep(0.01)
    await resolved(newer.version)


async def test_a_reference_that_is_gone_is_known_until_its_time_is_over(
    database, blobs, monkeypatch, clock
):
    registered(database, blobs, name="m0")
    registry = Registry(database)

    def resolve(_project: str, ref: str) -> Version:
        raise NotFoundError("model", ref)

    models = LoadedModels(registry, blobs, limits=CacheLimits(10**9, 2**30))
    await models.resolve(PROJECT, "m0")
    monkeypatch.setattr(registry, "resolve", resolve)
    clock.now += 0.75
    for _ in range(2):
        await models.resolve(PROJECT, "m0")
        await asyncio.sleep(0.1)
    clock.now += 0.5
    with pytest.raises(NotFoundError):
        await models.resolve(PROJECT, "m0")


async def test_a_reference_of_another_project_is_not_found(cache, versions):
    models = cache(10**9)
    await models.resolve(PROJECT, versions[0].name)
    with pytest.raises(NotFoundError):
        await models.resolve("other", versions[0].name)


async def test_loads_hits_failures_and_evictions_are_counted(cache, blobs, versions):
    registry = CollectorRegistry()
    models = cache(1, metrics=ModelMetrics(registry))
    async with models.use(versions[0]), models.use(versions[0]):
        assert registry.get_sample_value("densityd_models_loaded") == 1
        assert registry.get_sample_value("densityd_models_loaded_bytes") == models.size_bytes
    blobs.path(versions[1].checkpoint_key).unlink()
    with pytest.raises(BlobMissingError):
        await score(models, versions[1])
    names = ("cache_hits", "loads", "load_failures", "evictions")
    counted = [registry.get_sample_value(f"densityd_model_{name}_total") for name in names]
    assert counted == [1, 1, 1, 1]
    assert registry.get_sample_value("densityd_models_loaded") == 0
    assert registry.get_sample_value("densityd_models_loaded_bytes") == 0


RANKS = {"rows": 300, "quantiles": np.linspace(-80, 0, 1001).tolist()}
ROWS = mixed_rows(60, seed=4)
CONTEXT = np.linspace(-1, 1, 300)[:, None]


@pytest.fixture(scope="module")
def client(shared_client):
    return shared_client


def a_version(client, name, **options):
    return registered_mixed(client, name, held_out=RANKS, **options)


def explained(client, model, rows):
    cells = TypedRows(COLUMNS).batch(rows[:, : len(NAMES)]).to_pylist()
    others = [{f"given{i}": value for i, value in enumerate(row[len(NAMES) :])} for row in rows]
    body = {"rows": [{**cell, **other} for cell, other in zip(cells, others, strict=True)]}
    path = f"/v1/models/{model}/score?explain=true"
    headers = {"Content-Type": "application/json"}
    response = client.post(path, content=json.dumps(body, default=str), headers=headers)
    assert response.status_code == 200, response.text
    return response.json()


def medians(rows):
    with np.errstate(all="ignore"):
        terms = compile_flow(mixed_flow()).explain(rows)
    return [
        pytest.approx(float(np.median(column)), rel=1e-3) if np.isfinite(column).all() else None
        for column in terms.T
    ]


def test_they_are_medians_over_samples_where_there_is_no_dataset(client):
    a_version(client, "sampled")
    document = explained(client, "sampled", ROWS[:3])
    samples = compile_flow(mixed_flow()).sample(200, seed=0)
    assert list(document["usual"].values()) == medians(samples)
    assert list(document["usual"]) == NAMES
    for terms, differences in zip(document["explanation"], document["difference"], strict=True):
        for name, usual in document["usual"].items():
            known = None if usual is None else pytest.approx(terms[name] - usual)
            assert differences[name] == known


def test_they_are_medians_over_the_rows_of_the_dataset(client):
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(NAMES)
    for cells in TypedRows(COLUMNS).batch(ROWS).to_pylist():
        writer.writerow([cells[name] for name in NAMES])
    dataset = client.post("/v1/datasets", content=text.getvalue(), headers=CSV).json()
    a_version(client, "of_data", dataset_id=dataset["id"])
    found = explained(client, "of_data", ROWS[:1])["usual"]
    assert list(found.values()) == medians(ROWS)


def test_a_dataset_of_other_types_is_passed_over(client):
    """A column that was modelled may be ignored by now, or hold texts where the model has numbers."""
    lines = ["cut,price,sold", *(f"Ideal,{row},yes" for row in range(60))]
    dataset = client.post("/v1/datasets", content="\n".join(lines), headers=CSV).json()
    a_version(client, "of_other_data", dataset_id=dataset["id"])
    a_version(client, "of_samples")
    found = explained(client, "of_other_data", ROWS[:1])["usual"]
    assert found == pytest.approx(explained(client, "of_samples", ROWS[:1])["usual"])


def test_without_a_context_to_draw_samples_for_none_is_known(client):
    spec = dataclasses.replace(SPEC, context=[MixedColumn()])
    flow = mixed_flow(spec, context=CONTEXT)
    types = [*TYPES, Column(name="given0").to_dict()]
    a_version(client, "given", spec=spec, flow=flow, types=types, context_columns=("given0",))
    document = explained(client, "given", np.column_stack([ROWS[:2], [0.5, -0.5]]))
    assert set(document["usual"].values()) == {None}
    assert {value for row in document["difference"] for value in row.values()} == {None}
    assert document["explanation"][0]["cut"] is not None


def test_they_are_computed_once_and_the_least_recently_used_are_dropped(client, registry, blobs):
    state = client.app.state
    terms = UsualTerms(registry, blobs, models=state.models, engine=state.engine, most_kept=1)
    first, second = a_version(client, "first"), a_version(client, "second")

    async def twice(version):
        return await asyncio.gather(terms.of(version), terms.of(version))

    one, other = client.portal.call(twice, first)
    assert one is other
    assert client.portal.call(terms.of, first) is one
    client.portal.call(terms.of, second)
    again = client.portal.call(terms.of, first)
    assert again is not one
    np.testing.assert_array_equal(again, one)


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

    if name not in {
        "maf",
        "conditional",
        "made-mixture",
    }:  # with noise, with a context, without noise
        return
    # the numbers of plots
    rows = rows_of(300, DIM + context_dim).round(3)
    names = ["a", "b", "c"][: DIM + context_dim]
    version = dataclasses.replace(version, dataset_id=uploaded(shared_client, rows, names))
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
