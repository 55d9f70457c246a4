"""`densityd keys`: made once, listed without secrets, ended for good."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from densityd.cli import app
from densityd.client import ApiError, Client, Settings
from models_store.database.database import Database
from models_store.keys import Keys, Scope
from tests.client.conftest import Service


def keys(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["keys", *arguments])


def test_a_key_is_shown_once_then_listed_without_its_secret_then_revoked(data_dir: Path) -> None:
    made = keys("create", "--project", "fraud", "--scope", "write", "--rate", "5")
    assert made.exit_code == 0, made.output
    token = made.stdout.strip()
    key_id, _, secret = token.partition(".")
    database = Database(f"sqlite:///{data_dir / 'densityd.sqlite3'}")
    found = Keys(database).bearer(token)
    assert found is not None
    assert (found.project, found.scope, found.rate) == ("fraud", Scope.WRITE, 5.0)

    listed = keys("list").stdout
    assert key_id in listed
    assert secret not in listed
    assert "usable" in listed
    assert secret not in keys("list", "--json").stdout

    assert keys("revoke", token).exit_code == 0
    assert Keys(database).bearer(token) is None
    [entry] = json.loads(keys("list", "--json").stdout)
    assert (entry["id"], entry["state"]) == (key_id, "revoked")
    database.dispose()


def test_what_cannot_be_is_one_line() -> None:
    missing = keys("list")
    assert (missing.exit_code, missing.stderr.count("\n")) == (1, 1)
    assert "`densityd migrate` makes it" in missing.stderr
    wrong = keys("create", "--project", "a/b")
    assert wrong.exit_code == 2
    assert wrong.stderr.startswith("densityd: a project matches")
    assert keys("create", "--scope", "root").exit_code == 2
    assert keys("create", "--expires-days", "0").exit_code == 2
    nobodys = "key_" + "0" * 32
    unknown = keys("revoke", nobodys)
    assert (unknown.exit_code, unknown.stderr) == (1, f"densityd: No such key: {nobodys}.\n")


def test_a_key_in_a_new_folder_says_so(data_dir: Path) -> None:
    question = f"made {data_dir}: is it the service's DENSITYD_DATA_DIR?"
    assert question in keys("create").stderr
    assert question not in keys("create").stderr


def test_the_client_and_the_commands_show_the_key_of_the_environment(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = Keys(service.database).create("default", Scope.READ).token
    monkeypatch.setenv("DENSITYD_URL", service.url)
    while CliRunner().invoke(app, ["list", "models"]).exit_code == 0:
        pass  # it may have seen that there are no keys, a second ago
    refused = CliRunner().invoke(app, ["list", "models"])
    assert refused.exit_code == 1
    assert "Set DENSITYD_API_KEY to a key of the service." in refused.stderr
    with Client(Settings(service.url, api_key=token)) as client:
        assert "people" in [model.name for model in client.models.list()]
        with pytest.raises(ApiError) as caught:
            client.models.delete_alias("people", "x")
        assert (caught.value.status, caught.value.type) == (403, "/problems/forbidden")
    monkeypatch.setenv("DENSITYD_API_KEY", token)
    assert "people" in CliRunner().invoke(app, ["list", "models"]).stdout
