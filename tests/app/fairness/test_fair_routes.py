"""Routes that work in threads, which also free there what a refusal leaves."""

import threading

import pytest
from fastapi import APIRouter, FastAPI
from starlette.testclient import TestClient

from app.fairness.fair_routes import FairRoute
from app.fairness.turns import Turns
from app.problems.problem import Problem, install_problem_handlers


@pytest.mark.fault(347)
def test_fault_347_what_a_refused_request_made_is_freed_in_its_thread():
    worked, freed = [], []

    class Columns:
        def __del__(self) -> None:
            freed.append(threading.get_ident())

    router = APIRouter(route_class=FairRoute)

    @router.get("/rows")
    def rows(limit: int) -> None:
        columns = [Columns() for _ in range(limit)]
        worked.append(threading.get_ident())
        raise Problem("overloaded", f"There are {len(columns)} columns.")

    app = FastAPI()
    app.state.route_turns = Turns(1, each=1)
    app.include_router(router)
    install_problem_handlers(app)
    with TestClient(app) as client:
        assert client.get("/rows?limit=3").status_code == 503
    assert freed == worked * 3
