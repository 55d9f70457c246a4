"""The views of the web page in Chromium: plots, wide tables, versions side by side, what axe finds."""

import itertools
import re
from pathlib import Path
from urllib.parse import urljoin

import httpx
import numpy as np
import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browsers import findings_of_axe, needs_chromium, watched_page
from tests.e2e.test_up import Up
from tests.exported_records import edited

MAIN = Path(__file__).parents[2] / "app/site/static/page/js/main.js"
SOON_MS = 240_000  # of jobs, on a machine that may be busy
pytestmark = [needs_chromium, pytest.mark.timeout(1800)]  # a busy machine is no fault


def test_a_curve_of_many_points_is_drawn_by_thin_lines(page: Page) -> None:
    page.goto("/#/settings")
    expect(page.get_by_role("heading", name="Settings", exact=True)).to_be_visible()
    few, many = page.evaluate(
        """async () => {
            const { html, render } = await import("/static/page/vendor/vendor.js");
            const { Curve } = await import("/static/page/js/charts.js");
            const main = document.querySelector("main");
            const stroke = CanvasRenderingContext2D.prototype.stroke;
            const styles = new Set();
            CanvasRenderingContext2D.prototype.stroke = function (path) {
                if (path) styles.add(`${this.lineWidth} ${this.getLineDash()}`);
                return stroke.apply(this, path ? [path] : []);
            };
            const drawn = async (count) => {
                const place = main.appendChild(document.createElement("div"));
                const x = Array.from({ length: count }, (_, at) => at + 1);
                const series = [{ label: "one", values: x, stroke: "--model", width: 2.5, dash: [5, 4] }];
                render(html`<${Curve} label="Curve" x=${x} xLabel="x" yLabel="y" series=${series} summary="" />`, place);
                await new Promise((resolve) => requestAnimationFrame(() => requestAnimationFrame(resolve)));
                const found = [...styles];
                render(null, place);
                styles.clear();
                return found;
            };
            const found = [await drawn(50), await drawn(10000)];
            CanvasRenderingContext2D.prototype.stroke = stroke;
            return found;
        }"""
    )
    assert "2.5 5,4" in few
    assert many == ["1 "]


def test_a_table_of_fifty_columns_fits_a_phone(browser: Browser, up: Up, tmp_path: Path) -> None:
    file = tmp_path / "wide.csv"
    table = np.random.default_rng(0).normal(size=(200, 50))
    table[:, 0] = np.exp(3 * table[:, 0])
    names = ",".join(f"a_rather_long_name_of_column_{index}" for index in range(50))
    np.savetxt(file, table, delimiter=",", header=names, comments="")
    with watched_page(browser, up.url) as page:
        page.set_viewport_size({"width": 390, "height": 844})
        page.goto("/")
        page.locator("input[type=file]").set_input_files(file)
        histograms = page.get_by_role("img", name=re.compile("Histogram"))
        expect(histograms).to_have_count(50)
        texts = histograms.first.locator("text").all_text_contents()  # powers of ten
        assert {"0.001", "0.1", "10"} <= set(texts), texts
        assert page.evaluate("document.documentElement.scrollWidth") <= 390


def test_versions_side_by_side_show_what_differs(page: Page, model: str) -> None:
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(f"/#/models/{model}/compare")
    expect(page.get_by_role("heading", name=f"Versions of {model}", exact=True)).to_be_visible()
    table = page.get_by_role("region", name="Versions side by side", exact=True)
    expect(table).to_contain_text("flow.missing")
    assert len([url for url in asked if "/v1/" in url]) == 1  # however many versions a page has
    expect(table).not_to_contain_text("flow.hidden")
    page.get_by_label("Show also what is equal", exact=True).check()
    expect(table).to_contain_text("flow.hidden")
    page.goto(f"/#/models/{model}/2/versions")
    page.get_by_label("Compare version 1", exact=True).check()
    page.get_by_label("Compare version 2", exact=True).check()
    page.get_by_role("link", name="Compare 2", exact=True).click()
    expect(table.get_by_role("columnheader")).to_have_count(3)


def test_values_are_explained_beside_what_is_usual_for_their_columns(
    page: Page, model: str
) -> None:
    """The density of a mass in grams is low whatever the mass: it is not the reason for that."""
    page.goto(f"/#/models/{model}/1/score")
    rows = page.get_by_label("Rows, with a line of names", exact=True)
    expect(rows).to_have_value(re.compile("Adelie"))
    page.get_by_role("button", name="Score these rows", exact=True).click()
    page.get_by_role("button", name="Explain row 1", exact=True).click()
    chart = page.get_by_role("img", name="How well each value fits the others", exact=True)
    expect(chart).to_be_visible()
    texts = chart.locator("text").all_text_contents()
    [mass] = [value for name, value in itertools.pairwise(texts) if name.startswith("body_mass_g:")]
    told = httpx.post(
        urljoin(page.url, f"/v1/models/{model}:1/score?explain=true"),
        content=rows.input_value(),
        headers={"Content-Type": "text/csv"},
    ).json()
    assert told["explanation"][0]["body_mass_g"] < -6
    assert abs(told["difference"][0]["body_mass_g"]) < 3
    assert mass == f"{told['difference'][0]['body_mass_g']:.2f}"


def test_no_view_has_a_finding_of_axe(page: Page, up: Up, model: str) -> None:
    dataset = httpx.get(f"{up.url}/v1/datasets").json()["items"][0]["id"]
    job = httpx.get(f"{up.url}/v1/jobs").json()["items"][0]["id"]
    models = [f"models/{model}/1{tab}" for tab in ("", "/score", "/sample", "/facts", "/versions")]
    views = [
        *("", "datasets", f"datasets/{dataset}", f"datasets/{dataset}/train", "jobs"),
        *(f"jobs/{job}", "jobs/variational", "models", f"models/{model}", *models),
        *(f"models/{model}/compare", "settings"),
    ]
    patterns = re.findall(r"^  \[/(\^.*)/, \(", MAIN.read_text(), flags=re.MULTILINE)
    assert patterns
    assert [pattern for pattern in patterns if not any(map(re.compile(pattern).match, views))] == []
    findings = ""
    for view in views:
        page.goto("about:blank")  # so that no other view is there any more
        page.goto(f"/#/{view}")
        expect(page.locator("main h1")).to_be_visible()
        expect(page.get_by_text("Loading…")).to_have_count(0, timeout=SOON_MS)
        found = findings_of_axe(page)
        findings += f"{view}: {found}" if found else ""
    assert findings == ""


ADDRESSES = (
    *("models/%", "jobs/%E0%A4%A", "models/..", "models/x%3fa=1", "models/people%2f1"),
    "jobs/..%2fdatasets%2fds_0f3c5f4e7d0c4d5b9b8f1e2a3c4d5e6f",
)


def test_an_address_that_is_no_name_shows_nothing_and_asks_for_nothing(page: Page, up: Up) -> None:
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url.removeprefix(up.url)))
    for address in ADDRESSES:
        page.goto("about:blank")
        page.goto(f"/#/{address}")
        expect(page.get_by_role("heading", name="Nothing is here", exact=True)).to_be_visible()
    assert [path for path in asked if path.startswith("/v1/")] == []


METRICS: list[dict[str, object]] = [
    {"best_robust_validation_log_likelihood": "<b>high</b>", "summary": "<b>good</b>"},
    {"validation_log_likelihood": {"mean": 1}, "summary": [{"a": 1}, None]},
]


@pytest.mark.parametrize("metrics", METRICS)
def test_metrics_of_a_file_that_are_no_numbers_leave_the_views_usable(
    page: Page, up: Up, model: str, metrics: dict[str, object]
) -> None:
    file = httpx.get(f"{up.url}/v1/models/{model}/versions/1/export").content
    made = httpx.post(
        f"{up.url}/v1/models/odd/versions",
        content=edited(file, {"metrics": metrics}),
        headers={"Content-Type": "application/octet-stream"},
        timeout=SOON_MS / 1000,
    ).json()
    version = made["version"]
    for tab in ("fit", "facts", "versions"):
        page.goto("about:blank")
        page.goto(f"/#/models/odd/{version}/{tab}")
        expect(
            page.get_by_role("heading", name=f"odd version {version}", exact=True)
        ).to_be_visible()
        expect(page.get_by_text("Loading…")).to_have_count(0, timeout=SOON_MS)
    page.goto("/#/models")
    expect(page.get_by_role("link", name="odd", exact=True)).to_be_visible()
    httpx.delete(f"{up.url}/v1/models/odd").raise_for_status()


def test_the_links_of_the_settings_exist(page: Page, up: Up) -> None:
    page.goto("/#/settings")
    links = page.locator("main a")
    expect(links).to_have_count(5)
    for link in [one.get_attribute("href") or "" for one in links.all()]:
        # The guide is not part of a checkout: `make docs` builds it.
        assert httpx.get(urljoin(f"{up.url}/", link)).status_code in (
            {200, 404} if "guide" in link else {200}
        )
