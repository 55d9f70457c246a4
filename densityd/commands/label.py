"""``densityd label``: description and tags of anything on the service."""

from typing import TYPE_CHECKING, Annotated

import typer

from densityd.commands.models import find_version
from densityd.terminal.console import echo_facts, echo_record, service
from densityd.terminal.options import AsJson, Url, parse_new_tags

if TYPE_CHECKING:
    from densityd.client import Client, Dataset, Job, Labels, Model, Version


def label(
    target: Annotated[
        str,
        typer.Argument(
            metavar="TARGET",
            help="Id of a dataset or a job, NAME of a model, or NAME:VERSION or NAME@ALIAS of a version.",
        ),
    ],
    tags: Annotated[
        list[str] | None,
        typer.Argument(metavar="[NAME=VALUE]...", help="Tags to set.", show_default=False),
    ] = None,
    remove: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Tag to remove. Repeatable.")
    ] = None,
    description: Annotated[str | None, typer.Option(help='New description; "" removes it.')] = None,
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """Describe and tag a dataset, a job, a model or a version, and print its labels.

    Examples: densityd label ds_0f3c5f4e7d0c4d5b9b8f1e2a3c4d5e6f team=space;
    densityd label shuttle:2 stage=trial --description "First trial";
    densityd label shuttle --remove stage
    """
    labels: Labels = {"tags": {**parse_new_tags(tags), **dict.fromkeys(remove or ())}}
    if description is not None:
        labels["description"] = description or None
    with service(url) as client:
        changed = _change(client, target, labels)
        if as_json:
            return echo_record(changed)
        return echo_facts([("description", changed.description), *sorted(changed.tags.items())])


def _change(client: "Client", target: str, labels: "Labels") -> "Dataset | Job | Model | Version":
    if target.startswith("ds_"):
        return client.datasets.update(target, **labels)
    if target.startswith("job_"):
        return client.jobs.update(target, **labels)
    if ":" in target or "@" in target:
        found = find_version(client, target)
        return client.models.update_version(found.name, found.version, **labels)
    return client.models.update(target, **labels)
