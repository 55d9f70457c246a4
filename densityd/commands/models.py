"""``densityd export``, ``import`` and ``alias``."""

from pathlib import Path
from typing import Annotated

import typer

from densityd.commands.options import AsJson, ModelName, ModelRef, Url
from densityd.terminal import echo_json, echo_table, service

_SUFFIXES = (".safetensors", ".onnx")


def export(
    model: ModelRef,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="File to write: .safetensors for the whole version, .onnx for its log density.",
            show_default="NAME-VERSION.safetensors",
        ),
    ] = None,
    url: Url = None,
) -> None:
    """Download a version as one file, and print its path.

    A .safetensors file has the weights, the spec, the metrics, the calibration, the learning curve and
    the labels; `densityd import` restores them, here or on another service. An .onnx file computes the
    log density of raw rows by itself.

    Examples: densityd export claims:2; densityd export claims@production -o best.safetensors;
    densityd export claims -o claims.onnx
    """
    if output is not None and output.suffix.lower() not in _SUFFIXES:
        raise typer.BadParameter(f"{output}: the name must end in {' or '.join(_SUFFIXES)}.")
    with service(url) as client:
        version = client.models.find(model)
        target = output or Path(f"{version.name}-{version.version}.safetensors")
        as_onnx = target.suffix.lower() == ".onnx"
        write = client.models.export_onnx if as_onnx else client.models.export
        write(version.name, version.version, target)
        typer.echo(target)


def import_(
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE", dir_okay=False, exists=True, help="File that `densityd export` wrote."
        ),
    ],
    model: ModelName,
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """Import a file as the next version of a model, and print its reference.

    Example: densityd import claims-2.safetensors --model claims
    """
    with service(url) as client:
        version = client.models.upload(model, file)
        return echo_json(version.model_dump(mode="json")) if as_json else typer.echo(version.ref)


def alias(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the model.")],
    label: Annotated[
        str | None,
        typer.Argument(metavar="ALIAS", help="Alias, such as production.", show_default="list all"),
    ] = None,
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
    """Promote a version: show, move or delete an alias; requests by the alias follow at once.

    Without ALIAS, the aliases of the model and their history.

    Examples: densityd alias claims production 2 --reason "fewer false alarms";
    densityd alias claims; densityd alias claims staging --delete
    """
    if delete and (version is not None or label is None):
        raise typer.BadParameter("--delete goes with ALIAS, without VERSION.")
    if reason is not None and version is None:
        raise typer.BadParameter("--reason goes with VERSION.")
    with service(url) as client:
        if label is None:
            changes = list(client.models.alias_changes(name))
            if as_json:
                return echo_json([one.model_dump(mode="json") for one in changes])
            header = ("ALIAS", "VERSION", "REASON", "TIME")
            rows = [
                (one.alias, one.version or "deleted", one.reason, one.created_at) for one in changes
            ]
            return echo_table(header, rows)
        if delete:
            return client.models.delete_alias(name, label)
        if version is None:
            found = client.models.alias(name, label)
        else:
            found = client.models.set_alias(name, label, version, reason=reason)
        if as_json:
            return echo_json(found.model_dump(mode="json"))
        return typer.echo(f"{found.name}:{found.version}")
