"""Command line of the published experiments; a study that was stopped continues."""

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import Progress

from experiments.data import DataMissingError
from experiments.recipes import RECIPES, DensityRecipe, Recipe
from experiments.run import Place, run
from experiments.studies import GROUPS, STUDIES, run_study
from flows import FlowError
from models_store.errors import StoreError

RESULTS = Path(__file__).parent / "results"
EXAMPLES = """
examples:
  python -m experiments list
  python -m experiments planar-u1
  python -m experiments mnist-maf --data ~/data --seed 1
  python -m experiments haf-comparison --data ~/data
  python -m experiments planar-u1 --request > job.json
"""


def main(arguments: list[str] | None = None) -> None:
    """Run one experiment, or list them."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments",
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("name", metavar="NAME", help="experiment, or `list` for their names")
    parser.add_argument("--data", type=Path, help="folder of the data sets")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of results")
    parser.add_argument("--seed", type=int, default=0, help="of weights, orders and noise")
    parser.add_argument("--quick", action="store_true", help="a few rows and steps, as a trial")
    parser.add_argument(
        "--request", action="store_true", help="print the body of a job that does the same"
    )
    options = parser.parse_args(arguments)
    if options.name == "list":
        print("\n".join(_lines()))
        return
    if options.name not in RECIPES | STUDIES | GROUPS:
        parser.error(f"there is no experiment {options.name!r}; see `list`")
    if options.request:
        if options.name not in RECIPES:
            parser.error(f"{options.name} is more than one training, so no single job does it")
        print(json.dumps(_request(RECIPES[options.name], options.seed), indent=2))
        return
    torch.set_num_threads(1)
    try:
        _run(options)
    except (DataMissingError, FlowError, StoreError) as error:
        sys.exit(f"python -m experiments: {error}")


def _lines() -> Iterator[str]:
    for recipe in RECIPES.values():
        known = recipe.published if isinstance(recipe, DensityRecipe) else ()
        published = "; ".join(f"{p.value:g} ({p.source})" for p in known)
        yield f"{recipe.name:32} {recipe.title}{f'; published: {published}' if published else ''}"
    for study in STUDIES.values():
        yield f"{study.name:32} {study.title}"
    for name, studies in GROUPS.items():
        yield f"{name:32} all of {', '.join(study.name for study in studies)}"


def _request(recipe: Recipe, seed: int) -> dict[str, object]:
    if isinstance(recipe, DensityRecipe):
        return recipe.request("DATASET_ID", seed=seed)
    return recipe.request(seed=seed)


def _run(options: argparse.Namespace) -> None:
    if (recipe := RECIPES.get(options.name)) is not None:
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        place = Place(options.data, options.out, device)
        with _progress(recipe.name) as show:
            result = run(recipe, place, seed=options.seed, quick=options.quick, progress=show)
        print(json.dumps({k: v for k, v in result.items() if k != "curve"}, indent=1))
        return
    for study in GROUPS.get(options.name) or [STUDIES[options.name]]:
        with _progress(study.name) as show:
            run_study(
                study,
                data=options.data or Path(),
                results=options.out,
                quick=options.quick,
                progress=show,
            )


@contextmanager
def _progress(name: str) -> Iterator[Callable[[float, float, str], None]]:
    """Yield a function that shows progress as a bar on standard error."""
    with Progress(console=Console(stderr=True)) as bar:
        task = bar.add_task(name, total=None)
        yield lambda done, total, text: bar.update(
            task, completed=done, total=total, description=text
        )


if __name__ == "__main__":
    main()
