"""A family of flows of another package: the example, installed beside a service."""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from densityd.client import ApiError, Client
from tests.service.test_guide import code
from tests.service.up import EXAMPLES, Up
from tests.support.servers import free_port

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that pip has installed the example into."""
    folder = tmp_path_factory.mktemp("packages")
    source = shutil.copytree(EXAMPLES / "flow_family", folder / "source")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index"]
    command += ["--no-build-isolation", "--target", str(folder / "site"), str(source)]
    subprocess.run(command, check=True)  # noqa: S603 - our own command
    return folder / "site"


@pytest.fixture(scope="module")
def up(packages: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    """A service with the family of the example."""
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("PYTHONPATH", str(packages))
        up = Up(tmp_path_factory.mktemp("up") / "data", free_port())
    up.wait_ready()
    yield up
    up.end()


@pytest.mark.slow  # a service of its own
def test_a_service_lists_checks_trains_and_serves_it(up):
    schemas = httpx.get(f"{up.url}/openapi.json", timeout=60).json()["components"]["schemas"]
    assert "covariance" in schemas["SinhArcsinhSpec"]["properties"]

    rows = np.sinh(np.arcsinh(np.random.default_rng(0).normal(size=(1000, 2))) + 0.7)
    flow: Any = {"family": "sinh_arcsinh"}  # the client types those that it knows
    with Client(up.url) as client:
        dataset = client.datasets.upload(rows, name="bent")
        with pytest.raises(ApiError, match="covariance"):
            client.jobs.train("bent", dataset.id, flow=flow | {"covariance": "none"})
        job = client.jobs.train(
            "bent", dataset.id, flow=flow, optimisation={"max_epochs": 30, "learning_rate": 0.02}
        )
        assert client.jobs.wait(job.id).state == "succeeded"
        scores = client.log_prob("bent", rows)
        assert client.sample("bent", 100, seed=0).shape == (100, 2)
    noise = np.sinh(np.arcsinh(rows) - 0.7)
    slopes = np.cosh(np.arcsinh(rows) - 0.7) / np.sqrt(1 + rows**2)
    truth = (np.log(slopes) - 0.5 * noise**2 - 0.5 * np.log(2 * np.pi)).sum(axis=1)
    assert scores.mean() == pytest.approx(truth.mean(), abs=0.1)


def test_the_guide_does_what_it_says(packages):
    page = EXAMPLES.parent / "docs" / "howto" / "adding_a_flow.md"
    found = with_packages(packages, "\n".join(code(page, "python")))
    assert found.returncode == 0, found.stderr


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("maf", "densityd_sinh_arcsinh.family:SinhArcsinhSpec", "'maf', which there is already"),
        ("bent", "densityd_sinh_arcsinh.family:SinhArcsinhSpec", "is not Literal['bent']"),
        ("bent", "no_such_module:Spec", "No module named 'no_such_module'"),
    ],
)
def test_a_package_that_cannot_be_used_is_named(packages, tmp_path, name, value, reason):
    shutil.copytree(packages / "densityd_sinh_arcsinh", tmp_path / "densityd_sinh_arcsinh")
    info = tmp_path / "some_flows-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: some-flows\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[densityd.flows]\n{name} = {value}\n")
    found = with_packages(tmp_path, "import flows")
    assert found.returncode == 1
    assert "some-flows" in found.stderr
    assert reason in found.stderr


def with_packages(folder: Path, program: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(  # noqa: S603 - our own interpreter
        [sys.executable, "-c", program],
        env={"PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
        check=False,
    )
