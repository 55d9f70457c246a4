"""Datasets, models, versions and aliases, on both databases."""

from dataclasses import asdict
from typing import Any

import pytest

from models_store.aliases import Aliases, RevisionCondition
from models_store.errors import ConflictError, NotFoundError
from models_store.jobs.jobs import Jobs
from models_store.jobs.leases import JobWork
from models_store.records import Dataset, DatasetSummary, Version
from models_store.registry import Registry
from tests.store.makers import PROJECT, a_dataset, added, claimed, finished, submitted

BAD_NAMES = ["", "A", "a b", "../a", "a/b", "a\0b", ".a", "-a", "a" * 65, "\u00e9", "a\n"]

BAD_REFS = [
    *("other", "shuttle@none", "shuttle:3", "shuttle:0", "shuttle:02", "shuttle:-1", "shuttle:x"),
    *("shuttle:99999999999", "shuttle@", "shuttle:", "@a", ":1", "shuttle@a:1", "shuttle:1@a"),
    *("shuttle\0", "../shuttle", "shuttle ", "Shuttle", "shuttle@\0", "shuttle:\u0661"),
    "x" * 9999,
]


@pytest.fixture
def model(jobs: Jobs, work: JobWork) -> list[Version]:
    """Two versions of the model ``shuttle``."""
    return [trained(jobs, work), trained(jobs, work)]


def trained(
    jobs: Jobs, work: JobWork, *, name: str = "shuttle", project: str = PROJECT, **changes: Any
) -> Version:
    submitted(jobs, model_name=name, project=project)
    job = claimed(work)
    return finished(work, job, **changes)


def summary_of(dataset: Dataset) -> DatasetSummary:
    left_out = {
        "dtype",
        "columns",
        "warnings",
        "source_format",
        "source_sha256",
        "cells",
        "options",
    }
    kept = {name: value for name, value in asdict(dataset).items() if name not in left_out}
    return DatasetSummary(**kept, width=len(dataset.columns))


def test_a_dataset_comes_back_as_it_was_registered(registry: Registry) -> None:
    new = a_dataset(columns=[{"name": 'x"; DROP TABLE job;--', "max": 1e308, "min": None}])
    dataset = registry.add_dataset(new)
    assert {**asdict(dataset), "created_at": None} == {**asdict(new), "created_at": None}
    assert registry.dataset(PROJECT, new.id) == dataset
    assert registry.datasets(PROJECT, limit=1).items == [summary_of(dataset)]


def test_another_projects_things_are_not_found(registry, aliases, jobs, work):
    dataset = added(registry, project="theirs")
    trained(jobs, work, project="theirs")
    aliases.set("theirs", "shuttle", "production", version=1)
    for look in (
        lambda: registry.dataset(PROJECT, dataset.id),
        lambda: registry.delete_dataset(PROJECT, dataset.id),
        lambda: registry.model(PROJECT, "shuttle"),
        lambda: registry.versions(PROJECT, "shuttle", limit=1),
        lambda: registry.version(PROJECT, "shuttle", 1),
        lambda: registry.resolve(PROJECT, "shuttle"),
        lambda: aliases.get(PROJECT, "shuttle", "production"),
        lambda: aliases.set(PROJECT, "shuttle", "production", version=1),
        lambda: aliases.delete(PROJECT, "shuttle", "production"),
    ):
        with pytest.raises(NotFoundError):
            look()
    assert registry.datasets(PROJECT, limit=9).items == []
    assert registry.models(PROJECT, limit=9).items == []
    assert registry.resolve("theirs", "shuttle").version == 1


def test_a_page_ends_with_its_bytes_of_large_fields(registry, jobs, work):
    for length in (130_000, 130_000, 130_000, 300_000):
        trained(jobs, work, columns=["a" * length])
    found, cursor = [], None
    for _ in range(3):
        page = registry.versions(
            PROJECT, "shuttle", limit=9, cursor=cursor, include=["columns", "flow"]
        )
        found.append([one.version for one in page.items])
        cursor = page.next_cursor
    assert found == [[4], [3, 2], [1]]
    assert cursor is None
    assert len(registry.versions(PROJECT, "shuttle", limit=9, include=["flow"]).items) == 4


@pytest.mark.usefixtures("model")
def test_a_reference_names_an_alias_a_version_or_the_default(registry, aliases):
    def resolve(ref: str) -> int:
        version: int = registry.resolve(PROJECT, ref).version
        return version

    assert resolve("shuttle") == 2
    aliases.set(PROJECT, "shuttle", "production", version=1)
    assert resolve("shuttle") == 1
    assert resolve("shuttle@production") == 1
    assert resolve("shuttle:2") == 2
    aliases.delete(PROJECT, "shuttle", "production")
    assert resolve("shuttle") == 2


@pytest.mark.usefixtures("model")
def test_a_reference_to_nothing_is_not_found(registry: Registry) -> None:
    for ref in BAD_REFS:
        with pytest.raises(NotFoundError):
            registry.resolve(PROJECT, ref)
    for number in (0, 2**70):
        with pytest.raises(NotFoundError):
            registry.version(PROJECT, "shuttle", number)
    with pytest.raises(
        NotFoundError, match=r"No such alias: latest\. The model has no alias\. `NAME:2` is"
    ):
        registry.resolve(PROJECT, "shuttle@latest")


def at(revision: int | None) -> RevisionCondition:
    return lambda found: found == revision


@pytest.mark.usefixtures("model")
def test_an_alias_moves_only_from_the_revision_that_was_seen(aliases: Aliases) -> None:
    first = aliases.set(PROJECT, "shuttle", "production", version=1, condition=at(None))
    second = aliases.set(PROJECT, "shuttle", "production", version=2, condition=at(first.revision))
    assert second.revision != first.revision
    for stale in (None, 0, first.revision, 10**30):
        with pytest.raises(ConflictError) as caught:
            aliases.set(PROJECT, "shuttle", "production", version=1, condition=at(stale))
        assert f"revision {second.revision}" in str(caught.value)
        with pytest.raises(ConflictError):
            aliases.delete(PROJECT, "shuttle", "production", condition=at(stale))
    assert aliases.get(PROJECT, "shuttle", "production") == second
    aliases.delete(PROJECT, "shuttle", "production", condition=at(second.revision))


@pytest.mark.usefixtures("model")
def test_the_history_of_aliases_has_each_change_once_with_its_reason(
    registry, aliases, jobs, work, monkeypatch
):
    trained(jobs, work, name="other")
    aliases.set(PROJECT, "other", "best", version=1)

    def history() -> list[tuple[str, int | None, str | None]]:
        page = aliases.changes(PROJECT, "shuttle", limit=10)
        return [(one.alias, one.version, one.reason) for one in page.items]

    for version, reason in ((1, None), (1, None), (2, "fewer"), (2, "fewer alarms")):
        aliases.set(PROJECT, "shuttle", "production", version=version, reason=reason)
    aliases.set(PROJECT, "shuttle", "best", version=2, reason="fewer alarms")
    aliases.delete(PROJECT, "shuttle", "production")
    changes = [
        ("production", None, None),
        ("best", 2, "fewer alarms"),
        ("production", 2, "fewer alarms"),
        ("production", 2, "fewer"),
        ("production", 1, None),
    ]
    assert history() == changes
    monkeypatch.setattr("models_store.aliases.MAX_CHANGES", 2)
    aliases.set(PROJECT, "other", "best", version=1, reason="again")
    aliases.set(PROJECT, "shuttle", "best", version=1)
    assert history() == [("best", 1, None), changes[0]]
    assert len(aliases.changes(PROJECT, "other", limit=10).items) == 2
    aliases.delete(PROJECT, "shuttle", "best")
    registry.delete_model(PROJECT, "shuttle")
    with pytest.raises(NotFoundError):
        history()


@pytest.mark.usefixtures("model")
def test_a_bad_name_finds_nothing_and_makes_nothing(registry: Registry, aliases: Aliases) -> None:
    for bad in BAD_NAMES:
        with pytest.raises(NotFoundError):
            registry.model(PROJECT, bad)
        with pytest.raises(NotFoundError):
            registry.dataset(PROJECT, f"ds_{bad}")
        with pytest.raises(NotFoundError):
            aliases.get(PROJECT, "shuttle", bad)
        with pytest.raises(ValueError, match="alias"):
            aliases.set(PROJECT, "shuttle", bad, version=1)
