"""A version in a tracking server of MLflow: logged, registered, loaded, and scored by."""

import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from densityd.client import Client
from tests.client.conftest import HELD_OUT, service as service  # noqa: PLC0414 - a fixture

with warnings.catch_warnings():  # MLflow warns of its own types
    warnings.simplefilter("ignore")
    import mlflow

    import densityd.mlflow

ROWS = pd.DataFrame({"height": [170.0, 190.0], "weight": [70.0, 60.0], "age": [40, 41]})


@pytest.fixture
def tracking(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs, registered models and artifacts of the test alone."""
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path}/mlflow.db")
    mlflow.set_experiment(
        experiment_id=mlflow.create_experiment("people", (tmp_path / "artifacts").as_uri())
    )


@pytest.mark.usefixtures("tracking")
@pytest.mark.filterwarnings("ignore")  # those of MLflow
def test_a_version_is_logged_registered_and_loaded(service):
    told = {"test_log_likelihood": -3.5, "best_epoch": 7, "still_rising": True, "trials": []}
    service.add(name="logged", held_out=HELD_OUT, metrics=told)
    with Client(service.url) as client, mlflow.start_run() as run:
        info = densityd.mlflow.log_model(client, "logged", registered_model_name="people")
        expected = client.score("logged", ROWS)

    assert info.run_id == run.info.run_id
    found = mlflow.get_run(run.info.run_id)
    assert found.data.params["version"] == "logged:1"
    assert found.data.metrics == {"test_log_likelihood": -3.5, "best_epoch": 7}
    plots = {one.path for one in mlflow.MlflowClient().list_artifacts(run.info.run_id, "plots")}
    assert "plots/marginals.svg" in plots
    scored = mlflow.pyfunc.load_model("models:/people/1").predict(ROWS)
    np.testing.assert_array_equal(scored["log_prob"], expected.log_prob)
    np.testing.assert_array_equal(scored["rank"], expected.quantile)
