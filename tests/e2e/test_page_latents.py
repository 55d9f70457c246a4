"""Latent variables of rows on the web page: from the form to the evidence of rows, with what axe finds."""

import httpx
import numpy as np
import pytest
from playwright.sync_api import Page, expect

from densityd.client import Client
from tests.browsers import findings_of_axe, needs_chromium
from tests.e2e.test_up import Up

pytestmark = [needs_chromium, pytest.mark.timeout(1800)]  # a busy machine is no fault


@pytest.mark.long
def test_rows_get_latent_variables_and_their_evidence(page: Page, up: Up) -> None:
    sources = np.random.default_rng(0).normal(size=(200, 1))
    rows = sources @ [[1.0, 0.5, 2.0]] + np.random.default_rng(1).normal(size=(200, 3))
    with Client(up.url) as client:
        table = [dict(zip("abc", map(float, row), strict=True)) for row in rows]
        dataset = client.datasets.upload(table, name="table of the sources")
    page.goto("/#/jobs/variational")
    page.get_by_label("Density", exact=True).first.select_option("linear")
    page.get_by_label("Dataset", exact=True).select_option(dataset.id)
    expect(page.get_by_label("Column to explain", exact=True).locator("option")).to_have_count(4)
    page.get_by_label("Density", exact=True).first.select_option("latent")
    page.get_by_label("How the columns follow", exact=False).select_option("known")
    page.get_by_label("Weights", exact=True).fill("1\n0.5\n2")
    page.get_by_label("Name of the model", exact=True).fill("page-sources")
    page.get_by_label("Steps", exact=True).fill("50")
    assert findings_of_axe(page) == ""
    shown = page.get_by_role("group", name="Command line", exact=True)
    expect(shown).to_contain_text(
        'densityd call POST /v1/jobs/variational \'{"model_name":"page-sources","target":{"latent":'
    )
    expect(shown).to_contain_text('"loadings":[[1],[0.5],[2]],"noise_scale":1')
    page.get_by_role("button", name="Start", exact=True).click()
    expect(page.get_by_text("Exact log evidence", exact=True)).to_be_visible()
    page.get_by_role("link", name="Look at the model", exact=True).click()
    expect(page.get_by_role("img", name="Histogram of z1", exact=True)).to_be_visible()
    assert findings_of_axe(page) == ""

    page.get_by_role("link", name="Evidence of rows", exact=True).click()
    text = page.get_by_label("Rows, with a line of names", exact=True)
    expect(text).not_to_have_value("")
    text.fill("c,a,b\n1,0.5,0.2\n-9,9,0\n")
    page.get_by_role("button", name="Compute the evidence", exact=True).click()
    bounds = page.get_by_role("region", name="Rows and their bounds", exact=True)
    expect(bounds.get_by_role("row")).to_have_count(3)
    expect(bounds.get_by_role("row").nth(1).get_by_role("cell").first).to_have_text("2")
    assert findings_of_axe(page) == ""
    asked = {"rows": [[0.5, 0.2, 1.0]]}
    known = httpx.post(f"{up.url}/v1/models/page-sources/evidence", json=asked, timeout=240).json()
    expected = f"{known['log_evidence'][0]:.2f}"
    expect(bounds.get_by_role("row").nth(2)).to_contain_text(expected)
