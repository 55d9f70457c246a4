"""Run of a recipe, which writes its result and its figures."""

import dataclasses
import json
import math
import os
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float

from experiments import data, figures
from experiments.data import Data
from experiments.recipes import DensityRecipe, Recipe, VariationalRecipe
from flows import (
    EpochReport,
    FitOptions,
    Flow,
    FlowSpec,
    Potential,
    VariationalOptions,
    build,
    count_parameters,
    diagnose,
    fit,
    fit_variational,
    quadrature_kl,
    spec_to_dict,
)
from flows.training.evaluate import default_chunk_rows
from flows.training.rows import ModelRows

_QUICK_EPOCHS, _QUICK_ITERATIONS = 2, 50
_SAMPLES = 10_000
_RULING_SHARE = 1e-3  # share of the test rows: the least likely ones
_LISTED = 10

# Progress callback: steps done, most steps to do, and a line of numbers.
Progress = Callable[[float, float, str], None]


@dataclass(frozen=True)
class Place:
    """Folders and device of a run.

    Attributes:
        data: Folder of the data sets; None if the experiment needs none.
        results: Folder of JSON files and figures.
    """

    data: Path | None
    results: Path
    device: torch.device


def run(
    recipe: Recipe, place: Place, *, seed: int, quick: bool, progress: Progress
) -> dict[str, Any]:
    """Run a recipe. One that takes hours had better be a job of a service (`--request`), which continues.

    Args:
        quick: True for a few rows and steps, as a smoke test; it writes no result.

    Returns:
        Result, as it is written to `results/NAME.json`.

    Raises:
        DataMissingError: A data set is not there.
    """
    began = time.monotonic()
    if isinstance(recipe, DensityRecipe):
        found = _run_density(recipe, place, seed=seed, quick=quick, progress=progress)
    else:
        found = _run_variational(recipe, place, seed=seed, quick=quick, progress=progress)
    flow, curve, metrics, test = found
    result: dict[str, Any] = {
        "name": recipe.name,
        "title": recipe.title,
        "flow": spec_to_dict(recipe.flow),
        "options": dataclasses.asdict(recipe.options),
        "seed": seed,
        **metrics,
        "curve": curve,
        "wall_seconds": round(time.monotonic() - began, 1),
        "versions": {name: version(name) for name in ("densityd", "torch", "numpy")},
        "machine": f"{platform.machine()}, {os.cpu_count()} CPUs, {place.device.type}",
    }
    if not quick:
        place.results.mkdir(parents=True, exist_ok=True)
        # Write the numbers first: they took hours, and a figure may fail.
        path = place.results / f"{recipe.name}.json"
        path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
        figures.draw(recipe, flow, curve, test, place.results)
    return result


# Flow, learning curve, metrics, and the test rows if there are any.
_Found = tuple[Flow, list[list[float]], dict[str, Any], torch.Tensor | None]


def _run_density(
    recipe: DensityRecipe,
    place: Place,
    *,
    seed: int,
    quick: bool,
    progress: Progress,
) -> _Found:
    rows = data.load(recipe.data, place.data)
    rows = rows.quick() if quick else rows
    options = dataclasses.replace(recipe.options, seed=seed)
    if quick:
        options = dataclasses.replace(options, max_epochs=_QUICK_EPOCHS)
    dim = rows.train.shape[1]
    flow = _untrained(recipe, _quick(recipe.flow) if quick else recipe.flow, rows.train, seed)
    flow.to(place.device)
    last, curve = _fit(flow, rows, options, progress)
    metrics = score_metrics(log_densities(flow, _model_rows(flow, rows.test, seed))) | {
        "validation_log_likelihood": next(
            validation for epoch, _, validation in curve if epoch == last.best_epoch
        ),
        "epochs": last.epoch,
        "best_epoch": last.best_epoch,
        "stop_reason": last.stop_reason,
        "training_seconds": round(last.seconds, 1),
        "train_rows": len(rows.train),
        "parameters": count_parameters(recipe.flow, dim),
    }
    return flow, curve, metrics, rows.test


def _untrained(recipe: DensityRecipe, spec: FlowSpec, train: torch.Tensor, seed: int) -> Flow:
    """Return an untrained flow with the recipe's preprocessing."""
    make = partial(build, spec, train.shape[1], preprocessing=recipe.preprocessing, seed=seed)
    if not recipe.standardise:
        return make()
    rows = _model_rows(make(), train, seed).double()
    return make(standardise=(rows.mean(dim=0), rows.std(dim=0)))


def _model_rows(flow: Flow, rows: torch.Tensor, seed: int) -> torch.Tensor:
    noise = torch.Generator().manual_seed(seed)
    chunks = torch.split(rows, 10_000)
    return torch.cat(
        [
            flow.preprocessing.inverse(flow.preprocessing.spread(chunk, generator=noise))[0].float()
            for chunk in chunks
        ]
    )


def _fit(
    flow: Flow, rows: Data, options: FitOptions, progress: Progress
) -> tuple[EpochReport, list[list[float]]]:
    # Difference of the data's units and those of the preprocessed rows, as for the test likelihood.
    train, held_out = (
        ModelRows(flow, part, seed=seed, name="recipe's").constant - log_scale(flow)
        for part, seed in ((rows.train, options.seed), (rows.validation, options.seed + 1))
    )
    last, curve = None, list[list[float]]()
    for last in fit(flow, rows.train, rows.validation, options=options):
        reached = last.train_log_likelihood - train, last.validation_log_likelihood - held_out
        curve.append([last.epoch, *reached])
        text = f"epoch {last.epoch} of {options.max_epochs}, train {reached[0]:.3f},"
        text += f" validation {reached[1]:.3f} (best of epoch {last.best_epoch})"
        progress(last.epoch, options.max_epochs, text)
    assert last is not None  # noqa: S101  there is one report at least
    return last, curve


def _run_variational(
    recipe: VariationalRecipe,
    place: Place,
    *,
    seed: int,
    quick: bool,
    progress: Progress,
) -> _Found:
    target = Potential(recipe.potential)
    options: VariationalOptions = dataclasses.replace(recipe.options, seed=seed)
    if quick:
        options = dataclasses.replace(options, iterations=_QUICK_ITERATIONS)
    flow = build(recipe.flow, target.dim, seed=seed).to(place.device)
    last, curve = None, list[list[float]]()
    for last in fit_variational(flow, target, options=options):
        curve.append([last.iteration, last.elbo])
        progress(last.iteration, options.iterations, f"ELBO {last.elbo:.4f}")
    assert last is not None  # noqa: S101  there is one report at least
    judged = diagnose(flow, target, samples=_SAMPLES, seed=seed + 1)
    inside = quadrature_kl(flow, target)
    metrics = {
        "kl": inside.kl,
        "kl_window": [list(inside.window.lower), list(inside.window.upper)],
        "mass_inside": inside.mass_inside,
        "elbo": judged.elbo,
        "elbo_standard_error": judged.elbo_standard_error,
        "log_evidence": judged.log_evidence,
        "effective_sample_size": judged.effective_sample_size,
        "samples": _SAMPLES,
        "pareto_k": judged.pareto_k,
        "iterations": last.iteration,
        "training_seconds": round(last.seconds, 1),
        "parameters": count_parameters(recipe.flow, target.dim),
    }
    return flow, curve, metrics, None


def _quick(flow: FlowSpec) -> FlowSpec:
    """Return a small flow of the same family."""
    changes: dict[str, Any] = {}
    if hasattr(flow, "hidden"):
        changes["hidden"] = [min(width, 16) for width in flow.hidden]
    if hasattr(flow, "layers"):
        changes["layers"] = min(flow.layers, 4)
    return dataclasses.replace(flow, **changes)


def log_densities(
    flow: Flow, rows: Float[torch.Tensor, "rows dim"]
) -> Float[torch.Tensor, " rows"]:
    """Return the log density of each preprocessed row, in its units before standardisation."""
    flow.eval()
    with torch.no_grad():
        chunks = torch.split(rows, default_chunk_rows(flow))
        scores = [flow.log_prob(chunk.to(flow.device), space="model") for chunk in chunks]
    return torch.cat(scores).double().cpu() + log_scale(flow)


def log_scale(flow: Flow) -> float:
    """Return the difference of log densities before and after standardisation, in nats."""
    layer = flow.preprocessing.standardise
    return 0.0 if layer is None else -float(layer.std.log().sum())


def score_metrics(scores: Float[torch.Tensor, " rows"]) -> dict[str, Any]:
    """Return the mean test log density with its standard error, with and without outliers.

    One row to which a flow gives next to no density can dominate the mean of ten thousand; so there
    is also the mean of all but the least likely thousandth. Non-finite values become None.
    """
    ordered = scores.sort().values
    kept = ordered[math.ceil(_RULING_SHARE * len(ordered)) :]
    metrics: dict[str, Any] = {"test_rows": len(ordered)}
    for name, some in (("test", ordered), ("test_but_least_likely", kept)):
        metrics[f"{name}_log_likelihood"] = _finite(some.mean())
        metrics[f"{name}_standard_error"] = _finite(some.std() / math.sqrt(len(some)))
    return metrics | {
        "test_left_out": len(ordered) - len(kept),
        "test_least_likely": [_finite(score.round(decimals=1)) for score in ordered[:_LISTED]],
        "test_median": float(scores.median()),
    }


def _finite(number: torch.Tensor) -> float | None:
    value = float(number)
    return value if math.isfinite(value) else None
