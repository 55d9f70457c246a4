"""Options that several commands share, and values written as ``NAME=VALUE``."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import typer

Url = Annotated[
    str | None,
    typer.Option(
        "--url",
        envvar="DENSITYD_URL",
        show_envvar=True,
        show_default="http://127.0.0.1:8000",
        help="URL of the service.",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
ModelName = Annotated[str, typer.Option(help="Model that gets a new version.")]
ModelRef = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help="NAME (its alias production, else its newest version), NAME@ALIAS or NAME:VERSION.",
    ),
]
Output = Annotated[
    Path,
    typer.Option(
        "--output",
        "-o",
        help="File to write; the suffix of its name is its format: .csv, .npy, .parquet, .arrows,"
        " .ndjson or .json. `-` is CSV on standard output.",
    ),
]
STANDARD_OUTPUT = STANDARD_INPUT = Path("-")


def check_dataset_id(given: str | None) -> str | None:
    """Return the id of a dataset as it is given, which may be none.

    Raises:
        typer.BadParameter: It is something else, such as the name of a dataset.
    """
    if given is not None and not given.startswith("ds_"):
        raise typer.BadParameter(
            f"{given!r} is no id of a dataset, ds_...; `densityd list datasets` prints the ids."
        )
    return given


def split_pair(text: str) -> tuple[str, str]:
    """Return the name and the value of `NAME=VALUE`.

    Raises:
        typer.BadParameter: The text is something else.
    """
    name, sign, value = text.partition("=")
    if not name or not sign:
        raise typer.BadParameter(f"{text}: write NAME=VALUE.")
    return name.strip(), value.strip()


def parse_value(text: str) -> Any:  # noqa: ANN401 - JSON
    """Return a value that is written as JSON, or else the text."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def parse_values(texts: Iterable[str] | None) -> dict[str, Any] | None:
    """Return values by name, JSON or else text; None if there are none."""
    return {name: parse_value(value) for name, value in map(split_pair, texts or ())} or None
