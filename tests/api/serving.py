"""Registered models for the tests of routes that use them."""

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from starlette.datastructures import State
from starlette.testclient import TestClient

from app.main import create_app
from app.settings import ApiSettings
from flows import Flow, FlowSpec, MadeSpec, MafSpec, build, count_parameters, spec_to_dict
from models_store.database.database import Database
from models_store.files.blobs import Blobs, model_key
from models_store.files.checkpoints import save_model
from models_store.jobs.jobs import Jobs
from models_store.jobs.leases import JobWork
from models_store.keys import Keys, NewKey, Scope
from models_store.records import Version
from models_store.registry import Registry
from tests.store.makers import LEASE_S, PROJECT, a_version, submitted

SPEC = MafSpec(layers=2, hidden=[16])
COLUMNS = ["height", "weight", "age"]
MEAN, STD = torch.tensor([170.0, 70.0, 40.0]), torch.tensor([10.0, 12.0, 15.0])


def a_flow(seed: int = 0, *, spec: FlowSpec = SPEC, dim: int = 3, context_dim: int = 0) -> Flow:
    """A flow that is no standard Gaussian; equal seeds give equal flows."""
    moments = None
    if not (isinstance(spec, MadeSpec) and spec.conditional == "bernoulli"):
        moments = MEAN.repeat(dim)[:dim], STD.repeat(dim)[:dim]
    flow = build(spec, dim, standardise=moments, context_dim=context_dim, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weights in flow.parameters():
            weights.add_(0.1 * torch.randn(weights.shape, generator=generator))
    flow.load_state_dict(flow.state_dict())  # masks what must stay 0
    return flow.eval()


def stores(client: TestClient) -> tuple[Database, Blobs]:
    """The database and the blobs of an application."""
    state = client.app.state  # type: ignore[attr-defined]  # a FastAPI
    return state.database, state.blobs


def uploaded(client: TestClient, rows: Any, names: list[str], **options: str) -> str:
    """The id of a dataset that is made of rows of numbers."""
    lines = [",".join(names), *(",".join(map(repr, row)) for row in np.asarray(rows).tolist())]
    headers = {"Content-Type": "text/csv"}
    response = client.post(
        "/v1/datasets", content="\n".join(lines), headers=headers, params=options
    )
    assert response.status_code == 201, response.text
    return str(response.json()["id"])


def registered(
    database: Database,
    blobs: Blobs,
    *,
    project: str = PROJECT,
    name: str = "people",
    seed: int = 0,
    spec: FlowSpec = SPEC,
    columns: list[str] = COLUMNS,
    context_columns: tuple[str, ...] = (),
    held_out: dict[str, Any] | None = None,
    dataset_id: str | None = None,
    flow: Flow | None = None,
    types: list[dict[str, Any]] | None = None,
    epochs: int = 0,
    metrics: dict[str, Any] | None = None,
    unusual: dict[str, Any] | None = None,
    target: dict[str, Any] | None = None,
) -> Version:
    """A model that went the way of every model: submitted, claimed, trained, stored, finished."""
    # Before jobs that other tests of the database left waiting.
    made = submitted(Jobs(database), project=project, model_name=name, priority=100)
    work = JobWork(database)
    job = work.claim("tester", lease_s=LEASE_S)
    assert job is not None
    assert job.id == made.id
    for epoch in range(1, epochs + 1):
        told = {"epoch": epoch, "train_log_likelihood": -1 / epoch}
        if epoch % 2:
            told["validation_log_likelihood"] = -2 / epoch
        work.record_epoch(job.id, job.attempt, lease_s=LEASE_S, metrics=told, progress={})
    flow = flow or a_flow(seed, spec=spec, dim=len(columns), context_dim=len(context_columns))
    stored = save_model(
        blobs,
        model_key(job.id, job.attempt),
        flow,
        spec=spec,
        columns=columns,
        context_columns=context_columns,
        types=types,
        preprocessing={"standardise": flow.preprocessing.standardise is not None},
    )
    made_of = a_version(job)
    new = dataclasses.replace(
        made_of,
        metrics=made_of.metrics if metrics is None else metrics,
        dataset_id=dataset_id,
        family=spec.family,
        dim=len(columns),
        columns=columns,
        context_columns=list(context_columns),
        types=types,
        flow=spec_to_dict(spec),
        held_out=held_out,
        unusual=unusual,
        target=target,
        parameters=count_parameters(spec, len(columns), len(context_columns)),
        checkpoint_key=stored.key,
        checkpoint_sha256=stored.sha256,
        checkpoint_bytes=stored.bytes,
    )
    metrics = {"epoch": 7, "test_log_likelihood": 3.0}
    number = work.finish(job.id, job.attempt, metrics=metrics, version=new)
    assert number is not None
    return Registry(database).version(project, name, number)


@contextmanager
def keyed(settings: ApiSettings, *, first: bool = True) -> Iterator[tuple[TestClient, Keys]]:
    """The application, and the keys of its database; a first one exists, so all need one."""
    database = Database(settings.resolved_database_url)
    keys = Keys(database)
    if first:
        keys.create("nobody", Scope.READ)
    with TestClient(create_app(settings), raise_server_exceptions=False) as client:
        yield client, keys
    database.dispose()


def bearer(key: NewKey | str) -> dict[str, str]:
    """The header that shows a key."""
    return {"Authorization": f"Bearer {key if isinstance(key, str) else key.token}"}


def stocked(client: TestClient, project: str = "p") -> Version:
    """The model `people` in a project of a client's application."""
    state: State = client.app.state  # type: ignore[attr-defined]  # a FastAPI
    return registered(state.database, state.blobs, project=project)
