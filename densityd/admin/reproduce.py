"""``densityd reproduce``: the published experiments."""

import importlib.util
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

import torch
import typer
from rich import box
from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from densityd.terminal.console import echo_json, note
from experiments.data.sources import DataMissingError
from experiments.recipes.catalogue import RECIPES
from experiments.recipes.recipe import DensityRecipe, Recipe
from experiments.run import Place, run
from experiments.studies import amortised, anomaly, comparison
from experiments.studies.study import Study, run_study
from flows import FlowError
from models_store.errors import StoreError

STUDIES: dict[str, Study] = comparison.STUDIES | anomaly.STUDIES | amortised.STUDIES
GROUPS = {
    "haf-comparison": comparison.STUDIES,
    "anomaly": anomaly.STUDIES,
    "amortised": amortised.STUDIES,
}
_WIDE = 250
_PLACEHOLDER = "DATASET_ID"
_LINE_PAUSE_S = 30.0  # between lines of progress where there is no terminal for a bar


def list_recipes() -> None:
    """Print the names, titles and published numbers."""
    table = Table("name", "experiment", "published", box=box.SIMPLE_HEAD, pad_edge=False)
    table.columns[0].no_wrap = True
    for recipe in RECIPES.values():
        known = recipe.published if isinstance(recipe, DensityRecipe) else ()
        published = "; ".join(f"{p.value:g} ({p.source})" for p in known)
        table.add_row(recipe.name, recipe.title, published)
    for study in STUDIES.values():
        table.add_row(study.name, study.title, "")
    for name, studies in GROUPS.items():
        table.add_row(name, f"All of {', '.join(studies)}", "")
    # Without a terminal one line each, for grep.
    Console(width=None if sys.stdout.isatty() else _WIDE).print(table)


def print_request(name: str, *, seed: int, mixed_precision: bool = False) -> None:
    """Print the request body of the job that does the same as a recipe, and its endpoint.

    Raises:
        typer.Exit: The name is not of a recipe, or the recipe lacks an option (status 2).
    """
    recipe = _find_recipe(name, mixed_precision=mixed_precision)
    if recipe is None:
        _refuse(f"{name} is more than one training, so no single job does the same; see --list")
    if isinstance(recipe, DensityRecipe):
        body = recipe.request(_PLACEHOLDER, seed=seed)
        endpoint = f"POST to /v1/jobs/training; {_PLACEHOLDER} is the id of your dataset"
    else:
        body, endpoint = recipe.request(seed=seed), "POST to /v1/jobs/variational"
    note(endpoint)
    echo_json(body)


def reproduce(
    name: str,
    *,
    data: Path | None,
    out: Path,
    seed: int,
    quick: bool,
    mixed_precision: bool = False,
) -> None:
    """Run an experiment.

    Raises:
        typer.Exit: The name is unknown, or the experiment lacks an option (status 2); data is
            missing or a training fails (status 1).
    """
    recipe = _find_recipe(name, mixed_precision=mixed_precision)
    _require_extra(quick=quick and name in RECIPES)
    torch.set_num_threads(1)
    try:
        if recipe is not None:
            _reproduce_recipe(recipe, data=data, out=out, seed=seed, quick=quick)
        else:
            for study in GROUPS[name].values() if name in GROUPS else [STUDIES[name]]:
                _reproduce_study(study, data=data or Path(), out=out, quick=quick)
    except (DataMissingError, FlowError, StoreError) as error:
        typer.echo(f"densityd reproduce: {error}", err=True)
        raise typer.Exit(1) from error


def _find_recipe(name: str, *, mixed_precision: bool) -> Recipe | None:
    """Return the recipe of a name; None for a study or a group of studies."""
    if name not in RECIPES | STUDIES | GROUPS:
        _refuse(f"there is no experiment {name!r}; see --list")
    recipe = RECIPES.get(name)
    if not mixed_precision:
        return recipe
    if not isinstance(recipe, DensityRecipe):
        _refuse("--mixed-precision is only for densities of data; see --list")
    return recipe.in_mixed_precision()


def _refuse(why: str) -> NoReturn:
    typer.echo(f"densityd reproduce: {why}", err=True)
    raise typer.Exit(2)


def _require_extra(*, quick: bool) -> None:
    """End the command if packages for figures or other detectors are missing."""
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
    with _show_progress(recipe.name) as show:
        result = run(recipe, place, seed=seed, quick=quick, progress=show)
    if "test_log_likelihood" in result:
        margin = 2 * result["test_standard_error"]
        typer.echo(f"test log-likelihood {result['test_log_likelihood']:.3f} ± {margin:.3f} nats")
    else:
        typer.echo(
            f"KL {result['kl']:.4f} nats, effective sample size"
            f" {result['effective_sample_size']:.0f} of {result['samples']}"
        )
    typer.echo("quick: nothing was written" if quick else f"written to {out / recipe.name}.json")


def _reproduce_study(study: Study, *, data: Path, out: Path, quick: bool) -> None:
    with _show_progress(study.name) as show:

        def tell(done: float, total: float, text: str) -> None:
            typer.echo(text)
            show(done, total, study.name)

        run_study(study, data=data, results=out, quick=quick, progress=tell)
    typer.echo("quick: nothing was written" if quick else f"written to {out / study.name}.json")


@contextmanager
def _show_progress(name: str) -> Iterator[Callable[[float, float, str], None]]:
    """Yield a function that shows progress: as a bar, or without a terminal as lines."""
    console = Console(stderr=True)
    if not console.is_terminal:
        printed = time.monotonic()

        def tell(done: float, total: float, text: str) -> None:
            nonlocal printed
            if time.monotonic() - printed >= _LINE_PAUSE_S:
                printed = time.monotonic()
                typer.echo(f"{name}: {done / total:.0%}; {text}", err=True)

        yield tell
        return
    columns = (
        TextColumn("{task.fields[what]}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as bar:
        task = bar.add_task(name, what=name, total=None)
        yield lambda done, total, text: bar.update(task, completed=done, total=total, what=text)
