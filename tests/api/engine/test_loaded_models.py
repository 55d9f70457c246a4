import asyncio
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from app import remembered
from app.engine.loaded_models import CacheLimits, LoadedModels
from app.metrics import ModelMetrics
from flows import CompiledFlow
from models_store.aliases import Aliases
from models_store.database.database import Database
from models_store.errors import BlobCorruptError, BlobMissingError, NotFoundError
from models_store.files.blobs import Blobs
from models_store.files.store_address import StoreAddress
from models_store.records import Version
from models_store.registry import Registry
from tests.api.serving import registered
from tests.store.makers import PROJECT
from tests.support.clocks import Clock

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


def run(main: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(main)


async def size_of(models: LoadedModels, version: Version) -> int:
    async with models.use(version) as flow:
        return flow.size_bytes


async def score(models: LoadedModels, version: Version) -> float:
    async with models.use(version) as flow:
        return float(flow.log_prob(ROW)[0])


def test_a_model_is_read_once_however_many_want_it_at_once(cache, blobs, versions):
    async def main() -> None:
        models = cache(10**9)
        scores = await asyncio.gather(*(score(models, versions[0]) for _ in range(20)))
        assert len(set(scores)) == 1
        assert blobs.reads == [versions[0].checkpoint_key]

    run(main())


def test_the_least_recently_used_model_goes_first(cache, blobs, versions):
    async def main() -> None:
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

    run(main())


def test_what_is_in_use_is_not_evicted(cache, blobs, versions):
    async def main() -> None:
        models = cache(1)
        async with models.use(versions[0]) as used:
            await score(models, versions[1])
            async with models.use(versions[0]) as again:
                assert again is used
        assert models.size_bytes == 0
        keys = [version.checkpoint_key for version in versions[:2]]
        assert blobs.reads == keys

    run(main())


def test_a_load_that_failed_is_tried_again(cache, blobs, versions):
    path = blobs.path(versions[0].checkpoint_key)
    data = path.read_bytes()

    async def main() -> None:
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

    run(main())


def test_a_caller_who_leaves_does_not_stop_the_load_for_the_others(cache, blobs, versions):
    async def main() -> None:
        models = cache(10**9)
        leaver = asyncio.create_task(score(models, versions[0]))
        stayer = asyncio.create_task(score(models, versions[0]))
        await asyncio.sleep(0)
        leaver.cancel()
        assert np.isfinite(await stayer)
        assert len(blobs.reads) == 1

    run(main())


def test_loads_that_nobody_waits_for_any_more_are_bounded_too(cache, versions):
    async def main() -> None:
        models = cache(0)
        room = await size_of(models, versions[0])
        models = cache(room)
        for version in versions:
            leaver = asyncio.create_task(score(models, version))
            await asyncio.sleep(0)
            leaver.cancel()
            await asyncio.wait({leaver})
        loads = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        await asyncio.wait(loads)
        await asyncio.sleep(0)  # what the end of the last one calls
        assert 0 < models.size_bytes <= room
        assert np.isfinite(await score(models, versions[0]))

    run(main())


def test_a_look_that_takes_long_does_not_keep_a_moved_alias_alive_longer(database, blobs):
    registered(database, blobs, name="m0")
    registry = SlowRegistry(database)

    async def main() -> None:
        limits = CacheLimits(10**9, 2**30, resolved_for_s=0.2)
        models = LoadedModels(registry, blobs, limits=limits)
        await models.resolve(PROJECT, "m0")
        await models.resolve(PROJECT, "m0")

    run(main())
    assert registry.looks == 2


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


def test_a_reference_is_looked_up_again_after_a_second_or_when_told(
    cache, database, blobs, monkeypatch
):
    clock = Clock()
    monkeypatch.setattr(remembered, "time", clock)
    aliases = Aliases(database)
    registered(database, blobs, name="m0")

    async def main() -> None:
        models = cache(10**9, resolved_for_s=0.2)
        assert (await models.resolve(PROJECT, "m0")).version == 1
        newer = registered(database, blobs, name="m0", seed=9)
        assert (await models.resolve(PROJECT, "m0")).version == 1
        clock.now += 0.25
        assert (await models.resolve(PROJECT, "m0")).version == newer.version
        aliases.set(PROJECT, "m0", "production", version=1)
        models.forget(PROJECT)
        assert (await models.resolve(PROJECT, "m0")).version == 1

    run(main())


def test_changes_of_a_project_leave_the_references_of_others(database, blobs, monkeypatch):
    monkeypatch.setattr(remembered, "time", Clock())
    registered(database, blobs, name="m0")
    registry = SlowRegistry(database)

    async def main() -> None:
        models = LoadedModels(registry, blobs, limits=CacheLimits(10**9, 2**30))
        for forgotten, looks in (("another", 1), ("another", 1), (PROJECT, 2)):
            models.forget(forgotten)
            await models.resolve(PROJECT, "m0")
            assert registry.looks == looks

    run(main())


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


def test_no_request_waits_while_a_reference_in_use_is_looked_up_again(database, blobs, monkeypatch):
    clock = Clock()
    monkeypatch.setattr(remembered, "time", clock)
    registered(database, blobs, name="m0")
    registry = HeldRegistry(database)

    async def main() -> None:
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

    run(main())


def test_a_reference_that_is_gone_is_known_until_its_time_is_over(database, blobs, monkeypatch):
    clock = Clock()
    monkeypatch.setattr(remembered, "time", clock)
    registered(database, blobs, name="m0")
    registry = Registry(database)

    def resolve(_project: str, ref: str) -> Version:
        raise NotFoundError("model", ref)

    async def main() -> None:
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

    run(main())


def test_a_reference_of_another_project_is_not_found(cache, versions):
    async def main() -> None:
        models = cache(10**9)
        await models.resolve(PROJECT, versions[0].name)
        with pytest.raises(NotFoundError):
            await models.resolve("other", versions[0].name)

    run(main())


def test_loads_hits_failures_and_evictions_are_counted(cache, blobs, versions):
    registry = CollectorRegistry()

    async def main() -> None:
        models = cache(1, metrics=ModelMetrics(registry))
        async with models.use(versions[0]), models.use(versions[0]):
            assert registry.get_sample_value("densityd_models_loaded") == 1
            assert registry.get_sample_value("densityd_models_loaded_bytes") == models.size_bytes
        blobs.path(versions[1].checkpoint_key).unlink()
        with pytest.raises(BlobMissingError):
            await score(models, versions[1])

    run(main())
    names = ("cache_hits", "loads", "load_failures", "evictions")
    counted = [registry.get_sample_value(f"densityd_model_{name}_total") for name in names]
    assert counted == [1, 1, 1, 1]
    assert registry.get_sample_value("densityd_models_loaded") == 0
    assert registry.get_sample_value("densityd_models_loaded_bytes") == 0


def test_a_model_has_computed_before_its_first_request(cache, versions, monkeypatch):
    asked = []
    for name in ("log_prob", "sample"):
        original = getattr(CompiledFlow, name)

        def noting(self, *args, _name=name, _original=original, **kwargs):
            asked.append(_name)
            return _original(self, *args, **kwargs)

        monkeypatch.setattr(CompiledFlow, name, noting)

    async def main() -> None:
        async with cache(10**9).use(versions[0]):
            assert asked == ["log_prob", "sample"]

    run(main())
