"""``densityd models``: the trained models on the service."""

import json
from itertools import islice
from operator import attrgetter
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Literal, get_args

import typer

from densityd.terminal.console import (
    FAILED,
    confirm,
    echo_facts,
    echo_json,
    echo_record,
    echo_records,
    echo_table,
    fail,
    service,
)
from densityd.terminal.options import (
    AsJson,
    Limit,
    ModelName,
    OldestFirst,
    Prefix,
    Tag,
    Url,
    Yes,
    collect_filters,
)

if TYPE_CHECKING:
    from densityd.client import Client, Version

app = typer.Typer(
    help="Trained models on the service.", no_args_is_help=True, rich_markup_mode=None
)
Name = Annotated[str, typer.Argument(metavar="NAME", help="Name of the model.")]
Kind = Literal["learning-curve", "marginals", "pairs", "density", "noise", "images"]
Theme = Literal["light", "dark"]
_IMAGES: dict[str, Literal["png", "svg"]] = {".png": "png", ".svg": "svg"}
_LIKELIHOOD = "VALIDATION LOG-LIKELIHOOD"
Ref = Annotated[str, typer.Argument(metavar="MODEL", help="NAME, NAME@ALIAS or NAME:VERSION.")]


@app.command("list")
def list_models(
    tag: Tag = None,
    prefix: Prefix = None,
    oldest_first: OldestFirst = False,
    limit: Limit = 50,
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """List models, with the likelihood that decided which weights their newest versions keep.

    Examples: densityd models list; densityd models list --tag stage=trial --prefix shuttle
    """
    filters = collect_filters(tag=tag, prefix=prefix, oldest_first=oldest_first)
    with service(url) as client:
        found = list(islice(client.models.list(**filters), limit))
        if as_json:
            return echo_records(found)
        rows = [
            (
                one.name,
                one.latest_version,
                one.latest and one.latest.metrics.get("best_robust_validation_log_likelihood"),
                _format_aliases(one.aliases),
                one.created_at,
            )
            for one in found
        ]
        header = ("NAME", "NEWEST", _LIKELIHOOD, "ALIASES", "CREATED")
        return echo_table(header, rows)


@app.command()
def show(ref: Ref, url: Url = None, as_json: AsJson = False) -> None:
    """Show a model and its versions, or a version.

    Examples: densityd models show shuttle; densityd models show shuttle:2 --json
    """
    with service(url) as client:
        if ":" in ref or "@" in ref:
            version = find_version(client, ref)
            return echo_record(version) if as_json else _echo_version(version)
        model = client.models.get(ref)
        versions = list(client.models.versions(ref))
        if as_json:
            listed = [version.model_dump(mode="json") for version in versions]
            return echo_json({**model.model_dump(mode="json"), "versions": listed})
        echo_facts([("name", model.name), ("aliases", _format_aliases(model.aliases))])
        typer.echo()
        fields = attrgetter("version", "family", "dim", "parameters")
        header = ("VERSION", "FAMILY", "COLUMNS", "PARAMETERS", _LIKELIHOOD, "CREATED")
        rows = [
            (*fields(one), one.metrics.get("best_robust_validation_log_likelihood"), one.created_at)
            for one in versions
        ]
        return echo_table(header, rows)


@app.command()
def alias(
    name: Name,
    label: Annotated[str, typer.Argument(metavar="ALIAS", help="Label, such as production.")],
    version: Annotated[
        int | None,
        typer.Argument(
            metavar="VERSION",
            min=1,
            help="Version to point it at.",
            show_default="show its version",
        ),
    ] = None,
    reason: Annotated[
        str | None,
        typer.Option("--reason", help="Reason, which stays in the history.", show_default=False),
    ] = None,
    delete: Annotated[bool, typer.Option("--delete", help="Delete the alias.")] = False,
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """Show, move or delete an alias; requests by the alias follow at once.

    Examples: densityd models alias shuttle production 2 --reason "fewer false alarms";
    densityd models alias shuttle staging --delete
    """
    if delete and version is not None:
        raise typer.BadParameter("give either VERSION or --delete.")
    with service(url) as client:
        if delete:
            return client.models.delete_alias(name, label)
        if version is None:
            found = client.models.alias(name, label)
        else:
            found = client.models.set_alias(name, label, version, reason=reason)
        return echo_record(found) if as_json else typer.echo(f"{found.name}:{found.version}")


@app.command()
def history(name: Name, url: Url = None, as_json: AsJson = False) -> None:
    """List the moves and deletions of the aliases of a model, with their reasons.

    Example: densityd models history shuttle
    """
    with service(url) as client:
        changes = list(client.models.alias_changes(name))
    if as_json:
        return echo_records(changes)
    header = ("alias", "version", "reason", "time")
    rows = [(one.alias, one.version or "deleted", one.reason, one.created_at) for one in changes]
    return echo_table(header, rows)


@app.command()
def export(
    ref: Ref,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="File to write.", show_default="NAME-VERSION.FORMAT"),
    ] = None,
    form: Annotated[
        Literal["safetensors", "onnx"],
        typer.Option("--format", help="Whole version, or its log density as an ONNX model."),
    ] = "safetensors",
    url: Url = None,
) -> None:
    """Download a version as one file, and print its path.

    A safetensors file has the weights, the spec, the metrics, the calibration, the learning curve and
    the labels; import restores them. An ONNX model computes the log density of raw rows by itself.

    Examples: densityd models export shuttle:2; densityd models export shuttle -o best.safetensors;
    densityd models export shuttle --format onnx
    """
    with service(url) as client:
        version = find_version(client, ref)
        target = output or Path(f"{version.name}-{version.version}.{form}")
        export = client.models.export_onnx if form == "onnx" else client.models.export
        export(version.name, version.version, target)
        typer.echo(target)


@app.command()
def copy(
    ref: Ref,
    to: Annotated[str, typer.Option(metavar="URL", help="URL of the other service.")],
    model: Annotated[
        str | None, typer.Option(help="Name of the model there.", show_default="the same")
    ] = None,
    to_key: Annotated[
        str | None,
        typer.Option(
            envvar="DENSITYD_TO_API_KEY", help="API key of the other service.", show_default=False
        ),
    ] = None,
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """Copy a version to another service, where it is the next one of its model; print that.

    Example: densityd models copy shuttle@staging --to https://density.example.org
    """
    with service(url) as client, TemporaryDirectory() as folder:
        version = find_version(client, ref)
        file = Path(folder) / "version.safetensors"
        client.models.export(version.name, version.version, file)
        with service(to, api_key=to_key) as other:
            copied = other.models.upload(model or version.name, file)
        return echo_record(copied) if as_json else typer.echo(f"{copied.name}:{copied.version}")


@app.command()
def plot(
    ref: Ref,
    kind: Annotated[
        Kind, typer.Argument(metavar="KIND", help=f"Kind of plot: {', '.join(get_args(Kind))}.")
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="File to write; its name ends in .png or .svg.",
            show_default="NAME-VERSION-KIND.png",
        ),
    ] = None,
    theme: Annotated[
        Theme, typer.Option(help="Colour scheme: dark text on white, or light text on black.")
    ] = "light",
    url: Url = None,
) -> None:
    """Download a plot of a version, and print its path.

    Examples: densityd models plot shuttle marginals;
    densityd models plot shuttle:2 learning-curve -o curve.svg
    """
    with service(url) as client:
        suffix = ".png" if output is None else output.suffix.lower()
        if suffix not in _IMAGES:
            raise typer.BadParameter(f"{output}: the name must end in {' or '.join(_IMAGES)}.")
        version = find_version(client, ref)
        target = output or Path(f"{version.name}-{version.version}-{kind}{suffix}")
        image = client.models.plot(
            version.name, version.version, kind, format=_IMAGES[suffix], theme=theme
        )
        target.write_bytes(image)
        typer.echo(target)


@app.command("import")
def import_(
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE",
            dir_okay=False,
            exists=True,
            help="File that `densityd models export` wrote.",
        ),
    ],
    model: ModelName,
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """Import a file as the next version of a model, and print its reference.

    Example: densityd models import shuttle-2.safetensors --model shuttle
    """
    with service(url) as client:
        version = client.models.upload(model, file)
        if as_json:
            return echo_record(version)
        return typer.echo(f"{version.name}:{version.version}")


@app.command()
def delete(
    ref: Annotated[str, typer.Argument(metavar="MODEL", help="NAME or NAME:VERSION.")],
    yes: Yes = False,
    url: Url = None,
) -> None:
    """Delete a version, or with a name alone all versions of a model.

    What an alias points at, or an unfinished job uses, is not deleted. Numbers of versions are never
    used again.

    Examples: densityd models delete shuttle:1; densityd models delete shuttle --yes
    """
    if "@" in ref:
        raise typer.BadParameter("give NAME or NAME:VERSION; an alias has `models alias --delete`.")
    with service(url) as client:
        if ":" in ref:
            found = find_version(client, ref)
            confirm(f"Delete version {ref}?", yes=yes)
            return client.models.delete_version(found.name, found.version)
        count = sum(1 for _ in client.models.versions(ref))
        confirm(f"Delete model {ref} with its {count} versions?", yes=yes)
        return client.models.delete(ref)


def find_version(client: "Client", ref: str) -> "Version":
    """Return the version that a reference names."""
    name, colon, number = ref.partition(":")
    if colon:
        if not (number.isascii() and number.isdecimal()):
            fail(f"{ref}: a version is a number, as in {name}:1.", status=FAILED)
        return client.models.version(name, int(number))
    name, at, label = ref.partition("@")
    if at:
        return client.models.version(name, client.models.alias(name, label).version)
    model = client.models.get(name)
    return client.models.version(name, model.aliases.get("production", model.latest_version))


def _echo_version(version: "Version") -> None:
    echo_facts(
        [
            ("model", f"{version.name}:{version.version}"),
            ("aliases", ", ".join(version.aliases) or None),
            ("family", version.family),
            ("flow", json.dumps(version.flow)),
            ("preprocessing", json.dumps(version.preprocessing)),
            ("columns", ", ".join(version.columns)),
            ("context", ", ".join(version.context_columns) or None),
            ("parameters", version.parameters),
            ("checkpoint", f"{version.checkpoint.bytes} bytes, sha256 {version.checkpoint.sha256}"),
            ("job", version.lineage.job_id),
            ("dataset", version.lineage.dataset_id),
            ("created", version.created_at),
        ]
    )
    typer.echo("\nmetrics")
    numbers = [(f"  {name}", value) for name, value in version.metrics.items()]
    if numbers:
        echo_facts(numbers)


def _format_aliases(aliases: dict[str, int]) -> str | None:
    return ", ".join(f"{label} -> {version}" for label, version in aliases.items()) or None
