"""Commands that delete, against the real service: what they ask, what they delete, what stays."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
import typer
from sqlalchemy import delete, update

from densityd.client import ApiError, Client
from densityd.commands.prune import parse_age
from models_store.aliases import Aliases
from models_store.database.clock import db_now
from models_store.database.schema import IdempotencyRow, JobRow, ModelVersionRow
from tests.app.serving import registered
from tests.densityd.commands.running import run
from tests.densityd.conftest import Service


@pytest.fixture
def client(url: str) -> Iterator[Client]:
    with Client(url) as client:
        yield client


def versions(client: Client, name: str) -> list[int]:
    return [version.version for version in client.models.versions(name)]


@pytest.mark.long
def test_a_deletion_is_asked_about_and_a_no_keeps_everything(
    service: Service, client: Client
) -> None:
    for _ in range(3):
        registered(service.database, service.blobs, name="gone")
    asked = run("models", "delete", "gone:1", status=1, says="n\n")
    assert "Delete version gone:1?" in asked.stderr
    run("models", "delete", "gone", status=1, says="")
    assert versions(client, "gone") == [3, 2, 1]
    run("models", "delete", "gone:1", says="y\n")
    client.models.delete_version("gone", 3)
    assert versions(client, "gone") == [2]
    job = client.models.version("gone", 2).lineage.job_id
    assert job is not None
    refused = run("jobs", "delete", job, "--yes", status=1)
    assert "still exists" in refused.stderr
    assert "its 1 versions" in run("models", "delete", "gone", says="y\n").stderr
    run("jobs", "delete", job, says="y\n")
    with pytest.raises(ApiError) as caught:
        client.jobs.get(job)
    assert caught.value.status == 404
    with pytest.raises(ApiError):
        client.models.get("gone")
    run("models", "delete", "gone", "--yes", status=1)
    run("models", "delete", "people@production", "--yes", status=2)


@pytest.mark.long
def test_prune_deletes_old_versions_and_jobs_that_nothing_needs(
    service: Service, client: Client
) -> None:
    made = [registered(service.database, service.blobs, name="pruned") for _ in range(4)]
    Aliases(service.database).set("default", "pruned", "staging", version=2)
    waiting = client.jobs.sample("pruned:1", 5)
    with service.database.write() as session:
        session.execute(update(ModelVersionRow).values(created_at=db_now(-86_400)))
        session.execute(update(JobRow).values(finished_at=db_now(-86_400)))
        session.execute(update(JobRow).where(JobRow.id == waiting.id).values(finished_at=None))
    assert "pruned" not in run("prune", "--older-than", "2d", "--yes").stdout
    dry = run("prune", "--older-than", "1h", "--dry-run").stdout
    assert all(text in dry for text in ("pruned:1", "pruned:3", str(made[2].job_id)))
    assert not any(text in dry for text in ("pruned:2", "pruned:4", str(made[3].job_id)))
    assert "pruned:" not in run("prune", "--older-than", "1h", "--jobs", "--dry-run").stdout
    assert "job_" not in run("prune", "--older-than", "1h", "--versions", "--dry-run").stdout
    run("prune", "--older-than", "1h", status=1, says="n\n")
    assert versions(client, "pruned") == [4, 3, 2, 1]
    done = run("prune", "--older-than", "1h", "--yes")
    # A job uses the first one, so that it and the job that made it stay.
    assert " stay, because" in done.stderr
    assert versions(client, "pruned") == [4, 2, 1]
    assert client.jobs.get(str(made[0].job_id)).state == "succeeded"
    with pytest.raises(ApiError):
        client.jobs.get(str(made[2].job_id))
    assert client.models.get("people").latest_version == 1
    client.jobs.cancel(waiting.id)


@pytest.mark.parametrize(
    ("text", "age"),
    [
        ("12h", timedelta(hours=12)),
        ("30d", timedelta(days=30)),
        ("8w", timedelta(weeks=8)),
        ("0d", timedelta(0)),
    ],
)
def test_an_age_is_a_number_and_a_unit(text: str, age: timedelta) -> None:
    assert parse_age(text) == age


@pytest.mark.parametrize("text", ["", "30", "d", "-1d", "1.5d", "30 d", "999999w", "1y", "\u0661d"])
def test_what_is_no_age_is_wrong_usage(text: str) -> None:
    with pytest.raises(typer.BadParameter):
        parse_age(text)
    run("prune", f"--older-than={text}", status=2)


@pytest.mark.long
def test_the_same_file_is_one_dataset_and_a_refused_training_leaves_none(
    service: Service, client: Client, tmp_path: Path
) -> None:
    file = tmp_path / "table.csv"
    rows = np.random.default_rng(7).normal(size=(60, 2))
    np.savetxt(file, rows, delimiter=",", header="a,b", comments="")
    before = {one.id for one in client.datasets.list()}

    def train(*options: str, status: int = 0) -> str:
        command = ("train", str(file), "--model", "one", "--no-wait", *options)
        return run(*command, status=status).stderr

    refused = train("--set", "split.validation=0.999", status=1)
    assert "again" in refused
    assert {one.id for one in client.datasets.list()} == before
    train()
    assert "uploaded before" in train()
    with service.database.write() as session:  # as after a day
        session.execute(delete(IdempotencyRow))
    assert "uploaded before" in train("--tag", "team=space", "--description", "Again")
    assert next(client.jobs.list(tags={"team": "space"})).description == "Again"
    train("--set", "split.validation=0.999", status=1)  # the dataset is another training's
    assert len({one.id for one in client.datasets.list()} - before) == 1
    train("--exclude", "b")
    assert len({one.id for one in client.datasets.list()} - before) == 2
    np.savetxt(file, rows + 1, delimiter=",", header="a,b", comments="")
    uploaded = run("datasets", "upload", str(file), "--name", "two").stdout.strip()
    assert uploaded in train()
    assert len({one.id for one in client.datasets.list()} - before) == 3
