"""``densityd whoami``, ``usage`` and ``--version``, and keys by the client."""

import json

import pytest

from densityd.client import ApiError, Client
from tests.densityd.commands.running import run
from tests.densityd.conftest import Service


@pytest.mark.long
def test_who_what_and_which() -> None:
    assert "default" in run("whoami").stdout
    assert json.loads(run("whoami", "--json").stdout)["key"] is None
    assert "stored bytes" in run("usage").stdout
    assert run("--version").stdout.startswith("densityd ")
    with Client() as client:
        names = [model.name for model in client.models.list()]
        assert json.loads(run("usage", "--json").stdout)["models"] == len(names) >= 3
        assert client.keys.list() == []
        with pytest.raises(ApiError, match="densityd keys create"):
            client.keys.create("write")


def test_a_version_is_copied_with_its_calibration(service: Service) -> None:
    out = run("models", "copy", "ranked", "--to", service.url, "--model", "promoted").stdout
    assert out.strip() == "promoted:1"
    with Client() as client:
        rows = [[170.0, 70.0, 30.0], [150.0, 90.0, 20.0]]
        first, second = (client.score(ref, rows) for ref in ("ranked:1", "promoted:1"))
        assert (first.quantile == second.quantile).all()
