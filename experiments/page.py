"""Writer of docs/experiments.md from the committed results; nothing on it is typed by hand."""

import json
import math
import statistics
from pathlib import Path
from typing import Any

from experiments.data import tabular
from experiments.recipes.catalogue import RECIPES
from experiments.recipes.recipe import DensityRecipe, Published, Recipe
from experiments.studies.tables import amortised_section, anomaly_section, comparison_section

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "experiments" / "results"
PAGE = ROOT / "docs" / "experiments.md"

_HEAD = """# The published experiments

`python -m experiments.page` writes this page from the files in `experiments/results`. `densityd reproduce --list` lists the
experiments. `densityd reproduce NAME --data FOLDER` runs one with the training code that jobs use; the names
`haf-comparison`, `anomaly` and `amortised` run all studies of that kind. A run that was stopped resumes where it was. `densityd
reproduce NAME --request` prints the body of a job that trains the same.

Log-likelihoods are means over the test rows in nats, with two standard errors; higher is better. *Mixed* beside a time
means that `--mixed-precision` was on: on processors with AMX it rounds the factors of matrix products of training steps to
bfloat16, on others it changes nothing; validation and test are never rounded. In grids of samples, NaN is red. *Not run*
marks complete recipes without a result. Recipes whose data were not available are tested on small files of the same
format.

"""

_DATA = """## The files

`--data FOLDER` names a folder with these files. No pickle is read: for gas and miniboone use the text files of the UCI
repository. Hepmass, power, gas and miniboone are prepared as by Papamakarios et al. 2017; the folder may instead have a file
`NAME.npz` with the prepared arrays `train`, `validation` and `test`.

| data | file | preparation |
| --- | --- | --- |
| binarised MNIST | `binarized_mnist.npz`: `train`, `valid`, `test`, bits packed by `numpy.packbits(axis=1)` | - |
| dna, mushrooms | `NAME.npz`: `train`, `valid`, `test` of 0 and 1 | - |
| mnist | `mnist.npz`: `x_train`, `x_test` of uint8 pixels | the last 10,000 training images are the validation rows; noise, logit |
| bsds300 | `bsds300_patches_uint8.npz`: `train`, `val`, `test` of 64 uint8 pixels | noise, minus the patch's mean, without the last pixel |
| hepmass | `1000_train.csv`, `1000_test.csv` | class 1 only; features whose smallest value is in more than 5 rows dropped; standardised |
| power | `household_power_consumption.txt` | incomplete rows, date, reactive power and intensity dropped; minute of the day; noise; random order; standardised |
| gas | `ethylene_CO.txt` | a random quarter of the rows; time and concentrations dropped, and sensors that correlate by more than 0.98 with a later one; standardised |
| miniboone | `MiniBooNE_PID.txt`, or its cleaned rows as `miniboone.npy` | signal only; empty events and features dropped as in hepmass; standardised |
| thyroid, mammography, pendigits, shuttle | `anomaly_NAME.npz`: `X`, and `y`, 1 for an anomaly | described with each study |
| California housing | `cal_housing.npy`, price last | described with the study |
| moons, picture | none: generated | - |

"""


# A standard error this many times that of all but the few least likely rows is due to those rows.
_RULED = 2
# An error bar this many times the published one cannot decide who is right.
_VAGUE = 10


def page() -> str:
    """Return the text of the page."""
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
            figures += _figures(recipe, result)
    return (
        _HEAD
        + "## Densities of data\n\n"
        + "| experiment | description | ours | published | verdict | epochs, time |\n"
        + "| --- | --- | --- | --- | --- | --- |\n"
        + "".join(density)
        + _trained_alike()
        + "\n## Variational inference\n\nThe KL divergence is that from the flow to the potential, by quadrature on the"
        " potential's window: [-4, 4]^2, for U5 [-6, 6]^2. The effective sample size is a fraction of the number of"
        " samples. The last rise of the ELBO, by which the KL fell, is the difference between the means of the last two"
        " tenths of the iterations.\n\n"
        + "| experiment | description | KL, nats | last rise of the ELBO | effective samples | Pareto k | iterations, time |\n"
        + "| --- | --- | --- | --- | --- | --- | --- |\n"
        + "".join(variational)
        + "\n## Amortised inference\n\n"
        + amortised_section(_runs)
        + "\n## HAF beside MAF and Real NVP\n\n"
        + comparison_section(_runs)
        + "\n## Detection of anomalies\n\n"
        + anomaly_section(_runs)
        + "\n"
        + _DATA
        + "## Figures\n\n"
        + "".join(figures)
    )


def _runs(name: str) -> list[dict[str, Any]]:
    """Return the runs of a study so far."""
    path = RESULTS / f"{name}.json"
    if not path.is_file():
        return []
    runs: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))["runs"]
    return runs


# A MAF and the HAF that was trained as it was.
_ALIKE = (
    ("mnist-maf-as-published", "mnist-haf-550"),
    ("mnist-maf-bounded", "mnist-haf-550-bounded"),
)


def _trained_alike() -> str:
    """Return what HAFs gain over MAFs that were trained as they were, single rows left out."""
    found = [sentence for maf, haf in _ALIKE if (sentence := _beside(maf, haf))]
    if not found:
        return ""
    return (
        "\nA HAF is to be compared with the MAF that was trained in the same way, by the papers' recipe or by the improved"
        " one. The least likely thousandth of the test rows dominates the means of some. Without it,"
        f" {'; '.join(found)}.\n"
    )


def _beside(*names: str) -> str:
    """Return the log-likelihoods of two models and whether they differ; nothing if one is missing."""
    found: list[tuple[float, float]] = []
    for name in names:
        path = RESULTS / f"{name}.json"
        if not path.is_file():
            return ""
        result = json.loads(path.read_text(encoding="utf-8"))
        value, error = (
            result[f"test_but_least_likely_{member}"]
            for member in ("log_likelihood", "standard_error")
        )
        found.append((value, 2 * error))
    (maf, maf_error), (haf, haf_error) = found
    told = "a difference" if abs(haf - maf) > maf_error + haf_error else "no difference"
    numbers = " and ".join(
        f"`{name}` has {value:.1f} ± {error:.1f}"
        for name, (value, error) in zip(names, found, strict=True)
    )
    return f"{numbers}: {told} beyond their errors"


def _density_row(recipe: DensityRecipe, result: dict[str, Any] | None) -> str:
    published = "; ".join(_published(known) for known in recipe.published) or "-"
    if result is None:
        why = ": data not available" if recipe.data in tabular.SOURCES else ""
        return f"| `{recipe.name}` | {recipe.title} | not run{why} | {published} | - | - |\n"
    # None stands for NaN and infinity.
    value = -math.inf if (found := result["test_log_likelihood"]) is None else found
    error = math.inf if (found := result["test_standard_error"]) is None else 2 * found
    return (
        f"| `{recipe.name}` | {recipe.title} | {value:.2f} ± {error:.2f}{_but_few(result)} |"
        f" {published} | {_verdict(value, error, recipe.published)}{_remark(recipe)} |"
        f" {result['epochs']}, {_duration(result['training_seconds'])}{_precision(result)} |\n"
    )


def _but_few(result: dict[str, Any]) -> str:
    """Return the mean without the least likely rows, where a few rows dominate the mean."""
    of_most = result.get("test_but_least_likely_standard_error")
    of_all = result["test_standard_error"]
    if of_most is None or (of_all is not None and of_all < _RULED * of_most):
        return ""
    value, error = (
        result[f"test_but_least_likely_{name}"] for name in ("log_likelihood", "standard_error")
    )
    return (
        f"; without the {result['test_left_out']} least likely of {result['test_rows']:,} rows"
        f" {value:.2f} ± {2 * error:.2f}"
    )


def _precision(result: dict[str, Any]) -> str:
    return ", mixed" if result["options"].get("mixed_precision") else ""


def _variational_row(recipe: Recipe, result: dict[str, Any] | None) -> str:
    if result is None:
        return f"| `{recipe.name}` | {recipe.title} | not run | - | - | - | - |\n"
    share = result["effective_sample_size"] / result["samples"]
    return (
        f"| `{recipe.name}` | {recipe.title} | {result['kl']:.4f} | {_last_rise(result['curve']):+.4f} |"
        f" {share:.2f} | {result['pareto_k']:.2f} |"
        f" {result['iterations']:,}, {_duration(result['training_seconds'])}{_remark(recipe)} |\n"
    )


def _last_rise(curve: list[list[float]]) -> float:
    """Return the difference of the means of the last two tenths of a curve."""
    tenth = max(1, len(curve) // 10)
    before, last = curve[-2 * tenth : -tenth], curve[-tenth:]
    return statistics.mean(elbo for _, elbo in last) - statistics.mean(elbo for _, elbo in before)


def _published(known: Published) -> str:
    error = "" if known.two_standard_errors is None else f" ± {known.two_standard_errors:.2f}"
    return f"{known.value:.2f}{error} ({known.source})"


def _verdict(value: float, error: float, published: tuple[Published, ...]) -> str:
    """Compare with the first published number: within both error bars it is reproduced."""
    if not published:
        return "not published"
    known = published[0]
    margin = error + (known.two_standard_errors or 0.0)
    if error >= _VAGUE * (known.two_standard_errors or math.inf):
        return "undecided: a few rows dominate the mean"
    if abs(value - known.value) <= margin:
        return "reproduced"
    if value > known.value:
        return f"better by {value - known.value:.2f}"
    return f"short by {known.value - value:.2f}"


def _remark(recipe: Recipe) -> str:
    return f"; {recipe.remark}" if recipe.remark else ""


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    minutes = seconds / 60
    return f"{minutes:.0f} min" if minutes < 120 else f"{minutes / 60:.1f} h"


def _figures(recipe: Recipe, result: dict[str, Any]) -> list[str]:
    paths = sorted(RESULTS.glob(f"{recipe.name}.png")) + sorted(
        RESULTS.glob(f"{recipe.name}-[!k]*.png")
    )
    own = [path for path in paths if _is_of(path, recipe)]
    if not own:
        return []
    shown = [f"![{_shows(path, recipe)}](../experiments/results/{path.name})\n\n" for path in own]
    return [f"### `{recipe.name}`\n\n{recipe.title}.{_normality(result)}\n\n", *shown]


def _normality(result: dict[str, Any]) -> str:
    """Return what the test of the noise found, if the result has one."""
    if "noise_rows" not in result:
        return ""
    return (
        f" Kolmogorov-Smirnov tests with {result['noise_rows']:,} test rows reject a standard Gaussian for the"
        f" noise of {result['noise_rejected']} of {result['noise_features']} features, at a level of 5 % for all of"
        f" them together; the median distance is {result['noise_median_distance']:.3f}."
    )


def _shows(path: Path, recipe: Recipe) -> str:
    """Return the alternative text of a figure."""
    kind = path.stem.removeprefix(recipe.name).removeprefix("-")
    return {
        "curve": "Learning curve",
        "samples": "Samples",
        "completions": "Test pictures completed",
        "reconstructions": "Test pictures reconstructed",
        "noise": "Distribution of the noise of test rows",
        "layers": "Layer by layer",
        "": "Density, learnt and true",
    }[kind]


def _is_of(path: Path, recipe: Recipe) -> bool:
    """Return True if a figure is of this recipe, not of one whose name begins with its name."""
    longest = max(
        (name for name in RECIPES if path.stem == name or path.stem.startswith(f"{name}-")), key=len
    )
    return longest == recipe.name


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
