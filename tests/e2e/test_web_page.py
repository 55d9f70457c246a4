"""The web page in Chromium, on the whole service: by mouse, by keyboard, broken connections, errors."""

import re
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Browser, Page, Route, expect

from densityd.client import Client
from tabular.source import mend_names
from tests.browsers import needs_chromium, watched_page
from tests.e2e.test_up import EXAMPLES, Up

PENGUINS = EXAMPLES / "penguins" / "penguins.csv"
SOON_MS = 240_000  # of jobs, on a machine that may be busy
pytestmark = [needs_chromium, pytest.mark.timeout(1800)]  # a busy machine is no fault


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


def test_a_file_becomes_a_model_that_scores_explains_and_draws(page: Page) -> None:
    page.goto("/")
    page.locator("input[type=file]").set_input_files(PENGUINS)
    expect(page.get_by_role("heading", name="penguins", exact=True)).to_be_visible()
    column = page.get_by_label("Column species", exact=True)
    expect(column).to_contain_text("category")
    expect(column.get_by_role("img")).to_contain_text("Adelie")
    page.get_by_role("button", name="Change the type of year", exact=True).click()
    page.get_by_label("Type of year", exact=True).select_option("category")
    column = page.get_by_label("Column year", exact=True)
    column.get_by_role("button", name="Change", exact=True).click()
    expect(column).to_contain_text("category")

    page.get_by_role("link", name="Train a model", exact=True).click()
    page.get_by_label("Name of the model", exact=True).fill("birds")
    page.get_by_text("More options", exact=True).click()
    page.get_by_label("Most passes over the data", exact=True).fill("5")
    page.get_by_role("button", name="Start training", exact=True).click()
    expect(page.get_by_role("link", name="Look at the model", exact=True)).to_be_visible(
        timeout=SOON_MS
    )
    expect(page.locator(".curve canvas")).to_be_visible()
    expect(page.get_by_label("Progress", exact=True)).to_contain_text("Best epoch")

    page.get_by_role("link", name="Look at the model", exact=True).click()
    expect(page.get_by_role("heading", name="birds version 1", exact=True)).to_be_visible()
    expect(page.get_by_role("img", name="Histogram of bill_length_mm", exact=True)).to_be_visible(
        timeout=SOON_MS
    )
    page.get_by_text("Learning curve", exact=True).click()
    expect(page.get_by_role("img", name="Learning curve", exact=True)).to_be_visible(
        timeout=SOON_MS
    )

    page.get_by_role("link", name="Score rows", exact=True).click()
    rows = page.get_by_label("Rows, with a line of names", exact=True)
    expect(rows).to_have_value(re.compile("species,island"))
    header = rows.input_value().splitlines()[0]
    rows.fill(
        f"{header}\nAdelie,Biscoe,39,18,190,3500,male,2007\nEmperor,Dream,60,18,,9,male,2007\n"
    )
    page.get_by_role("button", name="Score these rows", exact=True).click()
    expect(
        page.get_by_role("status").get_by_role("heading", name="2 rows scored", exact=True)
    ).to_be_visible()
    expect(page.get_by_text("1 value unlike those of the training", exact=True)).to_be_visible()
    page.get_by_role("button", name="Explain row 2", exact=True).click()
    expect(page.get_by_label("Explanation", exact=True)).to_contain_text("body_mass_g")

    page.get_by_role("link", name="Sample", exact=True).click()
    page.get_by_label("Rows", exact=True).fill("7")
    page.get_by_role("button", name="Draw rows", exact=True).click()
    expect(page.get_by_text(re.compile("^7 rows that the model drew"))).to_be_visible()
    expect(page.get_by_role("status").filter(has_text="7 rows drawn")).to_be_visible()


@pytest.mark.long  # the one above does so by mouse
def test_the_example_is_trained_and_scored_by_keyboard_alone(page: Page) -> None:
    page.goto("/")
    expect(page.get_by_role("button", name="Try it with an example", exact=True)).to_be_enabled()
    press_until(page, "Try it with an example")
    page.keyboard.press("Enter")
    expect(page.get_by_role("link", name="Look at the model", exact=True)).to_be_visible(
        timeout=SOON_MS
    )
    press_until(page, "Look at the model")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name=re.compile("^penguins version"))).to_be_visible()
    press_until(page, "Score rows")
    page.keyboard.press("Enter")
    expect(page.locator("#rows")).to_have_value(re.compile("Adelie"))
    press_until(page, "Score these rows")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="5 rows scored", exact=True)).to_be_visible()


def test_the_example_of_the_page_is_that_of_the_documentation(up: Up) -> None:
    assert httpx.get(f"{up.url}/static/page/penguins.csv").content == PENGUINS.read_bytes()


def test_a_broken_stream_of_events_continues_where_it_broke(browser: Browser, up: Up) -> None:
    broken: list[str] = []

    def stumble(route: Route) -> None:
        """Cut the stream after some events, once, as a proxy that restarts does."""
        if broken:
            route.continue_()
            return
        events = httpx.get(route.request.url.replace("events?", "events?format=json&")).json()
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
            expect(page.locator(".curve canvas")).to_be_visible(timeout=SOON_MS)
            found = [url.rpartition("=")[2] for url in asked if "/events?" in url]
    assert found == ["0", "3"]


def test_errors_say_what_is_wrong_and_what_to_do(browser: Browser, up: Up, tmp_path: Path) -> None:
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
        expect(page.get_by_role("heading", name="nobody", exact=True)).to_be_visible()
        page.goto("/#/nowhere")
        expect(page.get_by_role("heading", name="Nothing is here", exact=True)).to_be_visible()


def test_rows_to_score_are_read_from_files_as_programs_write_them(browser: Browser, up: Up) -> None:
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


def test_an_unreachable_service_is_said_and_left_behind(browser: Browser, up: Up) -> None:
    with watched_page(browser, up.url, expected=("ERR_",)) as page:
        page.goto("/#/")
        expect(page.get_by_role("heading", name="Newest models", exact=True)).to_be_visible()
        page.context.set_offline(True)
        expect(page.get_by_text("The service cannot be reached. What")).to_be_visible()
        page.context.set_offline(False)
        expect(page.get_by_text("The service cannot be reached. What")).to_be_hidden()


def test_an_alias_is_moved_and_moved_back(page: Page, up: Up, model: str) -> None:
    page.goto(f"/#/models/{model}/2/versions")
    page.get_by_label("because", exact=True).fill("it knows the gaps")
    page.get_by_role("button", name="Set", exact=True).click()
    expect(
        page.get_by_role("status").filter(has_text="production now means version 2")
    ).to_be_visible()
    assert httpx.get(f"{up.url}/v1/models/{model}").json()["aliases"] == {"production": 2}
    versions = page.get_by_role("region", name="Versions", exact=True)
    expect(versions.locator("tbody tr").first).to_contain_text("production")
    page.get_by_role("button", name="Undo", exact=True).click()
    expect(page.get_by_role("button", name="Undo", exact=True)).to_be_hidden()
    page.get_by_text("History of the aliases", exact=True).click()
    history = page.get_by_role("region", name="History of the aliases", exact=True)
    expect(history.locator("tbody tr").last).to_contain_text("it knows the gaps")
    assert httpx.get(f"{up.url}/v1/models/{model}").json()["aliases"] == {}


def test_a_model_is_described_tagged_and_found_by_its_tag(page: Page, model: str) -> None:
    page.goto(f"/#/models/{model}/1/versions")
    page.get_by_role("button", name="Describe or tag the model", exact=True).click()
    page.get_by_label("Description", exact=True).fill("Birds of three islands")
    page.get_by_label("Tags", exact=True).fill("team: polar\nstage: trial")
    page.get_by_role("button", name="Save", exact=True).click()
    expect(page.get_by_text("Birds of three islands", exact=True)).to_be_visible()
    page.goto("/#/models")
    search = page.get_by_role("searchbox")
    search.fill("team:tropical")
    expect(page.get_by_text("0 models", exact=True)).to_be_visible()
    search.fill("team:polar")
    row = page.get_by_role("row").filter(has=page.get_by_role("link", name=model, exact=True))
    expect(row).to_contain_text("stage: trial")
    expect(search).to_be_focused()


@pytest.mark.long  # `tests/workers` has jobs of this kind, the page above those of training
def test_a_whole_table_is_scored_into_a_file(page: Page, model: str) -> None:
    page.goto(f"/#/models/{model}/1/score")
    page.get_by_label("Dataset", exact=True).select_option("table of the pair")
    page.get_by_role("button", name="Start scoring", exact=True).click()
    result = page.get_by_role("button", name="Download the result", exact=True)
    expect(result).to_be_visible(timeout=SOON_MS)
    with page.expect_download() as download:
        result.click()
    header, *lines = download.value.path().read_text().splitlines()
    assert header.endswith("log_prob,quantile")
    assert len(lines) == 344


@pytest.mark.long  # `tests/app/rows` has the notations
def test_rows_in_the_notation_of_their_table_are_shown_and_scored_as_they_are(
    page: Page, up: Up, tmp_path: Path
) -> None:
    file = tmp_path / "sales.csv"
    days = [f"{day:02}.{month:02}.2026" for month in (7, 8, 9) for day in range(1, 29)]
    rows = [f"{day};{place % 7 + 1},{place % 10}5" for place, day in enumerate(2 * days)]
    file.write_text("\n".join(["day;price", *rows]))
    with Client(up.url) as client:
        dataset = client.datasets.upload(file)
        job = client.jobs.train("sales", dataset.id, optimisation={"max_epochs": 2, "seed": 0})
        client.jobs.wait(job.id)
    page.goto(f"/#/datasets/{dataset.id}")
    expect(page.get_by_role("img", name="Histogram of day", exact=True)).to_contain_text("2026-08")
    page.goto("/#/models/sales/1/score")
    expect(page.locator("#rows")).to_have_value(re.compile('01.07.2026,"1,05"'))
    page.get_by_role("button", name="Score these rows", exact=True).click()
    expect(page.get_by_role("heading", name="5 rows scored", exact=True)).to_be_visible()


@pytest.mark.long  # `tests/workers` has jobs of this kind, axe looks at its view
def test_a_formula_is_drawn_and_becomes_a_flow(browser: Browser, up: Up) -> None:
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
    page.get_by_role("button", name="Start", exact=True).click()
    expect(
        page.get_by_role("heading", name="Lower bound of the evidence", exact=True)
    ).to_be_visible(timeout=SOON_MS)
    expect(page.get_by_role("link", name="Look at the model", exact=True)).to_be_visible(
        timeout=SOON_MS
    )


@pytest.mark.long  # `tests/app/jobs` has what a search tells
def test_a_search_shows_what_it_tries(page: Page, up: Up) -> None:
    with Client(up.url) as client:
        dataset = client.datasets.upload(PENGUINS, name="searched")
    page.goto(f"/#/datasets/{dataset.id}/train")
    page.get_by_label("Name of the model", exact=True).fill("searched")
    page.get_by_label("Quality", exact=True).select_option("best")  # it runs until it is cancelled
    page.get_by_text("More options", exact=True).click()
    page.get_by_label("Kind of flow", exact=True).select_option("auto")
    page.get_by_role("button", name="Start training", exact=True).click()
    trials = page.get_by_role("region", name="Trials", exact=True).locator("tbody tr")
    expect(trials.first).to_be_visible(timeout=SOON_MS)
    page.get_by_role("button", name="Cancel", exact=True).click()
    expect(page.get_by_role("button", name="Resume", exact=True)).to_be_visible(timeout=SOON_MS)


@pytest.mark.long  # few rows are pasted in the same way
def test_ten_thousand_pasted_rows_are_scored(page: Page, model: str) -> None:
    header, *lines = PENGUINS.read_text().splitlines()
    page.goto(f"/#/models/{model}/1/score")
    expect(page.locator("#rows")).to_have_value(re.compile("Adelie"))
    paste(page, "\n".join([header, *(lines * 30)[:10_000]]))
    page.get_by_role("button", name="Score these rows", exact=True).click()
    expect(page.get_by_role("heading", name="10,000 rows scored", exact=True)).to_be_visible(
        timeout=SOON_MS
    )
    page.get_by_label("Least likely first", exact=True).check()
    page.get_by_role("button", name=re.compile("Explain row")).first.click()
    expect(page.get_by_label("Explanation", exact=True)).to_contain_text(
        "bill_length_mm", timeout=SOON_MS
    )
    page.get_by_role("button", name="Show more", exact=True).click()
    expect(page.get_by_label("Scored rows", exact=True).locator("tbody tr")).to_have_count(1100)
