"""The image, and what `deploy/` holds: settings and metrics that exist, charts that render."""

import importlib
import json
import re
from pathlib import Path
from typing import Any

import pytest

from app.metrics import Metrics
from app.server.job_metrics import JobMetrics, _of_jobs
from app.settings import ApiSettings
from models_store.jobs.figures import Ended, Figures
from workers.metrics import WorkerMetrics
from workers.settings import WorkerSettings

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
CHART = DEPLOY / "helm" / "densityd"
FILES = [path for path in sorted(DEPLOY.rglob("*")) if path.is_file()]
KUBERNETES = "1.34"
# Kinds of extensions, whose schemas are not those of Kubernetes.
EXTENSIONS = {"HTTPRoute", "PodMonitor", "ScaledObject", "ServiceMonitor"}
EVERYTHING: dict[str, Any] = {
    "env": {"DENSITYD_LOG_LEVEL": "INFO", "DENSITYD_ROOT_PATH": "/densityd"},
    "firstKeySecret": "densityd-first-key",
    "api": {"preload": "shuttle@live", "env": {"DENSITYD_RATE_LIMIT": "10"}},
    "workers": {
        "cpu": {"keda": {"enabled": True}},
        "gpu": {"replicas": 2, "keda": {"enabled": True}},
    },
    "serviceMonitor": {"enabled": True},
    "networkPolicy": {"enabled": True},
    "ingress": {"enabled": True, "tlsSecret": "tls"},
    "httpRoute": {"enabled": True},
}


class _NoFigures:
    def read(self) -> Figures:
        return Figures()


def known_metrics() -> set[str]:
    """Return the names of all metrics, with the endings of counters and histograms."""
    families = [*Metrics().registry.collect(), *WorkerMetrics().registry.collect()]
    families += JobMetrics(_NoFigures(), {}).collect()  # type: ignore[arg-type]  # stands for rows
    families += _of_jobs(Figures(ended={("failed", "training"): Ended()}))
    endings = {"counter": ["_total"], "histogram": ["_bucket", "_sum", "_count"], "info": ["_info"]}
    return {
        family.name + ending for family in families for ending in endings.get(family.type, [""])
    }


def test_every_metric_that_is_asked_for_exists() -> None:
    known = known_metrics()
    asked = {
        (path.name, name)
        for path in FILES
        for name in re.findall(r"\bdensityd_[a-z_]+\b", path.read_text())
    }
    assert len(asked) > 20
    assert {(path, name) for path, name in asked if name not in known} == set()


def test_every_setting_that_is_set_exists() -> None:
    known = {f"DENSITYD_{name.upper()}" for name in ApiSettings.model_fields}
    known |= {f"DENSITYD_{name.upper()}" for name in WorkerSettings.model_fields}
    used = {name for path in FILES for name in re.findall(r"DENSITYD_[A-Z_]+", path.read_text())}
    assert len(used) > 5
    assert used - known == set()


def test_the_dashboard_is_whole() -> None:
    dashboard = json.loads((DEPLOY / "grafana" / "densityd.json").read_text())
    assert [panel["id"] for panel in dashboard["panels"]] == list(
        range(1, len(dashboard["panels"]) + 1)
    )
    for panel in dashboard["panels"]:
        for target in panel["targets"]:
            text = target["expr"]
            assert text.count("(") == text.count(")"), text
            assert text.count("{") == text.count("}"), text


@pytest.mark.cluster
def test_the_chart_is_clean() -> None:
    helm = importlib.import_module("helm_python")
    report = helm.lint(str(CHART), strict=True)
    assert report["errors"] == []
    assert all(message["severity"] <= 1 for message in report["messages"]), report


@pytest.mark.cluster
@pytest.mark.parametrize("values", [{}, EVERYTHING], ids=["usual", "everything"])
def test_what_the_chart_renders_is_valid(values: dict[str, Any]) -> None:
    helm = importlib.import_module("helm_python")
    schemas = importlib.import_module("kubernetes_validate")
    yaml = importlib.import_module("yaml")
    with helm.Chart.load(str(CHART)) as chart:
        rendered = chart.render(values, name="test", namespace="densityd")
    objects = [one for text in rendered.values() for one in yaml.safe_load_all(text) if one]
    kinds = {one["kind"] for one in objects}
    assert {"Deployment", "Service", "Job", "PodDisruptionBudget"} <= kinds
    for one in objects:
        if one["kind"] not in EXTENSIONS:
            schemas.validate(one, KUBERNETES, strict=True)
    if values:
        assert kinds > EXTENSIONS | {"NetworkPolicy", "Ingress"}
        scaled = {one["metadata"]["name"] for one in objects if one["kind"] == "ScaledObject"}
        named = {one["metadata"]["name"]: one for one in objects if one["kind"] == "Deployment"}
        assert all("replicas" not in named[name]["spec"] for name in scaled)
        (migration,) = [one for one in objects if one["kind"] == "Job"]
        (container,) = migration["spec"]["template"]["spec"]["containers"]
        variables = {one["name"]: one["value"] for one in container["env"]}
        mounts = {one["name"]: one["mountPath"] for one in container["volumeMounts"]}
        assert variables["DENSITYD_FIRST_KEY_FILE"] == f"{mounts['first-key']}/key"
    secret = [
        source["secretRef"]["name"]
        for one in objects
        if one["kind"] in ("Deployment", "Job")
        for source in one["spec"]["template"]["spec"]["containers"][0]["envFrom"]
    ]
    assert set(secret) == {"densityd"}


def test_what_the_image_is_made_of_is_sent_to_its_build() -> None:
    sent = {
        line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line[:1] == "!"
    }
    lines = re.findall(
        r"^COPY (?!--from)(.*) \S+$", (ROOT / "Dockerfile").read_text(), re.MULTILINE
    )
    copied = {path for line in lines for path in line.split()} - {"requirements"}
    assert {"flows", "tabular", "pyproject.toml"} <= copied <= sent
