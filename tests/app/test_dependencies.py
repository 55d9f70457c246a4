"""No request pays for threads that its dependencies do not need."""

import inspect

from fastapi.routing import APIRoute

from app.account import routes as account
from app.datasets import routes as datasets, upload_routes as uploads
from app.inference import routes as inference
from app.jobs import result_routes as results, routes as jobs, starts, target_preview
from app.models import exports, imports, plot_routes as plots, routes as models
from app.scoring import routes as scores
from app.webhooks import routes as webhooks

MODULES = [
    *(
        account,
        datasets,
        uploads,
        inference,
        results,
        jobs,
        starts,
        target_preview,
        exports,
        imports,
    ),
    *(plots, models, scores, webhooks),
]


def calls_of(dependant):
    for dependency in dependant.dependencies:
        yield dependency.call
        yield from calls_of(dependency)


def test_dependencies_are_computed_on_the_event_loop():
    routes = [r for module in MODULES for r in module.router.routes if isinstance(r, APIRoute)]
    calls = {call for route in routes for call in calls_of(route.dependant)}
    assert len(calls) > 20
    for call in calls:
        assert inspect.iscoroutinefunction(call) or inspect.isasyncgenfunction(call), call
