"""``densityd demo``: a small model that can be asked, in some seconds."""

import tempfile
from pathlib import Path
from typing import Annotated

import typer

from densityd.terminal.console import service, upload_table
from densityd.terminal.options import Url
from densityd.terminal.waiting import wait_for

_TABLE = "static/page/penguins.csv"


def demo(
    model: Annotated[str, typer.Option(help="Model that gets a new version.")] = "penguins",
    url: Url = None,
) -> None:
    """Train a model of 344 penguins on the service, and print what to do with it.

    Example: densityd demo
    """
    import httpx  # noqa: PLC0415 - only this command needs it

    from densityd.client import Settings  # noqa: PLC0415 - it takes a third of a second

    with service(url) as client, tempfile.TemporaryDirectory() as folder:
        settings = Settings(url)
        address = settings.address
        file = Path(folder) / "penguins.csv"
        table = httpx.get(f"{address}/{_TABLE}", timeout=settings.timeout_s)
        file.write_bytes(table.raise_for_status().content)
        dataset = upload_table(client, file, {}, name="penguins")
        job = wait_for(client, client.jobs.train(model, dataset.id, missing="any").id)
        drawn = client.sample_table(model, 3, seed=7).to_pylist()
    typer.echo(f"{job.ref} is ready. Its page: {address}/#/models/{model}\n")
    typer.echo("Three rows that it drew:")
    for row in drawn:
        typer.echo("  " + ", ".join("" if cell is None else str(cell) for cell in row.values()))
    typer.echo(f"\nMore of them:\n  densityd sample {model} -n 100 --seed 7")
