"""The image, and what `deploy/` holds: settings and metrics that exist, charts that render."""

import importlib
import json
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from app.engine.monitor import Monitor
from app.metrics import Metrics
from app.server.job_metrics import JobMetrics
from app.settings import ApiSettings
from models_store.database.clock import db_now
from models_store.database.database import Database
from models_store.database.schema import StoreRow
from models_store.jobs.figures import JobFigures
from workers.metrics import WorkerMetrics
from workers.settings import WorkerSettings

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
CHART = DEPLOY / "helm" / "densityd"
FILES = [path for path in sorted(DEPLOY.rglob("*")) if path.is_file()]
KUBERNETES = "1.34"
# Kinds of extensions, whose schemas are not those of Kubernetes.
EXTENSIONS = {"HTTPRoute", "PodMonitor", "PrometheusRule", "ScaledObject", "ServiceMonitor"}
USUAL = {
    *("Deployment/test-api", "Deployment/test-worker-cpu", "Deployment/test-worker-gpu"),
    *("PodDisruptionBudget/test-api", "PodDisruptionBudget/test-worker-cpu"),
    *("PodDisruptionBudget/test-worker-gpu", "Service/test-api", "ServiceAccount/test"),
    "CronJob/test-prune",
}
CLAIM = {"PersistentVolumeClaim/test-store"}
WATCHED = {"ServiceMonitor/test-api", "PodMonitor/test-workers", "PrometheusRule/test"}
TRYOUT = {
    *("StatefulSet/test-postgres", "Service/test-postgres", "Secret/test-tryout"),
    *("StatefulSet/test-redis", "Service/test-redis", "Secret/test-first-key"),
}
# What is set, and which objects there are.
CASES: dict[str, tuple[dict[str, Any], set[str]]] = {
    "usual": ({}, USUAL | CLAIM),
    "tryout": (
        {"tryout": {"enabled": True}, "monitoring": {"enabled": True}},
        USUAL | CLAIM | WATCHED | TRYOUT,
    ),
    "bucket": (
        {
            "store": {"url": "s3://bucket/prefix", "endpoint": "http://minio:9000"},
            "serviceAccount": {
                "annotations": {"eks.amazonaws.com/role-arn": "arn:aws:iam::1:role"}
            },
            "backup": {"enabled": True},
            "api": {"processes": 2},
            "workers": {"gpu": {"imageTag": "0.2.0-cuda", "replicas": 1}},
        },
        USUAL | {"CronJob/test-backup"},
    ),
    "watched": (
        {
            "firstKeySecret": "key",
            "api": {"autoscaling": {"enabled": True}},
            "workers": {
                "cpu": {"keda": {"enabled": True}},
                "gpu": {"keda": {"enabled": True}},
                "big": {"device": "auto", "memoryMi": 32768, "keda": {"enabled": True}},
            },
            "monitoring": {"enabled": True, "labels": {"release": "kps"}},
            "networkPolicy": {"enabled": True},
        },
        USUAL
        | CLAIM
        | WATCHED
        | {f"ScaledObject/test-worker-{name}" for name in ("big", "cpu", "gpu")}
        | {"Deployment/test-worker-big", "PodDisruptionBudget/test-worker-big"}
        | {"HorizontalPodAutoscaler/test-api", "NetworkPolicy/test"},
    ),
    "placed": (
        {
            "env": {"DENSITYD_LOG_LEVEL": "INFO", "DENSITYD_ROOT_PATH": "/densityd"},
            "extraEnv": [
                {"name": "CA", "valueFrom": {"secretKeyRef": {"name": "ca", "key": "pem"}}}
            ],
            "extraVolumes": [{"name": "ca", "configMap": {"name": "ca"}}],
            "extraVolumeMounts": [{"name": "ca", "mountPath": "/ca"}],
            "nodeSelector": {"pool": "density"},
            "tolerations": [{"key": "density", "operator": "Exists"}],
            "store": {"existingClaim": "there"},
            "api": {
                "preload": "shuttle@live",
                "nodeSelector": {"pool": "api"},
                "podDisruptionBudget": {"minAvailable": 1},
            },
            "ingress": {"enabled": True, "tlsSecret": "tls"},
            "httpRoute": {"enabled": True},
            "prune": {"enabled": False},
        },
        (USUAL - {"CronJob/test-prune"}) | {"Ingress/test", "HTTPRoute/test"},
    ),
}
Objects = dict[str, dict[str, Any]]
PROMTOOL = shutil.which("promtool")
needs_promtool = pytest.mark.skipif(PROMTOOL is None, reason="needs Prometheus")


def known_metrics(database: Database) -> set[str]:
    """Return the names of all metrics, with the endings of counters and histograms."""
    with database.write() as session:
        session.add(StoreRow(position=1, identity="a", backed_up_at=db_now()))
    families = [*Metrics().registry.collect(), *WorkerMetrics().registry.collect()]
    families += JobMetrics(JobFigures(database), {}).collect()
    drift = Monitor(None, None, None, None).render().decode()  # type: ignore[arg-type]  # of no model
    endings = {"counter": ["_total"], "histogram": ["_bucket", "_sum", "_count"], "info": ["_info"]}
    return {
        family.name + ending for family in families for ending in endings.get(family.type, [""])
    } | set(re.findall(r"^# TYPE (\w+)", drift, re.MULTILINE))


def test_every_metric_that_is_asked_for_exists(database):
    known = known_metrics(database)
    asked = {
        (path.name, name)
        for path in FILES
        for name in re.findall(r"\bdensityd_[a-z_]+\b", path.read_text())
    }
    assert len(asked) > 20
    assert {(path, name) for path, name in asked if name not in known} == set()


def test_every_setting_that_is_set_exists():
    known = {f"DENSITYD_{name.upper()}" for name in ApiSettings.model_fields}
    known |= {f"DENSITYD_{name.upper()}" for name in WorkerSettings.model_fields}
    used = {name for path in FILES for name in re.findall(r"DENSITYD_[A-Z_]+", path.read_text())}
    assert len(used) > 5
    assert used - known == set()


def test_the_dashboard_is_whole():
    dashboard = json.loads((DEPLOY / "grafana" / "densityd.json").read_text())
    assert [panel["id"] for panel in dashboard["panels"]] == list(
        range(1, len(dashboard["panels"]) + 1)
    )
    for panel in dashboard["panels"]:
        for target in panel["targets"]:
            text = target["expr"]
            assert text.count("(") == text.count(")"), text
            assert text.count("{") == text.count("}"), text


def rendered(case: str) -> Objects:
    """Return the objects that the chart makes of the values of a case, by kind and name."""
    helm, yaml = importlib.import_module("helm_python"), importlib.import_module("yaml")
    with helm.Chart.load(str(CHART)) as chart:
        texts = chart.render(CASES[case][0], name="test", namespace="densityd")
    found = [
        one
        for path, text in texts.items()
        if not path.endswith(".txt")
        for one in yaml.safe_load_all(text)
        if one
    ]
    return {f"{one['kind']}/{one['metadata']['name']}": one for one in found}


def pods_of(objects: Objects) -> dict[str, dict[str, Any]]:
    """Return the specifications of pods that run the image, by the object that makes them."""
    specs = {}
    for name, one in objects.items():
        if name.startswith("Deployment/"):
            specs[name] = one["spec"]["template"]["spec"]
        elif name.startswith("CronJob/"):
            specs[name] = one["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    return specs


def variables_of(container: dict[str, Any]) -> dict[str, str]:
    return {one["name"]: one.get("value", "") for one in container["env"]}


@pytest.mark.cluster
def test_the_chart_is_clean():
    helm = importlib.import_module("helm_python")
    report = helm.lint(str(CHART), strict=True)
    assert report["errors"] == []
    assert all(message["severity"] <= 1 for message in report["messages"]), report


@pytest.mark.cluster
@pytest.mark.parametrize("values", [{"store": {"uri": "s3://b"}}, {"api": {"memoryMi": "3Gi"}}])
def test_a_value_that_does_not_exist_is_refused(values):
    helm = importlib.import_module("helm_python")
    with helm.Chart.load(str(CHART)) as chart, pytest.raises(helm.HelmError, match=r"uri|memoryMi"):
        chart.render(values, name="test", namespace="densityd")


@pytest.mark.cluster
@pytest.mark.parametrize("case", CASES)
def test_what_the_chart_renders_is_valid_and_whole(case):
    schemas = importlib.import_module("kubernetes_validate")
    objects = rendered(case)
    assert set(objects) == CASES[case][1]
    for one in objects.values():
        if one["kind"] not in EXTENSIONS:
            schemas.validate(one, KUBERNETES, strict=True)
    for spec in pods_of(objects).values():
        volumes = {volume["name"] for volume in spec["volumes"]}
        for container in [*spec.get("initContainers", []), *spec["containers"]]:
            assert {mount["name"] for mount in container["volumeMounts"]} <= volumes
            memory = container["resources"]["requests"]["memory"]
            assert container["resources"]["limits"]["memory"] == memory
            (secret,) = container["envFrom"]
            assert secret["secretRef"]["name"] == (
                "test-tryout" if case == "tryout" else "densityd"
            )


@pytest.mark.cluster
def test_a_bucket_needs_no_volume_and_the_account_its_role():
    objects = rendered("bucket")
    assert list(objects["ServiceAccount/test"]["metadata"]["annotations"].values())
    for name, spec in pods_of(objects).items():
        claims = [one for one in spec["volumes"] if "persistentVolumeClaim" in one]
        assert [one["name"] for one in claims] == (["backup"] if "backup" in name else [])
        assert spec["serviceAccountName"] == "test"
        assert variables_of(spec["containers"][0])["DENSITYD_STORE_URL"] == "s3://bucket/prefix"
    api = pods_of(objects)["Deployment/test-api"]["containers"][0]
    # Two processes share what the container may take.
    assert variables_of(api)["DENSITYD_MEMORY_BYTES"] == str(1536 * 2**20)
    assert api["resources"]["limits"]["memory"] == "3072Mi"
    gpu = pods_of(objects)["Deployment/test-worker-gpu"]["containers"][0]
    assert gpu["image"] == "densityd:0.2.0-cuda"


def promtool(*arguments: str) -> None:
    """Run promtool, which must find nothing wrong."""
    done = subprocess.run(  # noqa: S603 - of Debian
        [str(PROMTOOL), *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.cluster
@needs_promtool
def test_alerts_come_within_minutes_and_each_is_explained():
    yaml = importlib.import_module("yaml")
    rules, tests = DEPLOY / "prometheus" / "rules.yml", DEPLOY / "prometheus" / "rules_test.yml"
    promtool("test", "rules", str(tests))
    guide = (ROOT / "docs" / "operations.md").read_text()
    (group,) = yaml.safe_load(rules.read_text())["groups"]
    for rule in group["rules"]:
        assert rule["alert"] in tests.read_text()
        assert f"`{rule['alert']}`" in guide
        page, _, part = rule["annotations"]["runbook_url"].partition("#")
        assert f"\n## {part.title()}\n" in (ROOT / page).read_text()


@pytest.mark.cluster
@needs_promtool
def test_prometheus_gets_in_and_what_scales_sees_no_zero_where_it_sees_nothing(tmp_path):
    objects = rendered("watched")
    (endpoint,) = objects["ServiceMonitor/test-api"]["spec"]["endpoints"]
    assert endpoint["authorization"]["credentials"] == {"name": "key", "key": "key"}
    _, metrics = objects["NetworkPolicy/test"]["spec"]["ingress"]
    assert [port["port"] for port in metrics["ports"]] == [8000, 8001]
    assert "replicas" not in objects["Deployment/test-api"]["spec"]
    queries = {}
    for name, one in objects.items():
        if name.startswith("ScaledObject/"):
            (trigger,) = one["spec"]["triggers"]
            assert trigger["metadata"]["ignoreNullValues"] == "false"
            assert "fallback" not in one["spec"]
            assert "replicas" not in objects[name.replace("ScaledObject", "Deployment")]["spec"]
            queries[name] = trigger["metadata"]["query"]
    assert len(set(queries.values())) == 3
    # Three jobs, then none, then a database that is away, as of which nothing is known.
    jobs = 'densityd_jobs{state="queued",kind="training",accelerator="preferred"}'
    series = [("densityd_jobs_known", "1 1 1 0x5"), (jobs, "3 stale")]
    samples: dict[str, list[dict[str, Any]]] = {
        "0m": [{"labels": "{}", "value": 3}],
        "2m": [{"labels": "{}", "value": 0}],
        "6m": [],
    }
    one_test = {
        "interval": "1m",
        "input_series": [{"series": name, "values": values} for name, values in series],
        "promql_expr_test": [
            {"expr": query, "eval_time": moment, "exp_samples": expected}
            for query in queries.values()
            for moment, expected in samples.items()
        ],
    }
    file = tmp_path / "scaling.yml"
    file.write_text(json.dumps({"tests": [one_test]}))
    promtool("test", "rules", str(file))


@pytest.mark.cluster
def test_pods_are_placed_and_have_what_is_added():
    for name, spec in pods_of(rendered("placed")).items():
        assert spec["nodeSelector"] == {"pool": "api" if name.endswith("api") else "density"}
        assert {"key": "density", "operator": "Exists"} in spec["tolerations"]
        assert spec["topologySpreadConstraints"]
        for container in [*spec["initContainers"], *spec["containers"]]:
            variables = variables_of(container)
            assert variables["DENSITYD_ROOT_PATH"] == "/densityd"
            assert "CA" in variables
            assert "/ca" in [mount["mountPath"] for mount in container["volumeMounts"]]


@pytest.mark.cluster
def test_the_first_try_makes_a_key_that_the_pods_read():
    objects = rendered("tryout")
    assert re.fullmatch(
        "key_[0-9a-f]{32}.[0-9a-f]{64}", objects["Secret/test-first-key"]["stringData"]["key"]
    )
    container = pods_of(objects)["Deployment/test-api"]["initContainers"][0]
    mounts = {one["name"]: one["mountPath"] for one in container["volumeMounts"]}
    assert variables_of(container)["DENSITYD_FIRST_KEY_FILE"] == f"{mounts['first-key']}/key"
    password = objects["Secret/test-tryout"]["stringData"]["password"]
    url = objects["Secret/test-tryout"]["stringData"]["DENSITYD_DATABASE_URL"]
    assert f":{password}@test-postgres/" in url
    claim = objects["PersistentVolumeClaim/test-store"]["spec"]
    assert claim["accessModes"] == ["ReadWriteOnce"]


@pytest.mark.cluster
def test_the_workflow_that_publishes_is_right():
    program = Path(sys.executable).with_name("actionlint")
    files = [str(file) for file in (ROOT / ".github" / "workflows").glob("*.yml")]
    # Without the linters of scripts that a machine may have.
    command = [str(program), "-shellcheck=", "-pyflakes=", *files]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    assert files
    assert done.returncode == 0, done.stdout


def test_package_and_chart_have_one_version():
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    chart = (CHART / "Chart.yaml").read_text()
    assert f"\nversion: {version}\n" in chart
    assert f'\nappVersion: "{version}"\n' in chart


def test_what_the_image_is_made_of_is_sent_to_its_build():
    sent = {
        line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line[:1] == "!"
    }
    lines = re.findall(
        r"^COPY (?!--from)(?:--chmod=\d+ )?(.*) \S+$",
        (ROOT / "Dockerfile").read_text(),
        re.MULTILINE,
    )
    copied = {path for line in lines for path in line.split()} - {"requirements"}
    assert {"flows", "tabular", "pyproject.toml"} <= copied <= sent
