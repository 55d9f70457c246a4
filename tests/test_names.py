"""Names that the client, the commands and the web page write themselves are those of the service."""

import re
from pathlib import Path
from typing import Any, get_args

import pytest

from app.plots import plots
from app.scoring import request
from densityd.client import options
from densityd.client.wire import files
from densityd.commands import jobs, models
from densityd.terminal import upload_options
from models_store.job_states import JobState
from tables import columns, formats

PAGE = Path(__file__).parents[1] / "app" / "site" / "static" / "page" / "js"


def on_page(file: str, constant: str) -> str:
    """Return the literal of a constant of the web page, as text."""
    found = re.search(rf"^const {constant} = (.*?);$", (PAGE / file).read_text(), re.M | re.S)
    assert found, f"{file} has no {constant}"
    return found[1]


@pytest.mark.parametrize(
    ("known", "copies"),
    [
        (tuple(plots.PlotKind), [options.PlotKind, models.Kind]),
        (get_args(plots.PlotFormat), [options.PictureFormat]),
        (get_args(plots.PlotTheme), [options.PictureTheme, models.Theme]),
        (get_args(columns.ColumnType), [options.ColumnType, upload_options.TypeName]),
        (get_args(formats.Output), [options.Output]),
        (get_args(request.Space), [options.Space]),
        (tuple(JobState), [options.JobState, jobs.State]),
    ],
)
def test_the_client_and_the_commands_have_the_names(
    known: tuple[str, ...], copies: list[Any]
) -> None:
    assert [get_args(copy) for copy in copies] == [known] * len(copies)


def test_the_client_and_the_page_know_the_suffixes_of_files() -> None:
    media_types = {kind: media_type for media_type, kind in formats.MEDIA_TYPES.items()}
    known = {suffix: media_types[kind] for suffix, kind in formats.SUFFIXES.items()}
    assert known == files.MEDIA_TYPES
    shown = dict(re.findall(r'(\w+): "([^"]+)"', on_page("uploading.js", "TYPES")))
    assert {suffix: shown.get(suffix[1:]) for suffix in known} == known


def test_the_page_offers_all_types_of_columns() -> None:
    assert re.findall(r'"(\w+)"', on_page("dataset.js", "CHOICES")) == list(
        get_args(columns.ColumnType)
    )


def test_the_page_shows_all_plots() -> None:
    shown = re.findall(r'\["([a-z-]+)"', on_page("fit.js", "KINDS"))
    drawn_by_the_page = [plots.PlotKind.MARGINALS]
    assert {*shown, *drawn_by_the_page} == set(plots.PlotKind)
