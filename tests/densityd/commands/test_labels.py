"""Labels from the command line and the client, against the real service."""

import json
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from densityd.client import ApiError, Client
from tests.densityd.commands.running import run


@pytest.mark.long
def test_things_are_described_tagged_and_found_again() -> None:
    with Client() as client:
        dataset = client.datasets.upload(np.arange(40.0).reshape(20, 2), name="forty").id
        job = client.jobs.sample("people:1", 5).id
        kinds = {dataset: "datasets", job: "jobs", "people": "models"}
        for target, kind in {**kinds, "people:1": None}.items():
            out = run("label", target, "team=space", "old=1", "--description", "of mine").stdout
            assert "of mine" in out
            assert "space" in out
            shown = json.loads(run("label", target, "--remove", "old", "--json").stdout)
            assert shown["tags"] == {"team": "space"}
            if kind is not None:
                assert target in run(kind, "list", "--tag", "team=space", "--oldest-first").stdout
                assert target not in run(kind, "list", "--tag", "team=time").stdout
        assert "people" in run("models", "list", "--prefix", "peo", "--tag", "team").stdout
        run("label", "people", "team", status=2)

        assert client.models.update("people", description=None).description is None
        [listed] = client.models.list(tags={"team": "space"}, name_prefix="people")
        assert listed.latest is not None
        assert listed.latest.version == listed.latest_version
        [version] = client.models.versions("people", tags={"team": None})
        assert version.tags == {"team": "space"}
        hour = datetime.now(UTC) - timedelta(hours=1)
        assert list(client.datasets.list(created_before=hour)) == []
        found = client.datasets.list(created_from=hour, sha256=client.datasets.get(dataset).sha256)
        assert [one.id for one in found] == [dataset]
        assert client.datasets.columns(dataset, offset=1).items[0].name == "x2"
        with pytest.raises(ApiError, match="412"):
            client.jobs.update(job, tags={"a": "b"}, etag='"stale"')
