"""Writes docs/experiments.md from the committed results; nothing on it is typed by hand."""

import json
from pathlib import Path
from typing import Any

from experiments.recipes import RECIPES, DensityRecipe, Published, Recipe

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "experiments" / "results"
PAGE = ROOT / "docs" / "experiments.md"

_HEAD = """# The published experiments

Every number of ours on this page is read from `experiments/results` by `python -m experiments.page`.
`densityd reproduce --list` names the experiments; `densityd reproduce NAME --data FOLDER` runs one, through the
training code that jobs use. Log-likelihoods are means over the test rows, in nats, with two standard errors; higher is
better. Rows that say *not run* are complete recipes that nobody has run yet, or whose data could not be had.

"""


def page() -> str:
    """The text of the page."""
    density, variational = [], []
    figures: list[str] = []
    for recipe in RECIPES.values():
        path = RESULTS / f"{recipe.name}.json"
        result = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None
        if isinstance(recipe, DensityRecipe):
            density.append(_density_row(recipe, result))
        else:
            variational.append(_variational_row(recipe, result))
        if result is not None:
            figures += _figures(recipe)
    return (
        _HEAD
        + "## Densities of data\n\n"
        + "| experiment | what | ours | published | verdict | epochs, time |\n"
        + "| --- | --- | --- | --- | --- | --- |\n"
        + "".join(density)
        + "\n## Variational inference\n\nThe KL divergence is that of the flow to the potential, by quadrature on the"
        " potential's window: [-4, 4]^2, of U5 [-6, 6]^2. The effective sample size is a share of the samples.\n\n"
        + "| experiment | what | KL, nats | effective samples | Pareto k | iterations, time |\n"
        + "| --- | --- | --- | --- | --- | --- |\n"
        + "".join(variational)
        + "\n## Figures\n\n"
        + "".join(figures)
    )


def _density_row(recipe: DensityRecipe, result: dict[str, Any] | None) -> str:
    published = "; ".join(_published(known) for known in recipe.published) or "-"
    if result is None:
        return f"| `{recipe.name}` | {recipe.title} | not run | {published} | - | - |\n"
    value, error = result["test_log_likelihood"], 2 * result["test_standard_error"]
    return (
        f"| `{recipe.name}` | {recipe.title} | {value:.2f} ± {error:.2f} | {published} |"
        f" {_verdict(value, error, recipe.published)} |"
        f" {result['epochs']}, {_duration(result['training_seconds'])} |\n"
    )


def _variational_row(recipe: Recipe, result: dict[str, Any] | None) -> str:
    if result is None:
        return f"| `{recipe.name}` | {recipe.title} | not run | - | - | - |\n"
    share = result["effective_sample_size"] / result["samples"]
    return (
        f"| `{recipe.name}` | {recipe.title} | {result['kl']:.4f} | {share:.2f} |"
        f" {result['pareto_k']:.2f} |"
        f" {result['iterations']}, {_duration(result['training_seconds'])} |\n"
    )


def _published(known: Published) -> str:
    error = "" if known.two_standard_errors is None else f" ± {known.two_standard_errors:.2f}"
    return f"{known.value:.2f}{error} ({known.source})"


def _verdict(value: float, error: float, published: tuple[Published, ...]) -> str:
    """Against the first published number: within both error bars it is reproduced."""
    if not published:
        return "not published"
    known = published[0]
    margin = error + (known.two_standard_errors or 0.0)
    if abs(value - known.value) <= margin:
        return "reproduced"
    if value > known.value:
        return f"better by {value - known.value:.2f}"
    return f"short by {known.value - value:.2f}"


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    minutes = seconds / 60
    return f"{minutes:.0f} min" if minutes < 120 else f"{minutes / 60:.1f} h"


def _figures(recipe: Recipe) -> list[str]:
    paths = sorted(RESULTS.glob(f"{recipe.name}.png")) + sorted(
        RESULTS.glob(f"{recipe.name}-[!k]*.png")
    )
    own = [path for path in paths if _is_of(path, recipe)]
    return [f"![{recipe.title}](../experiments/results/{path.name})\n\n" for path in own]


def _is_of(path: Path, recipe: Recipe) -> bool:
    """Whether a figure belongs to this recipe, and not to one whose name begins with its name."""
    longest = max(
        (name for name in RECIPES if path.stem == name or path.stem.startswith(f"{name}-")), key=len
    )
    return longest == recipe.name


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
