"""The web page in Chromium, on the whole service: by mouse and by keyboard, what axe finds, errors."""

import itertools
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Literal
from urllib.parse import urljoin

import httpx
import numpy as np
import pytest
from playwright.sync_api import Locator, Page, Route, expect

from densityd.client import Client
from tabular.source import mend_names
from tests.service.up import EXAMPLES, TIMEOUT_S, succeeds
from tests.store.makers import edited
from tests.support.browsers import findings_of_axe, needs_chromium, tab_to, watched_page
from tests.support.issuers import AUDIENCE, OwnIssuer
from tests.support.servers import free_port, tied
from tests.support.waiting import wait_until

MAIN = Path(__file__).parents[2] / "app/site/static/page/js/main.js"
PENGUINS = EXAMPLES / "penguins" / "penguins.csv"
pytestmark = [pytest.mark.browser, needs_chromium, pytest.mark.timeout(1800)]


def click(place: Page | Locator, role: Literal["button", "link"], name: str) -> None:
    place.get_by_role(role, name=name, exact=True).click()


def sees(page: Page, role: Literal["heading", "img", "button", "link"], name: str) -> None:
    expect(page.get_by_role(role, name=name, exact=True)).to_be_visible()


def press_until(page: Page, name: str) -> None:
    """Press Tab until the element with a name has the focus, as a person without a mouse does."""
    for _ in range(80):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.innerText.trim()") == name:
            return
    raise AssertionError(f"Tab does not reach {name!r}")


def paste(page: Page, text: str) -> None:
    """Paste a text in place of all that is in the field of rows."""
    page.locator("#rows").evaluate(
        """(field, text) => {
            const clipboardData = new DataTransfer();
            clipboardData.setData("text/plain", text);
            field.select();
            field.dispatchEvent(new ClipboardEvent("paste", {clipboardData, bubbles: true, cancelable: true}));
        }""",
        text,
    )


def test_a_file_becomes_a_model_that_scores_explains_and_draws(page):
    page.goto("/")
    page.locator("input[type=file]").set_input_files(PENGUINS)
    sees(page, "heading", "penguins")
    click(page, "button", "Use this table")
    click(page, "button", "species")
    column = page.get_by_label("Column species", exact=True)
    expect(column.get_by_role("img")).to_contain_text("Adelie")
    click(page, "button", "year")
    page.get_by_label("Type of year", exact=True).select_option("category")
    columns = page.get_by_role("region", name="Columns", exact=True)
    year = columns.get_by_role("row").filter(has=page.get_by_role("button", name="year"))
    expect(year).to_contain_text("category")

    click(page, "link", "Train a model")
    page.get_by_label("Name of the model", exact=True).fill("birds")
    page.get_by_text("Advanced", exact=True).click()
    page.get_by_label("Most passes over the data", exact=True).fill("5")
    click(page, "button", "Start training")
    sees(page, "heading", "birds version 1")
    rows = page.get_by_role("region", name="Unusual rows", exact=True)
    expect(rows.locator("tbody tr")).to_have_count(20)
    expect(rows.locator(".reason").first).to_contain_text("usual here")
    page.go_back()  # to the job
    expect(page.locator(".curve canvas")).to_be_visible()
    expect(page.get_by_label("Progress", exact=True)).to_contain_text("Best epoch")

    click(page, "link", "Look at the model")
    click(page, "link", "Fit")
    sees(page, "img", "Histogram of bill_length_mm")
    page.get_by_text("Learning curve", exact=True).click()
    sees(page, "img", "Learning curve")

    score_and_draw(page)


def score_and_draw(page: Page) -> None:
    click(page, "link", "Score")
    rows = page.get_by_label("Rows, with a line of names", exact=True)
    expect(rows).to_have_value(re.compile("species,island"))
    header = rows.input_value().splitlines()[0]
    rows.fill(
        f"{header}\nAdelie,Biscoe,39,18,190,3500,male,2007\nEmperor,Dream,60,18,,9,male,2007\n"
    )
    click(page, "button", "Score these rows")
    expect(
        page.get_by_role("status").get_by_role("heading", name="2 rows scored", exact=True)
    ).to_be_visible()
    expect(page.get_by_text("1 value unlike those of the training", exact=True)).to_be_visible()
    click(page, "button", "Explain row 2")
    expect(page.get_by_label("Explanation", exact=True)).to_contain_text("body_mass_g")

    click(page, "link", "Sample")
    page.get_by_label("Rows", exact=True).fill("7")
    click(page, "button", "Draw rows")
    expect(page.get_by_text(re.compile("^7 rows that the model drew"))).to_be_visible()
    expect(page.get_by_role("status").filter(has_text="7 rows drawn")).to_be_visible()


MESSY = (
    "Datum;Region;Umsatz;Kunden\r\n"
    + "".join(
        f"{day % 28 + 1:02}.{day // 28 % 12 + 1:02}.2025;{['West', 'West', 'west', 'Süd'][day % 4]};"
        f"{900 + day * 37 % 613},{day % 100:02};{-999 if day % 20 == 7 else 20 + day * 7 % 31}\r\n"
        for day in range(300)
    )
    + "Gesamtsumme;;361.000,00;\r\n"
)


def test_a_messy_table_is_mended_by_the_buttons_of_its_warnings(page, up, tmp_path):
    file = tmp_path / "umsatz.csv"
    file.write_text(MESSY, "cp1252", newline="")
    page.goto("/")
    page.locator("input[type=file]").set_input_files(file)
    warnings = page.get_by_role("region", name="Warnings", exact=True)
    for remedy in (
        *("Leave out the rows of 'Gesamtsumme'", "Merge these values: Region"),
        "Take -999 as missing: Kunden",
    ):
        button = warnings.get_by_role("button", name=remedy)
        button.first.click()
        expect(button).to_have_count(0)
    changes = page.get_by_role("group", name="Changes", exact=True)
    expect(changes.get_by_role("button")).to_have_count(3)
    assert findings_of_axe(page) == ""
    page.get_by_label("Type of Kunden", exact=True).select_option("left out")
    click(page, "button", "Use this table")
    expect(page.get_by_text("drop_rows Gesamtsumme")).to_be_visible()
    click(page, "button", "Region")
    expect(page.get_by_label("Column Region", exact=True)).to_contain_text("are merged")
    assert findings_of_axe(page) == ""
    dataset = page.url.rpartition("/")[2]
    found = httpx.get(f"{up.url}/v1/datasets/{dataset}", timeout=60).json()
    assert [column["type"] for column in found["columns"]] == [
        *("datetime", "category", "number", "ignored")
    ]
    assert (found["rows"], found["columns"][1]["levels"]) == (300, ["West", "Süd"])
    assert found["options"] == {
        "drop_rows": ["Gesamtsumme"],
        "exclude": ["Kunden"],
        "merge_levels": ["Region"],
        "na_values": ["-999"],
    }


def test_a_dropped_table_leads_to_its_unusual_rows_in_two_clicks(page):
    page.goto("/")
    page.locator("input[type=file]").set_input_files(PENGUINS)
    click(page, "button", "Use this table and train")
    rows = page.get_by_role("region", name="Unusual rows", exact=True)
    expect(rows.locator("tbody tr")).to_have_count(20)
    expect(rows.locator(".reason").first).to_contain_text("usual here")
    expect(page.get_by_label("Verdict", exact=True)).to_contain_text(re.compile("^(Usable|Not)"))


def test_the_example_is_trained_and_scored_by_keyboard_alone(page):
    page.goto("/")
    expect(page.get_by_role("button", name="Try it with an example", exact=True)).to_be_enabled()
    press_until(page, "Try it with an example")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name=re.compile("^penguins version"))).to_be_visible()
    press_until(page, "Score")
    page.keyboard.press("Enter")
    expect(page.locator("#rows")).to_have_value(re.compile("Adelie"))
    press_until(page, "Score these rows")
    page.keyboard.press("Enter")
    sees(page, "heading", "5 rows scored")


def test_the_example_of_the_page_is_that_of_the_documentation(up):
    assert (
        httpx.get(f"{up.url}/static/page/penguins.csv", timeout=60).content == PENGUINS.read_bytes()
    )


def test_a_broken_stream_of_events_continues_where_it_broke(browser, up):
    broken: list[str] = []

    def stumble(route: Route) -> None:
        """Cut the stream after some events, once, as a proxy that restarts does."""
        if broken:
            route.continue_()
            return
        events = httpx.get(
            route.request.url.replace("events?", "events?format=json&"), timeout=60
        ).json()
        broken.append(route.request.url)
        texts = [
            f"id: {event['id']}\nevent: {event['event']}\ndata: {{}}\n\n"
            for event in events["items"][:3]
        ]
        route.fulfill(body="".join(texts) + "id: 4\nevent: epo", content_type="text/event-stream")

    with Client(up.url) as client:
        dataset = client.datasets.upload(PENGUINS)
        job = client.jobs.train("cut", dataset.id, optimisation={"max_epochs": 8, "seed": 0})
        client.jobs.wait(job.id)
        with watched_page(browser, up.url) as page:
            asked: list[str] = []
            page.on("request", lambda request: asked.append(request.url))
            page.route("**/events?*", stumble)
            with page.expect_request(lambda request: request.url.endswith("after=3")):
                page.goto(f"/#/jobs/{job.id}")
            expect(page.locator(".curve canvas")).to_be_visible()
            found = [url.rpartition("=")[2] for url in asked if "/events?" in url]
    assert found == ["0", "3"]


def test_errors_say_what_is_wrong_and_what_to_do(browser, up, tmp_path):
    sheet, empty = tmp_path / "table.xls", tmp_path / "empty.csv"
    sheet.write_bytes(b"PK")
    empty.write_text("a,b\n")
    with watched_page(browser, up.url, expected=("status of 4",)) as page:
        page.goto("/#/datasets")
        chooser = page.locator("input[type=file]")
        chooser.set_input_files(sheet)
        expect(page.get_by_role("alert")).to_contain_text("Save it as .xlsx or as CSV")
        chooser.set_input_files(empty)
        expect(
            page.get_by_role("alert").get_by_role("link", name="What this means", exact=True)
        ).to_be_visible()
        page.goto("/#/models/nobody/1")
        expect(page.get_by_role("alert")).to_contain_text("No such model")
        sees(page, "heading", "nobody")
        page.goto("/#/nowhere")
        sees(page, "heading", "Nothing is here")


def test_rows_to_score_are_read_from_files_as_programs_write_them(browser, up):
    """In their encoding, below a title, with the separator, and with the names that an upload gives."""
    names = ["Fläche", "Preis", "Preis", "", "x4", "in\nEuro"]
    header = ";".join(f'"{name}"' for name in names)
    text = f'"Bericht";"2024"\r\n\r\n{header}\r\n' + "1,5;2,5;3;;b;c\r\n" * 3
    module = "await import(new URL('static/page/js/rows.js', location.origin))"
    reads = f"async (bytes) => {{ const rows = {module}; return rows.parseRows(await rows.textOf(new Blob([new Uint8Array(bytes)]))); }}"
    with watched_page(browser, up.url) as page:
        page.goto("/#/")
        for encoding in ("utf-8", "utf-8-sig", "cp1252", "utf-16"):
            found = page.evaluate(reads, list(text.encode(encoding)))
            assert found["columns"] == mend_names(names)[0], encoding
            assert found["rows"] == [["1,5", "2,5", "3", "", "b", "c"]] * 3


def test_an_unreachable_service_is_said_and_left_behind(browser, up):
    with watched_page(browser, up.url, expected=("ERR_",)) as page:
        page.goto("/#/")
        sees(page, "heading", "Newest models")
        page.context.set_offline(True)
        expect(page.get_by_text("The service cannot be reached. What")).to_be_visible()
        page.context.set_offline(False)
        expect(page.get_by_text("The service cannot be reached. What")).to_be_hidden()


def test_a_version_is_promoted_and_the_promotion_undone(page, up, model):
    page.goto(f"/#/models/{model}/2/versions")
    click(page, "button", "Promote version 2")
    reason = page.get_by_label("Reason", exact=True)
    expect(reason).to_be_focused()
    reason.fill("it knows the gaps")
    page.keyboard.press("Enter")
    expect(
        page.get_by_role("status").filter(has_text="production is now version 2")
    ).to_be_visible()
    assert httpx.get(f"{up.url}/v1/models/{model}", timeout=60).json()["aliases"] == {
        "production": 2
    }
    versions = page.get_by_role("region", name="Versions", exact=True)
    expect(versions.locator("tbody tr").first).to_contain_text("production")
    click(page, "button", "Undo")
    expect(page.get_by_role("button", name="Undo", exact=True)).to_be_hidden()
    page.get_by_text("History of promotions", exact=True).click()
    history = page.get_by_role("region", name="History of promotions", exact=True)
    expect(history.locator("tbody tr").last).to_contain_text("it knows the gaps")
    assert httpx.get(f"{up.url}/v1/models/{model}", timeout=60).json()["aliases"] == {}


def test_an_unusual_row_is_explained_at_an_address_to_share_and_reviewed(browser, page, up, model):
    page.goto(f"/#/models/{model}/1")
    page.get_by_role("link", name=re.compile("^Explain row")).nth(1).click()
    explanation = page.get_by_label("Explanation", exact=True)
    expect(explanation).to_contain_text("times as likely")
    confirmed = page.get_by_role("button", name="Confirmed", pressed=True)
    expect(confirmed).to_have_count(0)
    page.get_by_role("button", name="Confirmed", exact=True).nth(1).click()
    expect(confirmed).to_have_count(1)
    with watched_page(browser, up.url) as other:
        other.goto(page.url)
        shown = other.get_by_label("Explanation", exact=True)
        expect(shown).to_have_text(explanation.text_content() or "")
        expect(other.get_by_role("button", name="Confirmed", pressed=True)).to_have_count(1)
    page.get_by_role("slider").press("End")
    expect(page.get_by_text("flags 344 of 344 rows", exact=True)).to_be_visible()
    with page.expect_download() as download:
        click(page, "button", "Download the flagged rows as CSV")
    assert len(download.value.path().read_text().splitlines()) == 345


def test_a_model_is_described_tagged_and_found_by_its_tag(page, model):
    page.goto(f"/#/models/{model}/1/versions")
    click(page, "button", "Describe or tag the model")
    page.get_by_label("Description", exact=True).fill("Birds of three islands")
    page.get_by_label("Tags", exact=True).fill("team: polar\nstage: trial")
    click(page, "button", "Save")
    expect(page.get_by_text("Birds of three islands", exact=True)).to_be_visible()
    page.goto("/#/models")
    search = page.get_by_role("searchbox")
    search.fill("team:tropical")
    expect(page.get_by_text("0 models", exact=True)).to_be_visible()
    search.fill("team:polar")
    row = page.get_by_role("row").filter(has=page.get_by_role("link", name=model, exact=True))
    expect(row).to_contain_text("stage: trial")
    expect(search).to_be_focused()


def test_a_whole_table_is_scored_into_a_file(page, model):
    page.goto(f"/#/models/{model}/1/score")
    page.get_by_label("Dataset", exact=True).select_option("table of the pair")
    click(page, "button", "Start scoring")
    rows = page.get_by_role("region", name="Unusual rows", exact=True)
    expect(rows.locator("tbody tr")).to_have_count(20)
    result = page.get_by_role("button", name="Download the result", exact=True)
    expect(result).to_be_visible()
    with page.expect_download() as download:
        result.click()
    header, *lines = download.value.path().read_text().splitlines()
    assert header.endswith("log_prob,quantile")
    assert len(lines) == 344


def test_values_are_cleared_and_filled_and_a_column_is_foretold(page, model):
    page.goto(f"/#/models/{model}/1/score")
    click(page, "button", "Score these rows")
    first = page.get_by_role("region", name="Scored rows", exact=True).locator("tbody tr").first
    click(first, "button", "Torgersen")
    click(first, "button", "39.1")
    click(page, "button", "Fill")
    expect(first).to_contain_text(re.compile(r"39\.1 [\d.]+ \([\d.]+ to [\d.]+\)"))
    click(page, "button", "Likelihood given these")
    expect(page.get_by_role("columnheader", name="Cleared given these")).to_be_visible()

    click(page, "link", "What if")
    page.get_by_label("What would this column be?", exact=True).select_option("species")
    found = page.get_by_role("region", name="Distribution of species", exact=True)
    before = found.get_by_role("status").inner_text()
    page.get_by_label("flipper_length_mm", exact=True).fill("230")
    expect(found.get_by_role("status")).not_to_have_text(before)
    expect(found.get_by_role("status")).to_contain_text("Gentoo")


def test_rows_in_the_notation_of_their_table_are_shown_and_scored_as_they_are(page, up, tmp_path):
    file = tmp_path / "sales.csv"
    days = [f"{day:02}.{month:02}.2026" for month in (7, 8, 9) for day in range(1, 29)]
    rows = [f"{day};{place % 7 + 1},{place % 10}5" for place, day in enumerate(2 * days)]
    file.write_text("\n".join(["day;price", *rows]))
    with Client(up.url) as client:
        dataset = client.datasets.upload(file)
        job = client.jobs.train("sales", dataset.id, optimisation={"max_epochs": 2, "seed": 0})
        client.jobs.wait(job.id)
    page.goto(f"/#/datasets/{dataset.id}")
    click(page, "button", "day")
    expect(page.get_by_role("img", name="Histogram of day", exact=True)).to_contain_text("2026-08")
    page.goto("/#/models/sales/1/score")
    expect(page.locator("#rows")).to_have_value(re.compile('01.07.2026,"1,05"'))
    click(page, "button", "Score these rows")
    sees(page, "heading", "5 rows scored")


def test_a_formula_is_drawn_and_becomes_a_flow(browser, up):
    with watched_page(browser, up.url, expected=("status of 422",)) as page:
        fit_a_formula(page)


def fit_a_formula(page: Page) -> None:
    page.goto("/#/jobs/variational")
    expect(page.get_by_role("img", name="Density of the target")).to_be_visible()
    formula = page.get_by_label("Log density", exact=True)
    right = formula.input_value()
    formula.fill("-z1^2 - (z2")
    expect(page.get_by_label("Density", exact=True).get_by_role("status")).to_contain_text(
        "at character"
    )
    formula.fill(right)
    expect(page.get_by_label("Density", exact=True).get_by_role("status")).to_be_hidden()
    page.get_by_label("Name of the model", exact=True).fill("curved")
    page.get_by_label("Steps", exact=True).fill("60")
    click(page, "button", "Start")
    sees(page, "heading", "Lower bound of the evidence")
    sees(page, "link", "Look at the model")


def test_a_search_shows_what_it_tries(page, up):
    with Client(up.url) as client:
        dataset = client.datasets.upload(PENGUINS, name="searched")
    page.goto(f"/#/datasets/{dataset.id}/train")
    page.get_by_label("Name of the model", exact=True).fill("searched")
    page.get_by_label("Quality", exact=True).select_option("best")  # it runs until it is cancelled
    page.get_by_label("Search", exact=True).check()
    click(page, "button", "Start training")
    trials = page.get_by_role("region", name="Trials", exact=True).locator("tbody tr")
    expect(trials.first).to_be_visible()
    click(page, "button", "Cancel")
    sees(page, "button", "Resume")


def test_ten_thousand_pasted_rows_are_scored(page, model):
    header, *lines = PENGUINS.read_text().splitlines()
    page.goto(f"/#/models/{model}/1/score")
    expect(page.locator("#rows")).to_have_value(re.compile("Adelie"))
    paste(page, "\n".join([header, *(lines * 30)[:10_000]]))
    click(page, "button", "Score these rows")
    sees(page, "heading", "10,000 rows scored")
    page.get_by_label("Least likely first", exact=True).check()
    page.get_by_role("button", name=re.compile("Explain row")).first.click()
    expect(page.get_by_label("Explanation", exact=True)).to_contain_text("bill_length_mm")
    click(page, "button", "Show more")
    expect(page.get_by_label("Scored rows", exact=True).locator("tbody tr")).to_have_count(1100)


def test_a_curve_of_many_points_is_drawn_by_thin_lines(page):
    page.goto("/#/settings")
    sees(page, "heading", "Settings")
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


def test_a_table_of_fifty_columns_fits_a_phone(browser, up, tmp_path):
    file = tmp_path / "wide.csv"
    table = np.random.default_rng(0).normal(size=(200, 50))
    table[:, 0] = np.exp(3 * table[:, 0])
    names = ",".join(f"a_rather_long_name_of_column_{index}" for index in range(50))
    np.savetxt(file, table, delimiter=",", header=names, comments="")
    with watched_page(browser, up.url) as page:
        page.set_viewport_size({"width": 390, "height": 844})
        page.goto("/")
        page.locator("input[type=file]").set_input_files(file)
        click(page, "button", "Use this table")
        columns = page.get_by_role("region", name="Columns", exact=True)
        expect(columns.locator("tbody tr")).to_have_count(50)
        columns.get_by_role("button").first.click()
        histogram = page.get_by_role("img", name=re.compile("Histogram"))
        expect(histogram).to_be_visible()
        texts = histogram.locator("text").all_text_contents()  # powers of ten
        assert {"0.001", "0.1", "10"} <= set(texts), texts
        assert page.evaluate("document.documentElement.scrollWidth") <= 390


def test_versions_side_by_side_show_what_differs(page, model):
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(f"/#/models/{model}/compare")
    sees(page, "heading", f"Versions of {model}")
    table = page.get_by_role("region", name="Versions side by side", exact=True)
    expect(table).to_contain_text("flow.missing")
    assert len([url for url in asked if "/v1/" in url]) == 1  # however many versions a page has
    expect(table).not_to_contain_text("flow.hidden")
    page.get_by_label("Show also what is equal", exact=True).check()
    expect(table).to_contain_text("flow.hidden")
    page.goto(f"/#/models/{model}/2/versions")
    page.get_by_label("Compare version 1", exact=True).check()
    page.get_by_label("Compare version 2", exact=True).check()
    click(page, "link", "Compare 2")
    page.get_by_text("All facts side by side", exact=True).click()
    expect(table.get_by_role("columnheader")).to_have_count(3)


def test_values_are_explained_beside_what_is_usual_for_their_columns(page, model):
    """The density of a mass in grams is low whatever the mass: it is not the reason for that."""
    page.goto(f"/#/models/{model}/1/score")
    rows = page.get_by_label("Rows, with a line of names", exact=True)
    expect(rows).to_have_value(re.compile("Adelie"))
    click(page, "button", "Score these rows")
    click(page, "button", "Explain row 1")
    chart = page.get_by_role("img", name="How well each value fits the others", exact=True)
    expect(chart).to_be_visible()
    texts = chart.locator("text").all_text_contents()
    [mass] = [value for name, value in itertools.pairwise(texts) if name.startswith("body_mass_g:")]
    told = httpx.post(
        urljoin(page.url, f"/v1/models/{model}:1/score?explain=true"),
        content=rows.input_value(),
        headers={"Content-Type": "text/csv"},
        timeout=60,
    ).json()
    assert told["explanation"][0]["body_mass_g"] < -6
    assert abs(told["difference"][0]["body_mass_g"]) < 3
    assert mass == f"{told['difference'][0]['body_mass_g']:.2f}"


def test_no_view_has_a_finding_of_axe(page, up, model):
    dataset = httpx.get(f"{up.url}/v1/datasets", timeout=60).json()["items"][0]["id"]
    job = httpx.get(f"{up.url}/v1/jobs", timeout=60).json()["items"][0]["id"]
    tabs = ("", "/fit", "/score", "/whatif", "/sample", "/monitoring", "/facts", "/versions")
    models = [f"models/{model}/1{tab}" for tab in tabs]
    views = [
        *(
            "",
            "datasets",
            "datasets/new",
            f"datasets/{dataset}",
            f"datasets/{dataset}/train",
            "jobs",
        ),
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
        expect(page.get_by_text("Loading…")).to_have_count(0)
        found = findings_of_axe(page)
        findings += f"{view}: {found}" if found else ""
    assert findings == ""


ADDRESSES = (
    *("models/%", "jobs/%E0%A4%A", "models/..", "models/x%3fa=1", "models/people%2f1"),
    "jobs/..%2fdatasets%2fds_0f3c5f4e7d0c4d5b9b8f1e2a3c4d5e6f",
)


def test_an_address_that_is_no_name_shows_nothing_and_asks_for_nothing(page, up):
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url.removeprefix(up.url)))
    for address in ADDRESSES:
        page.goto("about:blank")
        page.goto(f"/#/{address}")
        sees(page, "heading", "Nothing is here")
    assert [path for path in asked if path.startswith("/v1/")] == []


METRICS: list[dict[str, object]] = [
    {"best_robust_validation_log_likelihood": "<b>high</b>", "summary": "<b>good</b>"},
    {"validation_log_likelihood": {"mean": 1}, "summary": [{"a": 1}, None]},
]


@pytest.mark.parametrize("metrics", METRICS)
def test_metrics_of_a_file_that_are_no_numbers_leave_the_views_usable(page, up, model, metrics):
    file = httpx.get(f"{up.url}/v1/models/{model}/versions/1/export", timeout=60).content
    made = httpx.post(
        f"{up.url}/v1/models/odd/versions",
        content=edited(file, {"metrics": metrics}),
        headers={"Content-Type": "application/octet-stream"},
        timeout=TIMEOUT_S,
    ).json()
    version = made["version"]
    for tab in ("fit", "facts", "versions"):
        page.goto("about:blank")
        page.goto(f"/#/models/odd/{version}/{tab}")
        sees(page, "heading", f"odd version {version}")
        expect(page.get_by_text("Loading…")).to_have_count(0)
    page.goto("/#/models")
    sees(page, "link", "odd")
    httpx.delete(f"{up.url}/v1/models/odd", timeout=60).raise_for_status()


def test_the_links_of_the_settings_exist(page, up):
    page.goto("/#/settings")
    links = page.locator("main a")
    expect(links).to_have_count(5)
    for link in [one.get_attribute("href") or "" for one in links.all()]:
        # The guide is not part of a checkout: `make docs` builds it.
        assert httpx.get(urljoin(f"{up.url}/", link), timeout=60).status_code in (
            {200, 404} if "guide" in link else {200}
        )


def test_rows_get_latent_variables_and_their_evidence(page, up):
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
    click(page, "button", "Start")
    expect(page.get_by_text("Exact log evidence", exact=True)).to_be_visible()
    click(page, "link", "Look at the model")
    sees(page, "img", "Histogram of z1")
    assert findings_of_axe(page) == ""

    click(page, "link", "Evidence of rows")
    text = page.get_by_label("Rows, with a line of names", exact=True)
    expect(text).not_to_have_value("")
    text.fill("c,a,b\n1,0.5,0.2\n-9,9,0\n")
    click(page, "button", "Compute the evidence")
    bounds = page.get_by_role("region", name="Rows and their bounds", exact=True)
    expect(bounds.get_by_role("row")).to_have_count(3)
    expect(bounds.get_by_role("row").nth(1).get_by_role("cell").first).to_have_text("2")
    assert findings_of_axe(page) == ""
    asked = {"rows": [[0.5, 0.2, 1.0]]}
    known = httpx.post(f"{up.url}/v1/models/page-sources/evidence", json=asked, timeout=240).json()
    expected = f"{known['log_evidence'][0]:.2f}"
    expect(bounds.get_by_role("row").nth(2)).to_contain_text(expected)


@pytest.fixture(scope="module")
def issuer() -> Iterator[OwnIssuer]:
    with OwnIssuer() as issuer:
        yield issuer


@pytest.fixture(scope="module")
def service(
    tmp_path_factory: pytest.TempPathFactory, issuer: OwnIssuer
) -> Iterator[tuple[str, str]]:
    """An API without workers, where people sign in by an issuer, and the key of an administrator."""
    folder, port = tmp_path_factory.mktemp("keys"), free_port()
    environment = os.environ | {
        "DENSITYD_DATA_DIR": str(folder / "data"),
        "DENSITYD_PORT": str(port),
        "DENSITYD_BROKER_URL": "redis://127.0.0.1:1/0",
        "DENSITYD_OIDC_ISSUER": issuer.url,
        "DENSITYD_OIDC_AUDIENCE": AUDIENCE,
    }
    program = "from densityd.cli import main; main()"
    made = subprocess.run(  # noqa: S603 - our own command
        [sys.executable, "-c", program, "keys", "create", "--scope", "admin"],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(  # noqa: S603 - our own command
            tied(sys.executable, "-P", "-m", "app"), env=environment, stderr=log
        )
        url = f"http://127.0.0.1:{port}"
        try:
            wait_until(lambda: succeeds(f"{url}/readyz"))
            yield url, made.stdout.split()[-1]
        finally:
            process.terminate()
            process.wait(TIMEOUT_S)


def write(page: Page, label: str, text: str) -> None:
    tab_to(page, page.get_by_label(label, exact=True))
    page.keyboard.type(text)


def press(page: Page, button: str) -> None:
    tab_to(page, page.get_by_role("main").get_by_role("button", name=button, exact=True))
    page.keyboard.press("Enter")


def works(url: str, key: str) -> bool:
    return httpx.get(
        f"{url}/v1/me", headers={"Authorization": f"Bearer {key}"}, timeout=60
    ).is_success


def test_a_key_is_made_replaced_and_revoked_by_keys(browser, service):
    url, admin = service
    with watched_page(browser, url, expected=("status of 401",)) as page:
        page.goto("/#/settings")
        write(page, "API key", admin)
        press(page, "Use this key")
        sees(page, "heading", "Keys of this project")

        write(page, "For", "nightly scores")
        press(page, "Make a key")
        shown = page.get_by_role("group", name="New key", exact=True)
        first = shown.inner_text()
        row = page.get_by_role("row").filter(has_text="nightly scores")
        expect(row).to_have_count(1)
        assert works(url, first)
        assert findings_of_axe(page) == ""

        replace = row.get_by_role("button", name="Replace", exact=True)
        tab_to(page, replace)
        page.keyboard.press("Enter")
        expect(shown).not_to_have_text(first)
        second = shown.inner_text()
        assert works(url, second)
        expect(page.get_by_role("status").filter(has_text="still works for a day")).to_be_visible()
        expect(row).to_have_count(2)  # the newest last
        expect(replace.first).to_be_focused()
        revoke = row.last.get_by_role("button", name="Revoke", exact=True)
        tab_to(page, revoke)
        page.keyboard.press("Enter")
        page.keyboard.press("Enter")  # the focus is on the answer
        expect(row.filter(has_text="revoked")).to_have_count(1)
        wait_until(lambda: not works(url, second))
        assert works(url, first)


def test_somebody_signs_in_by_the_issuer_and_comes_back_to_the_view(browser, service, issuer):
    url, _ = service
    elsewhere = issuer.url.split("/realms")[0]
    with watched_page(browser, url, expected=("status of 40",), beside=(elsewhere,)) as page:
        page.goto("/#/settings")
        assert findings_of_axe(page) == ""
        click(page, "button", "Sign in")
        sees(page, "heading", "Keys of this project")
        assert page.url == f"{url}/#/settings"
        assert not issuer.asked  # the code was used
        click(page, "button", "Forget it")
        page.reload()
        kept = '{"state": "s", "hash": ""}'
        page.evaluate(f"sessionStorage.setItem('densityd-sign-in', '{kept}')")
        page.goto("/?state=s&error=access_denied")
        expect(page.get_by_role("alert")).to_contain_text("access_denied")
        page.evaluate("sessionStorage.clear()")
        page.goto("/?state=another&code=of-somebody#/settings")  # what this tab did not ask for
        sees(page, "button", "Sign in")
        expect(page.get_by_role("alert")).to_be_hidden()
