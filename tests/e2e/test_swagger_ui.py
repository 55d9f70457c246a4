"""Swagger UI in Chromium: "Try it out" on every operation of the OpenAPI document."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import jsonschema_rs
import numpy as np
import pytest
from playwright.sync_api import Browser, Locator, Page, Route, expect

from densityd.client import Client, Settings
from densityd.client.options import LatentTarget, Resources, VariationalOptimisation
from tests.app.conftest import openapi_document
from tests.browsers import chromium, needs_chromium, watched_page
from tests.e2e.test_up import Up
from tests.ports import free_port

DOCUMENT = openapi_document()
OPERATIONS: dict[str, dict[str, Any]] = {
    operation["operationId"]: {**operation, "path": path, "method": method}
    for path, methods in DOCUMENT["paths"].items()
    for method, operation in methods.items()
}
EXAMPLE_ID = re.compile(r"ds_[0-9a-f]{32}")
AT_ONCE = 12  # operations on one page
# What they change, others read: they come last, in this order.
LAST = [
    *(name for name in OPERATIONS if name.startswith("start_")),
    *("resume_job", "cancel_job", "rotate_key", "revoke_key", "rotate_webhook", "test_webhook"),
    # What lies within another thing goes before it.
    *reversed([name for name in OPERATIONS if name.startswith("delete_")]),
]
ORDER = [*(name for name in OPERATIONS if name not in LAST), *LAST]

_MAIN = "from densityd.cli import main; main()"

pytestmark = [needs_chromium, pytest.mark.timeout(1500)]  # a busy machine is no fault


class Prepared:
    """A service with keys, and the values of the parameters of each operation.

    Attributes:
        url: Address of the service.
        key: Key of an administrator.
        file: Exported model.
        dataset_id: Dataset that examples name.
    """

    def __init__(self, url: str, key: str, folder: Path) -> None:
        self.url, self.key = url, key
        self.file = folder / "people.safetensors"
        table = np.random.default_rng(0).normal([172, 70], [9, 8], size=(400, 2))
        path = folder / "people.csv"
        np.savetxt(path, table, delimiter=",", header="height,weight", comments="")
        with Client(Settings(url, api_key=key)) as client:
            self.dataset_id = client.datasets.upload(path, name="people").id
            few = folder / "few.csv"
            few.write_text("height,weight\n171.5,68.2\n180.1,80.9\n165,55.3\n177.7,71\n")
            described = client.datasets.upload(few).id
            spare = client.datasets.upload(path, name="spare", exclude=["weight"]).id
            trained = client.jobs.train(
                "people",
                self.dataset_id,
                flow={"family": "maf", "layers": 2, "hidden": [8]},
                optimisation={"max_epochs": 3, "seed": 0},
            )
            client.jobs.wait(trained.id)
            client.models.set_alias("people", "production", 1)
            client.models.set_alias("people", "old", 1)
            client.models.export("people", 1, self.file)
            client.models.upload("spare", self.file)
            client.models.upload("spare", self.file)
            # The rows of its readings are those of the examples.
            latent: LatentTarget = {
                "latent": {
                    "dataset_id": self.dataset_id,
                    "likelihood": "gaussian",
                    "loadings": [[0.5]] * 2,
                    "noise_scale": 1.0,
                }
            }
            short: VariationalOptimisation = {"iterations": 5}
            client.jobs.wait(client.jobs.variational("sources", latent, optimisation=short).id)
            scored = client.jobs.wait(client.jobs.score("people:1", self.dataset_id).id)
            # Jobs that no worker of this machine takes leave the processor to the page.
            absent: Resources = {"accelerator": "required"}
            waiting = client.jobs.train("waiting", self.dataset_id, resources=absent)
            halted = client.jobs.train("halted", self.dataset_id, resources=absent)
            client.jobs.cancel(halted.id)
            client.jobs.wait(halted.id, check=False)
            webhook = client.webhooks.create("https://example.org/densityd")
            keys = [client.keys.create(label=label).id for label in ("one", "two")]
        self._common = {
            "dataset_id": self.dataset_id,
            "job_id": scored.id,
            "name": "people",
            "model": "people",
            "ref": "people",
            "version": "1",
            "alias": "production",
            "kind": "marginals",
            "webhook_id": webhook.id,
            "key_id": keys[0],
            "slug": "not-found",
        }
        self._own: dict[str, dict[str, str]] = {
            "update_dataset": {"dataset_id": described},
            "delete_dataset": {"dataset_id": spare},
            "evidence": {"ref": "sources"},
            "resume_job": {"job_id": halted.id},
            "cancel_job": {"job_id": waiting.id},
            "import_version": {"name": "spare"},
            "delete_version": {"name": "spare"},
            "delete_model": {"name": "spare"},
            "delete_alias": {"alias": "old"},
            "rotate_key": {"key_id": keys[1]},
        }

    def values(self, operation: str) -> dict[str, str]:
        return self._common | self._own.get(operation, {})


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prepared]:
    folder = tmp_path_factory.mktemp("swagger")
    data = folder / "data"
    made = subprocess.run(  # noqa: S603 - our own command
        [sys.executable, "-c", _MAIN, "keys", "create", "--scope", "admin"],
        env={**os.environ, "DENSITYD_DATA_DIR": str(data)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert made.returncode == 0, made.stderr
    up = Up(data, free_port())
    try:
        up.wait_ready()
        yield Prepared(up.url, made.stdout.split()[-1], folder)
    finally:
        up.end()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


def fill(block: Locator, operation: dict[str, Any], prepared: Prepared) -> None:
    """Fill the path parameters and the body; all else stays as Swagger UI suggests."""
    values = prepared.values(operation["operationId"])
    for parameter in operation.get("parameters", ()):
        if parameter["in"] == "path":
            row = block.locator(f"tr[data-param-name='{parameter['name']}']")
            field = row.locator("input, select")
            if field.evaluate("field => field.tagName") == "SELECT":
                field.select_option(values[parameter["name"]])
            else:
                field.fill(values[parameter["name"]])
    body = block.locator(".opblock-section-request-body")
    if "requestBody" not in operation:
        return
    if operation["operationId"] == "import_version":
        body.locator("input[type=file]").set_input_files(prepared.file)
        return
    text = body.locator("textarea").first
    expect(text).not_to_have_value("")
    text.fill(EXAMPLE_ID.sub(prepared.dataset_id, text.input_value()))


def execute(page: Page, name: str, prepared: Prepared) -> None:
    """Open an operation, execute it, and check that what is shown is what the server sent."""
    operation = OPERATIONS[name]
    block = page.locator(f"#operations-{operation['tags'][0]}-{name}")
    block.locator(".opblock-summary-control").click()
    block.get_by_role("button", name="Try it out").click()
    fill(block, operation, prepared)
    path = re.sub(r"\{(\w+)\}", lambda found: prepared.values(name)[found[1]], operation["path"])
    with page.expect_response(
        lambda response: (
            response.request.method == operation["method"].upper()
            and response.url.partition("?")[0] == prepared.url + path
        )
    ) as waited:
        block.get_by_role("button", name="Execute").click()
    response = waited.value
    good = {status for status in operation["responses"] if status < "400"}
    assert str(response.status) in good, (name, response.status, response.text())
    live = block.locator(".live-responses-table")
    expect(live.locator("tbody .response-col_status").first).to_contain_text(str(response.status))
    expect(live).to_contain_text(response.headers["x-request-id"])
    media_type = response.headers.get("content-type", "")
    if media_type.startswith("image/"):
        picture = live.locator("img")
        expect(picture).to_be_visible()
        assert (
            picture.evaluate("picture => picture.decode().then(() => picture.naturalWidth)") > 100
        )
    elif "attachment" in response.headers.get("content-disposition", ""):
        expect(live.get_by_text("Download file")).to_have_attribute("href", re.compile("^blob:"))
    elif media_type == "application/json" and response.status != 204:  # which has no body
        fits(
            name,
            str(response.status),
            json.loads(live.locator(".highlight-code pre").first.inner_text()),
        )
    block.locator(".opblock-summary-control").click()


def describe_alone(names: list[str], route: Route) -> None:
    """Show some operations: each click has Swagger UI draw all that there are."""
    answer = route.fetch()
    document = answer.json()
    document["paths"] = {
        path: {
            method: operation
            for method, operation in methods.items()
            if operation["operationId"] in names
        }
        for path, methods in document["paths"].items()
    }
    route.fulfill(response=answer, json=document)


def fits(name: str, status: str, content: object) -> None:
    """Check a response against its schema."""
    schema = OPERATIONS[name]["responses"][status]["content"]["application/json"]["schema"]
    whole = {**schema, "components": DOCUMENT["components"]}
    errors = jsonschema_rs.Draft202012Validator(whole).iter_errors(content)
    assert [error.message[:300] for error in errors] == [], name


def authorize(page: Page, key: str) -> None:
    page.get_by_role("button", name="Authorize").first.click()
    page.get_by_role("textbox", name="auth-bearer-value").fill(key)
    page.get_by_role("button", name="Apply credentials").click()
    page.get_by_role("button", name="Close").first.click()


@pytest.mark.long
def test_every_operation_can_be_tried_out(browser: Browser, prepared: Prepared) -> None:
    for start in range(0, len(ORDER), AT_ONCE):
        names = ORDER[start : start + AT_ONCE]
        with watched_page(browser, prepared.url) as page:
            page.route("**/openapi.json", partial(describe_alone, names))
            page.goto("/docs")
            authorize(page, prepared.key)
            for name in names:
                execute(page, name, prepared)


@pytest.mark.long
def test_what_is_uploaded_is_trained_on_and_scored_as_the_examples_stand(
    browser: Browser, prepared: Prepared
) -> None:
    names = ["create_dataset", "start_training", "get_job", "score"]
    with watched_page(browser, prepared.url) as page:
        page.route("**/openapi.json", partial(describe_alone, names))
        page.goto("/docs")
        authorize(page, prepared.key)
        for name in names:
            tag = OPERATIONS[name]["tags"][0]
            block = page.locator(f"#operations-{tag}-{name}")
            block.locator(".opblock-summary-control").click()
            block.get_by_role("button", name="Try it out").click()
            if name == "get_job":
                block.locator("tr[data-param-name='wait'] input").fill("20")
            block.get_by_role("button", name="Execute").click()
            status = block.locator(".live-responses-table tbody .response-col_status").first
            expect(status).to_have_text(re.compile("^20[012]"))
            block.locator(".opblock-summary-control").click()


@pytest.mark.long
def test_errors_are_folded_until_they_are_asked_for(browser: Browser, prepared: Prepared) -> None:
    errors = [status for status in OPERATIONS["list_models"]["responses"] if status >= "400"]
    with watched_page(browser, prepared.url) as page:
        page.goto("/docs")
        block = page.locator("#operations-models-list_models")
        block.locator(".opblock-summary-control").click()
        expect(block.locator(".response[data-code='200']")).to_be_visible()
        expect(block.locator(".response[data-code='401']")).to_be_hidden()
        block.get_by_role("button", name=f"Show {len(errors)} errors").press("Enter")
        for status in errors:
            expect(block.locator(f".response[data-code='{status}']")).to_be_visible()
