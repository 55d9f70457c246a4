"""A version in a tracking server of MLflow: logged, registered, loaded, and scored by."""

import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pandas as pd
import pytest

from densityd.client import Client
from tests.client.conftest import Service, service as service  # noqa: PLC0414 - a fixture
from tests.service.up import succeeds
from tests.support.ports import free_port
from tests.support.servers import tied
from tests.support.waiting import wait_until

with warnings.catch_warnings():  # MLflow warns of its own types
    warnings.simplefilter("ignore")
    import mlflow

    import densityd.mlflow

# In an environment of its own: it wants an older pyarrow than the service may have.
SERVER = Path(sys.prefix) / "mlflow" / "bin" / "mlflow"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not SERVER.exists(), reason="`make slow` installs it"),
]
ROWS = pd.DataFrame({"height": [170.0, 190.0], "weight": [70.0, 60.0], "age": [40, 41]})


@pytest.fixture
def tracking(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A tracking server with a database and artifacts of its own."""
    url = f"http://127.0.0.1:{(port := free_port())}"
    command = [str(SERVER), "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{tmp_path}/mlflow.db"]
    command += ["--artifacts-destination", str(tmp_path / "artifacts")]
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    with (tmp_path / "log").open("wb") as log:
        server = subprocess.Popen(tied(*command), stdout=log, stderr=log)  # noqa: S603 - our own command
    wait_until(lambda: succeeds(f"{url}/health") or server.poll() is not None)
    assert server.poll() is None, (tmp_path / "log").read_text()
    mlflow.set_tracking_uri(url)
    yield url
    server.terminate()
    server.wait()


@pytest.mark.filterwarnings("default")  # those of MLflow
def test_a_version_is_logged_registered_and_loaded(service: Service, tracking: str) -> None:
    with Client(service.url) as client, mlflow.start_run() as run:
        densityd.mlflow.log_model(client, "ranked", registered_model_name="people")
        expected = client.score("ranked", ROWS)
        metrics = client.models.find("ranked").metrics

    found = mlflow.get_run(run.info.run_id)
    assert found.data.params["version"] == "ranked:1"
    assert found.data.metrics.items() <= metrics.items()
    plots = {one.path for one in mlflow.MlflowClient().list_artifacts(run.info.run_id, "plots")}
    assert "plots/marginals.svg" in plots
    assert httpx.get(tracking, timeout=60).is_success
    scored = mlflow.pyfunc.load_model("models:/people/1").predict(ROWS)
    np.testing.assert_array_equal(scored["log_prob"], expected.log_prob)
    np.testing.assert_array_equal(scored["rank"], expected.quantile)
