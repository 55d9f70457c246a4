"""The web page without a mouse: each action by keys alone, and the focus stays near where it was."""

import re
from collections.abc import Callable
from pathlib import Path

import httpx
import numpy as np
import pytest
from playwright.sync_api import Locator, Page, expect

from densityd.client import Client, Optimisation
from tests.browsers import needs_chromium, tab_to
from tests.e2e.test_up import Up
from tests.waiting import wait_until

SOON_MS = 120_000
pytestmark = [needs_chromium, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three columns, of which the last has three values."""
    file = tmp_path_factory.mktemp("keyboard") / "typed.csv"
    rng = np.random.default_rng(0)
    x = rng.uniform(-2, 2, 300)
    rows = np.column_stack([x, x**2 + rng.normal(size=300), rng.integers(0, 3, 300)])
    np.savetxt(file, rows, delimiter=",", header="x,y,kind", comments="", fmt="%.6g")
    return file


@pytest.fixture(scope="module")
def model(up: Up, table: Path) -> str:
    """Two versions of y given x."""
    options: Optimisation = {"max_epochs": 2, "seed": 0}
    with Client(up.url) as client:
        dataset = client.datasets.upload(table, name="table of the keyboard")
        for _ in range(2):
            job = client.jobs.train(
                "keyboard",
                dataset.id,
                columns=["y"],
                context_columns=["x"],
                flow={"family": "made"},
                optimisation=options,
            )
            client.jobs.wait(job.id)
    return "keyboard"


def press(page: Page, target: Locator, key: str = "Enter") -> None:
    tab_to(page, target)
    page.keyboard.press(key)


def write(page: Page, target: Locator, text: str) -> None:
    tab_to(page, target)
    page.keyboard.press("ControlOrMeta+a")
    page.keyboard.type(text)


def choose(page: Page, target: Locator, value: str) -> None:
    """Choose from a list by the beginning of the name of a choice."""
    tab_to(page, target)
    page.keyboard.type(value)
    expect(target.locator("option:checked")).to_have_text(re.compile(f"^{value}"))


@pytest.mark.long
def test_a_type_is_corrected_and_a_question_answered_by_keys(
    page: Page, up: Up, table: Path
) -> None:
    with Client(up.url) as client:
        dataset = client.datasets.upload(table)
    page.goto(f"/#/datasets/{dataset.id}")
    delete = page.get_by_role("button", name="Delete", exact=True)
    press(page, delete)
    expect(page.get_by_role("button", name="Yes, delete")).to_be_focused()
    page.keyboard.press("Escape")
    expect(delete).to_be_focused()
    column = page.get_by_label("Column y", exact=True)
    change = page.get_by_role("button", name="Change the type of y")
    press(page, change)
    expect(page.get_by_label("Type of y")).to_be_focused()
    page.keyboard.type("ignored")
    press(page, column.get_by_role("button", name="Change", exact=True))
    expect(column).to_contain_text("ignored")
    expect(change).to_be_focused()


@pytest.mark.long
def test_a_file_becomes_a_search_that_is_cancelled_by_keys(page: Page, table: Path) -> None:
    page.goto("/#/datasets")
    choose_file = page.get_by_role("button", name="Choose a file")
    with page.expect_file_chooser() as chooser:
        press(page, choose_file)
    chooser.value.set_files(table)
    expect(page.get_by_role("heading", name="typed", exact=True)).to_be_visible(timeout=SOON_MS)
    press(page, page.get_by_role("link", name="Train a model"))
    write(page, page.get_by_label("Name of the model"), "searched-by-keys")
    press(page, page.get_by_text("More options"))
    choose(page, page.get_by_label("Kind of flow"), "The best of many")
    write(page, page.get_by_label("Most minutes of training"), "0.1")
    press(page, page.get_by_role("button", name="Start training"))
    expect(page.get_by_role("region", name="Trials").locator("tbody tr").first).to_be_visible(
        timeout=SOON_MS
    )
    press(page, page.get_by_role("button", name="Cancel", exact=True))
    expect(page.get_by_role("button", name="Resume", exact=True)).to_be_visible(timeout=SOON_MS)
    assert page.evaluate("document.activeElement !== document.body")
    press(page, page.get_by_role("button", name="Resume", exact=True))
    press(page, page.get_by_role("button", name="Cancel", exact=True))
    expect(page.get_by_role("button", name="Resume", exact=True)).to_be_visible(timeout=SOON_MS)
    press(page, page.get_by_role("button", name="Delete", exact=True))
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Jobs", exact=True)).to_be_visible()


@pytest.mark.long
def test_an_alias_is_moved_and_moved_back_by_keys(page: Page, up: Up, model: str) -> None:
    page.goto(f"/#/models/{model}/2/versions")
    write(page, page.get_by_label("mean version"), "1")
    write(page, page.get_by_label("because"), "it is older")
    press(page, page.get_by_role("button", name="Set", exact=True))
    moved = page.get_by_role("status").filter(has_text="production now means version 1")
    expect(moved).to_be_visible()
    assert httpx.get(f"{up.url}/v1/models/{model}").json()["aliases"] == {"production": 1}
    press(page, page.get_by_role("button", name="Undo"))
    expect(page.get_by_role("button", name="Undo")).to_be_hidden()
    assert page.evaluate("document.activeElement !== document.body")
    assert httpx.get(f"{up.url}/v1/models/{model}").json()["aliases"] == {}
    press(page, page.get_by_text("History of the aliases"))
    expect(page.get_by_role("region", name="History of the aliases")).to_contain_text("older")


@pytest.mark.long
def test_a_version_is_described_and_compared_by_keys(page: Page, model: str) -> None:
    page.goto(f"/#/models/{model}/1/versions")
    describe = page.get_by_role("button", name="Describe or tag the version")
    press(page, describe)
    expect(page.get_by_label("Description")).to_be_focused()
    page.keyboard.type("Written by keys")
    write(page, page.get_by_label("Tags"), "hand: left")
    press(page, page.get_by_role("button", name="Save", exact=True))
    expect(page.get_by_text("Written by keys")).to_be_visible()
    expect(page.get_by_role("button", name="Change description and tags")).to_be_focused()
    for number in (1, 2):
        press(page, page.get_by_label(f"Compare version {number}"), "Space")
    press(page, page.get_by_role("link", name="Compare 2"))
    expect(page.get_by_role("heading", name=f"Versions of {model}")).to_be_visible()
    press(page, page.get_by_label("Show also what is equal"), "Space")
    table = page.get_by_role("region", name="Versions side by side")
    expect(table.get_by_role("columnheader")).to_have_count(3)
    expect(table).to_contain_text("flow.hidden")


@pytest.mark.long
def test_rows_are_scored_and_drawn_for_given_values_by_keys(page: Page, model: str) -> None:
    page.goto(f"/#/models/{model}/1/score")
    rows = page.get_by_label("Rows, with a line of names")
    expect(rows).to_have_value(re.compile("y,x"))
    write(page, rows, "x,y\n1,1\n1,9\n")
    press(page, page.get_by_role("button", name="Score these rows"))
    expect(page.get_by_role("heading", name="2 rows scored")).to_be_visible()
    with page.expect_download() as scores:
        press(page, page.get_by_label("Scores").get_by_role("button", name="Download as CSV"))
    assert len(scores.value.path().read_text().splitlines()) == 3

    press(page, page.get_by_role("link", name="Sample", exact=True))
    write(page, page.get_by_label("Rows", exact=True), "7")
    write(page, page.get_by_label("Given x"), "1.5")
    press(page, page.get_by_role("button", name="Draw rows"))
    expect(page.get_by_role("status").filter(has_text="7 rows drawn")).to_be_visible()
    with page.expect_download() as samples:
        press(page, page.get_by_role("button", name="Download as CSV"))
    assert len(samples.value.path().read_text().splitlines()) == 8

    press(page, page.get_by_role("link", name="Facts", exact=True))
    with page.expect_download() as weights:
        press(page, page.get_by_role("button", name="Download the weights"))
    assert weights.value.suggested_filename == f"{model}-1.safetensors"


@pytest.mark.long
def test_a_table_is_scored_into_a_file_by_keys(page: Page, model: str) -> None:
    page.goto(f"/#/models/{model}/1/score")
    choose(page, page.get_by_label("Dataset"), "table of the keyboard")
    press(page, page.get_by_role("button", name="Start scoring"))
    result = page.get_by_role("button", name="Download the result")
    expect(result).to_be_visible(timeout=SOON_MS)
    with page.expect_download() as download:
        press(page, result)
    assert len(download.value.path().read_text().splitlines()) == 301


@pytest.mark.long
def test_a_formula_becomes_a_curve_that_is_zoomed_by_keys(page: Page) -> None:
    page.goto("/#/jobs/variational")
    write(page, page.get_by_label("Name of the model"), "bent-by-keys")
    write(page, page.get_by_label("Log density"), "-z1^2 - (z2 - z1)^2")
    write(page, page.get_by_label("Steps"), "60")
    press(page, page.get_by_role("button", name="Start", exact=True))
    expect(page.get_by_role("link", name="Look at the model")).to_be_visible(timeout=SOON_MS)
    curve = page.get_by_role("img", name="Learning curve")
    tab_to(page, curve)
    whole = curve.screenshot()
    page.keyboard.press("+")
    wait_for_plot(curve, lambda seen: seen != whole)
    page.keyboard.press("0")
    wait_for_plot(curve, lambda seen: seen == whole)

    press(page, page.get_by_role("link", name="Look at the model"))
    plane = page.get_by_role("img", name=re.compile("z2 against z1"))
    tab_to(page, plane)
    shown = plane.screenshot()
    for key in ("+", "ArrowLeft"):
        page.keyboard.press(key)
        wait_for_plot(plane, lambda seen: seen != shown)
    page.keyboard.press("0")
    wait_for_plot(plane, lambda seen: seen == shown)
    press(page, page.get_by_role("button", name="Zoom in"))
    wait_for_plot(plane, lambda seen: seen != shown)


def wait_for_plot(plot: Locator, is_wanted: Callable[[bytes], bool]) -> None:
    wait_until(lambda: is_wanted(plot.screenshot()))
