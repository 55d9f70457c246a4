"""``densityd train`` and ``densityd demo``."""

import hashlib
import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from densityd.commands.options import AsJson, ModelName, Url, check_dataset_id
from densityd.terminal import (
    echo_outcome,
    echo_table,
    format_value,
    note,
    service,
    tell_dataset,
    wait_for,
)

if TYPE_CHECKING:
    from densityd.client import Client, Dataset

_TABLE = "static/page/penguins.csv"


def train(
    file: Annotated[
        Path | None,
        typer.Argument(
            metavar="FILE", dir_okay=False, exists=True, help="Table to upload and train on."
        ),
    ] = None,
    *,
    model: ModelName,
    dataset: Annotated[
        str | None,
        typer.Option(
            metavar="ID", help="Dataset to train on, instead of a file.", callback=check_dataset_id
        ),
    ] = None,
    options: Annotated[
        list[str] | None,
        typer.Option(
            "--option",
            "-o",
            metavar="NAME=VALUE",
            help="Option of the upload, such as types.zip=category, exclude=id, na_values=-999,"
            " decimal=, or missing=drop. Repeatable.",
        ),
    ] = None,
    flow: Annotated[
        str | None,
        typer.Option(
            metavar="FAMILY",
            help="Family of the flow, such as maf or nsf; auto tries several.",
            show_default="one that suits the data",
        ),
    ] = None,
    fields: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="FIELD=VALUE",
            help="Field of the flow (layers=5), or of another part of the request"
            " (optimisation.patience=10, tags.team=space). Values are JSON. Repeatable.",
        ),
    ] = None,
    columns: Annotated[
        list[str] | None,
        typer.Option(
            "--column", metavar="NAME", help="Column to model. Repeatable.", show_default="all"
        ),
    ] = None,
    context: Annotated[
        list[str] | None,
        typer.Option(
            "--context-column", metavar="NAME", help="Column that the density is given. Repeatable."
        ),
    ] = None,
    missing: Annotated[
        Literal["observed", "any"] | None,
        typer.Option(
            help="Train for values that are missing where the table lacks some, or for any: then every"
            " row can be scored, and every column explained.",
            show_default="observed",
        ),
    ] = None,
    quality: Annotated[
        Literal["fast", "balanced", "best"] | None,
        typer.Option(
            help="Quarter of the epochs, the default, or four times as many.",
            show_default="balanced",
        ),
    ] = None,
    max_seconds: Annotated[
        float | None,
        typer.Option(min=0.001, help="Maximum training time; the best model so far is kept."),
    ] = None,
    wait: Annotated[
        bool, typer.Option("--wait/--no-wait", help="Wait until the training has ended.")
    ] = True,
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """Upload a table and train a model on it; options that are left out are chosen from the data.

    All options are checked before anything is sent. The same file with the same options is uploaded
    once a day.

    Prints the model's reference, NAME:VERSION, and its test log-likelihood. The types of the columns,
    warnings and the result go to standard error too. Ctrl-C ends the wait, not the training.

    Examples: densityd train claims.csv --model claims;
    densityd train claims.csv --model claims -o types.zip=category -o exclude=id --missing any;
    densityd train preise.csv --model preise -o decimal=, -o datetime_format=%d.%m.%Y;
    densityd train claims.csv --model claims --flow maf --set layers=5 --set 'hidden=[128]';
    densityd train claims.csv --model claims --flow auto --quality best --max-seconds 3600;
    densityd train --dataset ds_0f3c... --model claims --set tags.stage=trial --no-wait
    """
    if (file is None) == (dataset is None):
        raise typer.BadParameter("give either FILE or --dataset ID.")
    if file is None and options:
        raise typer.BadParameter(
            "-o says how a FILE is read; `densityd call PATCH /v1/datasets/ID` changes types."
        )
    from densityd.commands import checks  # noqa: PLC0415 - it takes some time, and help none

    given = {
        "model_name": model,
        "columns": columns or None,
        "context_columns": context or None,
        "missing": missing,
        "quality": quality,
        "flow": None if flow is None else {"family": flow},
        "optimisation": None if max_seconds is None else {"max_seconds": max_seconds},
    }
    with service(url) as client:
        document = client.openapi()
        request = checks.request_of(document, "TrainingRequest", fields, given)
        parameters = checks.parameters_of(document, options)
        if file is None:
            known = client.datasets.get(str(dataset))
            tell_dataset(known, "dataset of")
        else:
            known = upload(client, file, parameters)
        del request["model_name"]
        job = client.jobs.train(model, known.id, **request)
        note(f"accepted {job.id}")
        if not wait:
            return echo_outcome(job, as_json=as_json)
        return echo_outcome(wait_for(client, job.id), as_json=as_json)


def upload(client: "Client", file: Path, parameters: Mapping[str, Any]) -> "Dataset":
    """Upload a file, and print its size, the types of its columns, and warnings.

    The same file with the same options gives the same dataset for a day.
    """
    from densityd.client import ApiError  # noqa: PLC0415 - it takes a third of a second

    with file.open("rb") as source:
        digest = hashlib.file_digest(source, "sha256").hexdigest()
    request = json.dumps([digest, file.name, parameters], sort_keys=True)
    key: str | None = f"upload-{hashlib.sha256(request.encode()).hexdigest()}"
    try:
        uploaded = client.datasets.upload(file, idempotency_key=key, **parameters)
    except ApiError as error:
        # Of another version of the service, the same request may be another one.
        if not error.type.endswith("/idempotency-key-reused"):
            raise
        uploaded = client.datasets.upload(file, **parameters)
    tell_dataset(uploaded, "uploaded before:" if uploaded.replayed else "uploaded")
    return uploaded


def demo(
    model: Annotated[str, typer.Option(help="Model that gets a new version.")] = "penguins",
    url: Url = None,
) -> None:
    """Train a model of 344 penguins on the service, and show its most unusual row, with the reasons.

    Example: densityd demo
    """
    from densityd.client import Settings  # noqa: PLC0415 - it takes some time, and help none

    with service(url) as client, tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "penguins.csv"
        file.write_bytes(client.call("GET", f"/{_TABLE}").content)
        dataset = upload(client, file, {})
        note("training a model of them; it takes less than a minute")
        started = client.jobs.train(
            model, dataset.id, missing="any", quality="fast", optimisation={"seed": 1}
        )
        job = wait_for(client, started.id)
        [worst] = client.models.unusual(str(job.ref), limit=1).rows
        drawn = client.sample(str(job.ref), 3, to="table", seed=7).to_pylist()
        address = Settings(url).address
    typer.echo(f"\nThe most unusual of {dataset.rows} penguins is number {worst.row + 1}:\n")
    usual = {reason.column: reason.usual_text for reason in worst.reasons}
    echo_table(
        ("column", "value", "usual, given the other values"),
        [
            (name, "missing" if cell is None else format_value(cell), usual.get(name, "as it is"))
            for name, cell in worst.cells.items()
        ],
    )
    typer.echo(f"\nThree rows that {job.ref} drew:\n")
    echo_table(
        list(worst.cells),
        [["missing" if cell is None else cell for cell in row.values()] for row in drawn],
    )
    typer.echo(
        f"\nIts page           {address}/#/models/{model}\n"
        f"Unusual rows       densityd unusual {model}\n"
        f"More drawn rows    densityd sample {model} -n 100 --seed 7\n"
        "Your own table     densityd train table.csv --model mine\n"
        "                   densityd score mine table.csv --explain"
    )
