"""A client that openapi-python-client generates: it has every operation, and calls a service."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.app.conftest import openapi_document
from tests.densityd.conftest import Service

ROOT = Path(__file__).parents[3]
# Beside the environment of the tests, whose typer is newer than it takes.
GENERATOR = Path(sys.prefix) / "generator" / "bin"
CONFIG = ROOT / "docs" / "openapi-python-client.yaml"
CALLS = """
import json, sys
from densityd_api import Client
from densityd_api.api.models import list_models
from densityd_api.api.scores import log_prob
from densityd_api.models import Problem, RowsBody

client = Client(base_url=sys.argv[1], raise_on_unexpected_status=True)
names = [model.name for model in list_models.sync(client=client).items]
body = RowsBody.from_dict({"rows": [[170.0, 60.0, 40.0]]})
scored = log_prob.sync("people", client=client, body=body)
refused = log_prob.sync("nobody", client=client, body=body)
assert isinstance(refused, Problem), refused
print(json.dumps([names, scored.log_prob, refused.type_]))
"""

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(
        not (GENERATOR / "openapi-python-client").exists(), reason="`.ci/run` installs it"
    ),
]


def run(*command: str | Path, cwd: Path) -> str:
    done = subprocess.run(  # noqa: S603 - our own command
        [*map(str, command)], cwd=cwd, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_a_generated_client_has_every_operation_and_calls_the_service(
    tmp_path: Path, service: Service
) -> None:
    document = openapi_document()
    (tmp_path / "openapi.json").write_text(json.dumps(document))
    options: list[str | Path] = [
        "--path",
        "openapi.json",
        "--config",
        CONFIG,
        "--meta",
        "none",
        "--fail-on-warning",
    ]
    run(GENERATOR / "openapi-python-client", "generate", *options, cwd=tmp_path)
    modules = {path.stem for path in (tmp_path / "densityd_api" / "api").glob("*/*.py")}
    operations = {
        operation["operationId"]
        for methods in document["paths"].values()
        for operation in methods.values()
    }
    assert operations <= modules
    printed = run(GENERATOR / "python", "-c", CALLS, service.url, cwd=tmp_path)
    names, log_prob, problem = json.loads(printed)
    assert set(names) == {"people", "heights", "ranked"}
    assert len(log_prob) == 1
    assert log_prob[0] < 0
    assert problem == "/problems/not-found"
