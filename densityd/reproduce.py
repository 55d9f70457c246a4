"""The command `densityd reproduce`: the published experiments."""

import importlib.util
from pathlib import Path

import torch
import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from experiments.data import DataMissingError
from experiments.recipes import RECIPES, DensityRecipe
from experiments.run import Place, run


def list_recipes() -> None:
    """Prints the names, titles and published numbers."""
    table = Table("name", "what", "data", "published")
    for recipe in RECIPES.values():
        if isinstance(recipe, DensityRecipe):
            known = "; ".join(f"{p.value:g} ({p.source})" for p in recipe.published)
            table.add_row(recipe.name, recipe.title, recipe.data, known)
        else:
            table.add_row(recipe.name, recipe.title, "-", "")
    Console().print(table)


def reproduce(name: str, *, data: Path | None, out: Path, seed: int, quick: bool) -> None:
    """Runs one experiment.

    Raises:
        typer.Exit: with status 2 for a name that does not exist, 1 for data that is not there.
    """
    if name not in RECIPES:
        typer.echo(f"densityd reproduce: there is no experiment {name!r}; see --list", err=True)
        raise typer.Exit(2)
    if not quick and importlib.util.find_spec("matplotlib") is None:
        typer.echo(
            "densityd reproduce: figures need matplotlib: pip install 'densityd[experiments]'",
            err=True,
        )
        raise typer.Exit(1)
    torch.set_num_threads(1)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    place = Place(data=data, results=out, state=out / ".state", device=device)
    bar = Progress(
        TextColumn("{task.fields[what]}"), BarColumn(), TimeRemainingColumn(), transient=False
    )
    with bar:
        task = bar.add_task(name, what=name, total=None)
        try:
            result = run(
                RECIPES[name],
                place,
                seed=seed,
                quick=quick,
                progress=lambda done, total, text: bar.update(
                    task, completed=done, total=total, what=text
                ),
            )
        except DataMissingError as error:
            typer.echo(f"densityd reproduce: {error}", err=True)
            raise typer.Exit(1) from error
    if "test_log_likelihood" in result:
        spread = 2 * result["test_standard_error"]
        typer.echo(f"test log-likelihood {result['test_log_likelihood']:.3f} ± {spread:.3f} nats")
    else:
        typer.echo(
            f"KL {result['kl']:.4f} nats, effective sample size"
            f" {result['effective_sample_size']:.0f} of {result['samples']}"
        )
    typer.echo("quick: nothing was written" if quick else f"written to {out / name}.json")
