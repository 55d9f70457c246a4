"""The command `densityd reproduce`: the published experiments."""

import importlib.util
from pathlib import Path
from typing import NoReturn

import torch
import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from experiments import anomaly, comparison
from experiments.recipes import RECIPES, DensityRecipe, Recipe
from experiments.run import Place, run
from experiments.sources import DataMissingError
from experiments.studies import Study, run_study

STUDIES: dict[str, Study] = comparison.STUDIES | anomaly.STUDIES
GROUPS = {"haf-comparison": comparison.STUDIES, "anomaly": anomaly.STUDIES}


def list_recipes() -> None:
    """Prints the names, titles and published numbers."""
    table = Table("name", "what", "data", "published")
    for recipe in RECIPES.values():
        if isinstance(recipe, DensityRecipe):
            known = "; ".join(f"{p.value:g} ({p.source})" for p in recipe.published)
            table.add_row(recipe.name, recipe.title, recipe.data, known)
        else:
            table.add_row(recipe.name, recipe.title, "-", "")
    for study in STUDIES.values():
        table.add_row(study.name, study.title, study.data, "")
    for name, studies in GROUPS.items():
        table.add_row(name, f"All of {', '.join(studies)}", "", "")
    Console().print(table)


def reproduce(
    name: str,
    *,
    data: Path | None,
    out: Path,
    seed: int,
    quick: bool,
    mixed_precision: bool = False,
) -> None:
    """Runs one experiment.

    Raises:
        typer.Exit: with status 2 for a name that does not exist or an option that it does not
            have, 1 for data that is not there.
    """
    if name not in RECIPES | STUDIES | GROUPS:
        _refuse(f"there is no experiment {name!r}; see --list")
    recipe = RECIPES.get(name)
    if mixed_precision:
        if not isinstance(recipe, DensityRecipe):
            _refuse("--mixed-precision is for the densities of data alone; see --list")
        recipe = recipe.in_mixed_precision()
    _require_extra(quick=quick and name in RECIPES)
    torch.set_num_threads(1)
    try:
        if recipe is not None:
            _reproduce_recipe(recipe, data=data, out=out, seed=seed, quick=quick)
        else:
            for study in GROUPS[name].values() if name in GROUPS else [STUDIES[name]]:
                _reproduce_study(study, data=data or Path(), out=out, quick=quick)
    except DataMissingError as error:
        typer.echo(f"densityd reproduce: {error}", err=True)
        raise typer.Exit(1) from error


def _refuse(why: str) -> NoReturn:
    typer.echo(f"densityd reproduce: {why}", err=True)
    raise typer.Exit(2)


def _require_extra(*, quick: bool) -> None:
    """Ends the command where figures or other detectors are wanted and cannot be had."""
    missing = [name for name in ("matplotlib", "sklearn") if importlib.util.find_spec(name) is None]
    if missing and not quick:
        typer.echo(
            "densityd reproduce: figures need matplotlib, and anomaly detection scikit-learn:"
            " pip install 'densityd[experiments]'",
            err=True,
        )
        raise typer.Exit(1)


def _reproduce_recipe(
    recipe: Recipe, *, data: Path | None, out: Path, seed: int, quick: bool
) -> None:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    place = Place(data=data, results=out, state=out / ".state", device=device)
    with _bar() as bar:
        task = bar.add_task(recipe.name, what=recipe.name, total=None)
        result = run(
            recipe,
            place,
            seed=seed,
            quick=quick,
            progress=lambda done, total, text: bar.update(
                task, completed=done, total=total, what=text
            ),
        )
    if "test_log_likelihood" in result:
        spread = 2 * result["test_standard_error"]
        typer.echo(f"test log-likelihood {result['test_log_likelihood']:.3f} ± {spread:.3f} nats")
    else:
        typer.echo(
            f"KL {result['kl']:.4f} nats, effective sample size"
            f" {result['effective_sample_size']:.0f} of {result['samples']}"
        )
    typer.echo("quick: nothing was written" if quick else f"written to {out / recipe.name}.json")


def _reproduce_study(study: Study, *, data: Path, out: Path, quick: bool) -> None:
    with _bar() as bar:
        task = bar.add_task(study.name, what=study.name, total=None)

        def show(done: float, total: float, text: str) -> None:
            bar.update(task, completed=done, total=total, what=study.name)
            bar.console.print(text)

        run_study(study, data=data, results=out, quick=quick, progress=show)
    typer.echo("quick: nothing was written" if quick else f"written to {out / study.name}.json")


def _bar() -> Progress:
    return Progress(
        TextColumn("{task.fields[what]}"), BarColumn(), TimeRemainingColumn(), transient=False
    )
