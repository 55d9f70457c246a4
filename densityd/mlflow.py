"""Versions of densityd in MLflow: logged with metrics and plots, and loaded as any model of Python.

It needs MLflow: ``pip install 'densityd[mlflow]'``. What is loaded scores in its own process
(`densityd.scorer`), without a service.
"""

import tempfile
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import Any

import mlflow
import mlflow.pyfunc

from densityd import scorer
from densityd.client import ApiError, Client

_PLOTS = ("learning-curve", "marginals", "pairs")


def log_model(
    client: Client,
    ref: str,
    *,
    name: str = "model",
    registered_model_name: str | None = None,
) -> Any:  # noqa: ANN401  MLflow's ModelInfo, which has no types
    """Log a version to the active run of MLflow, or a new one.

    Its numbers become metrics, its family and seed parameters, its plots files, its export the model.

    Args:
        client: Client of the service that has the version.
        ref: Reference of the version: `name`, `name@alias` or `name:version`.
        name: Name of the model within the run.
        registered_model_name: Name in MLflow's registry, which gets a new version; None for none.

    Returns:
        `ModelInfo` of MLflow; `mlflow.pyfunc.load_model(info.model_uri)` loads the model, whose `predict`
        gives a data frame with `log_prob` and `rank`.

    Raises:
        ApiError: There is no such version.
        MlflowException: MLflow refuses it.
    """
    found = client.models.find(ref)
    with tempfile.TemporaryDirectory() as folder:
        export = Path(folder) / f"{found.name}-{found.version}.safetensors"
        client.models.export(found.name, found.version, export)
        info = mlflow.pyfunc.log_model(
            name=name,
            loader_module=__name__,
            data_path=str(export),
            pip_requirements=[f"densityd=={installed_version('densityd')}"],
            registered_model_name=registered_model_name,
        )
    numbers = {name: value for name, value in found.metrics.items() if _is_number(value)}
    mlflow.log_metrics(numbers)
    mlflow.log_params({"version": found.ref, "family": found.family, "seed": found.lineage.seed})
    mlflow.log_dict(found.flow, "flow.json")
    for kind in _PLOTS:
        try:
            plot = client.models.plot(found.name, found.version, kind, format="svg")
        except ApiError as error:
            if error.status >= 500:
                raise
            continue  # this version has no such plot
        mlflow.log_text(plot.decode(), f"plots/{kind}.svg")
    return info


class _Pyfunc:
    """Model of Python as MLflow calls it."""

    def __init__(self, path: str) -> None:
        self._scorer = scorer.load(path)

    def predict(self, model_input: Any, params: object = None) -> Any:  # noqa: ANN401, ARG002 - MLflow's
        """Return the scores of rows: a data frame with `log_prob` and `rank`."""
        return self._scorer.score(model_input)


def _load_pyfunc(path: str) -> _Pyfunc:
    """Return the model of an export; MLflow calls it by this name."""
    return _Pyfunc(path)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
