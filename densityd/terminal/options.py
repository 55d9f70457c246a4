"""Options that several commands share, and values written as ``NAME=VALUE``."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast

import typer

if TYPE_CHECKING:
    from densityd.client import NamedFilters
    from densityd.client.targets import Range

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
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Delete without asking.")]
Limit = Annotated[int, typer.Option(min=1, help="Maximum number of entries to list.")]
Tag = Annotated[
    list[str] | None,
    typer.Option(metavar="NAME[=VALUE]", help="Tag of the entries to list. Repeatable."),
]
Prefix = Annotated[str | None, typer.Option(help="Beginning of the names to list.")]
OldestFirst = Annotated[bool, typer.Option("--oldest-first", help="List the oldest entries first.")]
Wait = Annotated[
    bool,
    typer.Option("--wait/--no-wait", help="Wait until the job has ended, or print its id at once."),
]
Family = Annotated[
    str | None,
    typer.Option(
        "--flow",
        metavar="FAMILY",
        help="Family of the flow, such as maf or nsf; of `train` also `auto`, which tries several.",
    ),
]
Fields = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="FIELD=VALUE",
        help="Field of the flow, or with a dot of another section of the request:"
        " optimisation.patience=10. Values are JSON. Repeatable.",
    ),
]
MaxSeconds = Annotated[
    float | None,
    typer.Option(
        min=0.001, help="Maximum training time in seconds; the best model so far is kept."
    ),
]
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
Extra = Annotated[
    Literal["error", "ignore"] | None,
    typer.Option(
        help="Refuse rows with columns that the model does not have, or ignore the columns.",
        show_default="error if the table of the model had no other columns",
    ),
]
_SECTIONS = ("flow", "discrete", "optimisation", "preprocessing", "split")


def check_dataset_id(given: str | None) -> str | None:
    """Return the id of a dataset as it is given, which may be none.

    Raises:
        typer.BadParameter: It is something else, such as the name of a dataset.
    """
    if given is not None and not given.startswith("ds_"):
        raise typer.BadParameter(
            f"{given!r} is no id of a dataset, ds_...; `densityd datasets list` prints the ids."
        )
    return given


def build_request(
    fields: Iterable[str], *, family: str | None, max_seconds: float | None = None
) -> dict[str, Any]:
    """Return the sections of a training request that ``--set`` and its like give.

    Args:
        fields: `layers=5` for a field of the flow; with a dot, `optimisation.patience=10`, for one
            of another section. Values are JSON, or else text.
        family: Family of the flow.
        max_seconds: Most seconds of training.

    Raises:
        typer.BadParameter: A text is not `name=value`, or there are fields of a flow without its
            family.
    """
    request: dict[str, Any] = {}
    for text in fields:
        path, value = _split(text)
        names = path.split(".")
        if names[0] not in _SECTIONS:
            names.insert(0, "flow")
        if len(names) == 1 or not all(names):
            raise typer.BadParameter(f"{text}: write FIELD=VALUE or {names[0]}.FIELD=VALUE.")
        _put(request, names, _parse(value), text=text)
    if family is not None:
        request.setdefault("flow", {})["family"] = family
    if "flow" in request and "family" not in request["flow"]:
        name = next(iter(request["flow"]))
        raise typer.BadParameter(f"{name} is a field of a flow: name the family too, --flow maf.")
    if max_seconds is not None:
        request.setdefault("optimisation", {})["max_seconds"] = max_seconds
    return request


def parse_ranges(texts: Iterable[str]) -> dict[str, "Range"]:
    """Return the ranges of a sweep that are given as FIELD=LOW:HIGH[:log] or FIELD=VALUES.

    Raises:
        typer.BadParameter: A text is neither.
    """
    ranges = {}
    for text in texts:
        path, value = _split(text)
        is_field = path == "flow" or path.split(".")[0] in _SECTIONS
        ranges[path if is_field else f"flow.{path}"] = _parse_range(value)
    return ranges


def _parse_range(value: str) -> "Range":
    listed = _parse(value)
    if isinstance(listed, list):
        return {"values": listed}
    low, colon, rest = value.partition(":")
    if not colon:
        return {"values": [_parse(one.strip()) for one in value.split(",")]}
    high, _, scale = rest.partition(":")
    found = {"low": _parse(low), "high": _parse(high), **({"scale": scale} if scale else {})}
    if not all(isinstance(found[name], int | float) for name in ("low", "high")):
        raise typer.BadParameter(f"{value}: write LOW:HIGH, LOW:HIGH:log, or a list of values.")
    return cast("Range", found)


def parse_context(texts: Iterable[str]) -> dict[str, object] | None:
    """Return the values of context columns by name, JSON or else text; None if there are none.

    Raises:
        typer.BadParameter: A text is not `name=value`.
    """
    return {name: _parse(value) for name, value in map(_split, texts)} or None


def _split(text: str) -> tuple[str, str]:
    name, sign, value = text.partition("=")
    if not name or not sign:
        raise typer.BadParameter(f"{text}: write NAME=VALUE.")
    return name.strip(), value.strip()


def _parse(value: str) -> object:
    try:
        return json.loads(value)
    except ValueError:
        return value


def _put(request: dict[str, Any], names: list[str], value: object, *, text: str) -> None:
    place = request
    for name in names[:-1]:
        place = place.setdefault(name, {})
        if not isinstance(place, dict):
            raise typer.BadParameter(f"{text}: {name} has a value of its own already.")
    place[names[-1]] = value


def parse_tags(tags: list[str] | None) -> dict[str, str | None]:
    """Return tags that are given as NAME=VALUE; those without a value have None."""
    split = (tag.partition("=") for tag in tags or ())
    return {name: value if equals else None for name, equals, value in split}


def parse_new_tags(tags: list[str] | None) -> dict[str, str]:
    """Return tags that are given as NAME=VALUE.

    Raises:
        typer.BadParameter: A tag has no value.
    """
    parsed = parse_tags(tags)
    given = {name: value for name, value in parsed.items() if value is not None}
    if len(given) < len(parsed):
        raise typer.BadParameter("a tag is NAME=VALUE.")
    return given


def collect_filters(
    *, tag: list[str] | None, prefix: str | None = None, oldest_first: bool
) -> "NamedFilters":
    """Return the filters that the options of a list ask for."""
    filters: NamedFilters = {"order": "asc" if oldest_first else "desc", "tags": parse_tags(tag)}
    if prefix is not None:
        filters["name_prefix"] = prefix
    return filters
