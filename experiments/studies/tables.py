"""Tables of the studies for the page, and conclusions from them, by rule."""

import math
import statistics
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from experiments.figures.posteriors import TITLES
from experiments.studies import amortised, anomaly, comparison
from experiments.studies.detectors import DETECTORS

# Quantile of Student's t for a 95 % interval, by the number of differences.
_T_95 = {2: 12.706, 3: 4.303}

Run = dict[str, Any]
Runs = Callable[[str], list[Run]]  # of a study, by its name

_JUDGED = "test_but_least_likely_log_likelihood"
_OTHERS = {"maf": "MAF", "realnvp": "Real NVP"}
_COMPARISON = f"""All flows have five layers and batch norm, and every network has one hidden layer of tanh units (the translations of
Real NVP: ReLU). The MAF has {comparison.MAF_WIDTH} units; HAF and Real NVP have the width that brings their active parameters (those that
no mask keeps at 0) nearest to those of the MAF. All are trained in the same way: {comparison.STEPS:,} steps of Adam with a learning rate
that falls from {comparison.OPTIONS.learning_rate:g} to 0, weight decay {comparison.OPTIONS.weight_decay:g}, batches of {comparison.OPTIONS.batch_size}, with the robust options of jobs. The epoch with the
best validation likelihood is tested. A seed draws the split (80, 10 and 10 %; for BSDS300 the published parts, with their first
50,000, 10,000 and 50,000 patches), the weights and the order. Repeated values get noise as wide as their step.

The tables have test log-likelihoods in nats per row, of rows standardised by the training rows (except BSDS300): the mean over
the seeds ± their standard deviation. Single rows can dominate a mean, so the first table and the verdict leave out the least
likely thousandth of the test rows; the second table includes all rows. The verdict compares seed by seed: HAF is ahead or behind if
the 95 % interval of the differences (Student's t) does not include 0.

"""
_ANOMALY = """Half of the normal rows of each set are training rows; the other half and all anomalies are ranked. The first half is
the first in the order of the file, as in the published figures; the seed draws a random half. Flows rank rows by -log_prob.
`defaults` is a job whose request names only its dataset; the other flows are jobs that name only their family. The results are
from when the default flow was a MAF; [how the defaults were chosen](defaults.md) has results of the present one.
The isolation forest has the defaults of scikit-learn. `neighbours` ranks by the distance to the fifth nearest training row.
`mixture` is a mixture of 1 to 10 Gaussians with full covariances, chosen by the BIC. Values are in percent: the mean over three seeds
± their standard deviation; a number in brackets is the number of seeds if it is not three.

"""

_AMORTISED = f"""A variational autoencoder of binarised MNIST: {amortised.LATENTS} latent variables with a standard Gaussian prior, and a decoder with one
hidden layer of {amortised.UNITS} tanh units. One network, again with {amortised.UNITS} units, encodes a picture into {amortised.FEATURES} features; the posterior q(z given x)
is a Gaussian with a diagonal covariance (Kingma and Welling 2014), or an inverse autoregressive flow whose layers have {amortised.IAF_UNITS} units
(Kingma et al. 2016). Everything else is the same: {amortised.OPTIONS.iterations:,} iterations of Adam with batches of {amortised.OPTIONS.batch_size} pictures and a learning rate that
falls from {amortised.OPTIONS.learning_rate:g}, by the code of a job with the target `latent`. That is {amortised.OPTIONS.iterations * amortised.OPTIONS.batch_size // 50_000} passes over the 50,000 training pictures, so that the models are small
and not trained to the end: compare the rows of the table with each other.

Values are nats of a test picture: the mean over {amortised.TEST_ROWS:,} of them, spread over the test set, with {amortised.SAMPLES} samples each, and over {amortised.SEEDS} seeds ±
their standard deviation. The importance-weighted bound is nearer to log p(x); its distance from the ELBO is about what the
posterior loses.

"""


def amortised_section(runs_of: Runs) -> str:
    """Return the section on posteriors of a variational autoencoder."""
    name = amortised.AmortisedStudy.name
    runs = runs_of(name)
    text = (
        _AMORTISED
        + "| posterior | layers of flow | parameters | ELBO | importance-weighted bound | ELBO above the diagonal Gaussian's | processor seconds |\n"
    )
    text += "| --- | --- | --- | --- | --- | --- | --- |\n"
    plain = _values(runs, "test_elbo", posterior="diagonal")
    for posterior, layers in amortised.POSTERIORS.items():
        of_name = [run for run in runs if run["posterior"] == posterior]
        elbo, bound, seconds = (
            _values(of_name, measure)
            for measure in ("test_elbo", "test_bound", "training_processor_seconds")
        )
        gain = f"{statistics.mean(elbo) - statistics.mean(plain):+.2f}" if elbo and plain else "-"
        text += f"| {TITLES[posterior]} | {layers} | "
        text += f"{of_name[0]['parameters']:,} | " if of_name else "- | "
        text += f"{_over_seeds(elbo)} | {_over_seeds(bound)} | {gain} | "
        text += f"{statistics.mean(seconds):.0f} |\n" if seconds else "- |\n"
    text += (
        f"\nIn Kingma et al. 2016 (table 1: residual convolutional networks, pictures binarised anew in each epoch) two layers"
        f" of flow raise the bound by {amortised.PUBLISHED_GAIN} nats over the diagonal Gaussian.\n"
    )
    if runs:
        error = max(run["test_elbo_standard_error"] for run in runs)
        text += f"\nThe standard error of a mean is {error:.2f} nats, but all posteriors are judged by the same pictures.\n"
        text += f"\n![ELBO while training, and both bounds of test pictures](../experiments/results/{name}.png)\n"
    return text


def _over_seeds(values: Sequence[float]) -> str:
    if len(values) < 2:
        return f"{values[0]:.2f} (1)" if values else "not run"
    return f"{statistics.mean(values):.2f} ± {statistics.stdev(values):.2f}"


def comparison_section(runs_of: Runs) -> str:
    """Return the section on HAF beside MAF and Real NVP."""
    lines = [
        "| set | D | rows | active parameters | MAF | HAF | Real NVP | HAF against MAF | HAF against Real NVP |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    every_row = [
        "| set, every test row | MAF | HAF | Real NVP |",
        "| --- | --- | --- | --- |",
    ]
    verdicts: dict[str, list[str]] = {other: [] for other in _OTHERS}
    for study in comparison.STUDIES.values():
        runs = runs_of(study.name)
        if not runs:
            lines.append(f"| {study.title} | - | - | - | not run | not run | not run | - | - |")
            continue
        said = [_against(other, runs) for other in _OTHERS]
        for other, text in zip(_OTHERS, said, strict=True):
            verdicts[other].append(text)
        means = [
            " | ".join(_spread(_values(runs, measure, family=f), 3) for f in comparison.FAMILIES)
            for measure in (_JUDGED, "test_log_likelihood")
        ]
        lines.append(
            f"| {study.title} | {runs[0]['dim']} | {runs[0]['train_rows']:,} | {_active(runs)} | "
            + " | ".join([means[0], *said])
            + " |"
        )
        every_row.append(f"| {study.title} | {means[1]} |")
    summary = " ".join(_count(_OTHERS[other], said) for other, said in verdicts.items() if said)
    tables = "\n\n".join("\n".join(table) for table in (lines, every_row))
    return _COMPARISON + tables + "\n\n" + (summary + "\n" if summary else "")


def anomaly_section(runs_of: Runs) -> str:
    """Return the section on all detectors on all sets, by both measures and both kinds of split."""
    found = {name: runs_of(f"anomaly-{name}") for name in anomaly.SETS}
    text = _ANOMALY
    for split, where in (("first", "the first half"), ("random", "a random half")):
        for measure, title in (
            ("auroc", "Area under the ROC curve"),
            ("aupr", "Average precision"),
        ):
            text += f"### {title}, trained on {where}\n\n"
            text += "| detector | " + " | ".join(anomaly.SETS) + " |\n"
            text += "| --- |" + " --- |" * len(anomaly.SETS) + "\n"
            if (split, measure) == ("first", "auroc"):
                for source, known in anomaly.PUBLISHED.items():
                    cells = (f"{known[name]:.2f}" for name in anomaly.SETS)
                    text += f"| *published:* {source} | " + " | ".join(cells) + " |\n"
            for detector in DETECTORS:
                values = [
                    _values(runs, measure, detector=detector, split=split)
                    for runs in found.values()
                ]
                cells = (_spread(of_set, 2) for of_set in values)
                text += f"| `{detector}` | " + " | ".join(cells) + " |\n"
            text += "\n"
    return text + _defaults_verdict(found)


def _defaults_verdict(found: dict[str, list[Run]]) -> str:
    """Return on which sets the defaults pass the isolation forest, as far as both were measured."""
    lines = []
    for split, where in (("first", "first"), ("random", "random")):
        ahead: list[str] = []
        behind: list[str] = []
        for name, runs in found.items():
            ours = _values(runs, "auroc", detector="defaults", split=split)
            forest = _values(runs, "auroc", detector="isolation-forest", split=split)
            if ours and forest:
                better = statistics.mean(ours) > statistics.mean(forest)
                (ahead if better else behind).append(name)
        if ahead or behind:
            lines.append(
                f"On {where} halves the defaults' mean area is above the isolation forest's on"
                f" {_listed(ahead)}, and not on {_listed(behind)}."
            )
    return " ".join(lines) + "\n" if lines else ""


def _against(other: str, runs: Sequence[Run]) -> str:
    """Compare HAF with another family by the differences of the seeds that both have."""
    by_family = {
        family: {
            run["seed"]: run[_JUDGED]
            for run in runs
            if run["family"] == family and run[_JUDGED] is not None
        }
        for family in ("haf", other)
    }
    seeds = sorted(by_family["haf"].keys() & by_family[other].keys())
    differences = [by_family["haf"][seed] - by_family[other][seed] for seed in seeds]
    if len(differences) < 2:
        return "too few seeds"
    mean = statistics.mean(differences)
    margin = _T_95[len(differences)] * statistics.stdev(differences) / len(differences) ** 0.5
    if abs(mean) <= margin:
        return f"no difference: {mean:+.3f} ± {margin:.3f}"
    return f"{'ahead' if mean > 0 else 'behind'}: {mean:+.3f} ± {margin:.3f}"


def _count(other: str, said: Sequence[str]) -> str:
    kinds = ("ahead", "behind", "no difference", "too few seeds")
    ahead, behind, neither, few = (sum(text.startswith(kind) for text in said) for kind in kinds)
    lacking = f"; {few} have too few seeds yet" if few else ""
    return (
        f"Against {other}, HAF is ahead on {ahead} of {len(said)} sets and behind on {behind}; on"
        f" {neither} there is no significant difference{lacking}."
    )


def _active(runs: Iterable[Run]) -> str:
    counts = {run["family"]: run["active_parameters"] for run in runs}
    return " / ".join(
        f"{counts[family]:,}" for family in ("maf", "haf", "realnvp") if family in counts
    )


def _values(runs: Iterable[Run], measure: str, **cell: str) -> list[float]:
    """Return the values of a cell's runs; a NaN log-likelihood counts below all numbers."""
    found = [run[measure] for run in runs if cell.items() <= run.items()]
    return [-math.inf if value is None else value for value in found]


def _spread(values: Sequence[float], digits: int) -> str:
    if not values:
        return "not run"
    if not math.isfinite(sum(values)):
        return f"NaN in {sum(map(math.isinf, values))} of {len(values)}"
    mean = f"{statistics.mean(values):.{digits}f}"
    if len(values) == 1:
        return f"{mean} (1)"
    count = "" if len(values) == 3 else f" ({len(values)})"
    return f"{mean} ± {statistics.stdev(values):.{digits}f}{count}"


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names) or "none"
