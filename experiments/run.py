"""Resumable run of a recipe, which writes its result and its figures."""

import dataclasses
import hashlib
import json
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

from experiments import figures
from experiments.data import catalogue as data
from experiments.data.sources import Data
from experiments.recipes import DensityRecipe, Recipe, VariationalRecipe
from experiments.scores import log_densities, log_scale, score_metrics
from experiments.studies.study import Progress
from flows import (
    EpochReport,
    FitOptions,
    FitState,
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
from flows.training.rows import ModelRows
from models_store.files.blobs import Blobs
from models_store.files.checkpoints import load_state, save_state

_SAVE_EVERY_S = 60.0
_QUICK_EPOCHS, _QUICK_ITERATIONS = 2, 50
_SAMPLES = 10_000


@dataclass(frozen=True)
class Place:
    """Folders and device of a run.

    Attributes:
        data: Folder of the data sets; None if the experiment needs none.
        results: Folder of JSON files and figures.
        state: Folder of unfinished runs.
        device: Device that computes.
    """

    data: Path | None
    results: Path
    state: Path
    device: torch.device


def run(
    recipe: Recipe, place: Place, *, seed: int, quick: bool, progress: Progress
) -> dict[str, Any]:
    """Run a recipe from its start, or resume an earlier run of it.

    Args:
        recipe: Recipe to run.
        place: Folders and device of the run.
        seed: Seed of weights, orders and noise.
        quick: True for a few rows and steps, as a smoke test; it writes no result.
        progress: Callback for progress messages.

    Returns:
        Result, as it is written to `results/NAME.json`.

    Raises:
        DataMissingError: A data set is not there.
    """
    saved = _Saved(place.state, recipe, seed=seed, quick=quick)
    if isinstance(recipe, DensityRecipe):
        found = _run_density(recipe, place, saved, seed=seed, quick=quick, progress=progress)
    else:
        found = _run_variational(recipe, place, saved, seed=seed, quick=quick, progress=progress)
    flow, curve, metrics, test = found
    result: dict[str, Any] = {
        "name": recipe.name,
        "title": recipe.title,
        "flow": spec_to_dict(recipe.flow),
        "options": dataclasses.asdict(recipe.options),
        "seed": seed,
        **metrics,
        "curve": curve,
        "wall_seconds": round(saved.seconds, 1),
        "versions": {name: version(name) for name in ("densityd", "torch", "numpy")},
        "machine": f"{platform.machine()}, {os.cpu_count()} CPUs, {place.device.type}",
    }
    if not quick:
        place.results.mkdir(parents=True, exist_ok=True)
        # Write the numbers first: they took hours, and a figure may fail.
        path = place.results / f"{recipe.name}.json"
        path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
        figures.draw(recipe, flow, curve, test, place.results)
    saved.delete()
    return result


class _Saved:
    """State of an unfinished run: an index names the newest tensors and is replaced atomically."""

    def __init__(self, folder: Path, recipe: Recipe, *, seed: int, quick: bool) -> None:
        self._blobs = Blobs.in_folder(folder)
        run = f"{recipe.name}-{seed}-{_settings(recipe, quick=quick)}"
        self._folder = f"jobs/{run}"
        self._path = folder / f"{run}.json"
        self._index: dict[str, Any] | None = None
        if self._path.is_file():
            self._index = json.loads(self._path.read_text(encoding="utf-8"))
        self._began = self._saved_at = time.monotonic()

    @property
    def seconds(self) -> float:
        """Duration of the run, earlier interrupted runs included."""
        before: float = 0.0 if self._index is None else self._index["seconds"]
        return before + time.monotonic() - self._began

    def load(self) -> tuple[FitState | None, list[list[float]]]:
        """Return the state and learning curve of an earlier run, if there is one."""
        if self._index is None:
            return None, []
        state = load_state(self._blobs, self._index["key"], self._index["sha256"])
        return state, self._index["curve"]

    def save(self, state: Callable[[], FitState], curve: list[list[float]]) -> None:
        """Save the state, if the last one is old enough."""
        if time.monotonic() - self._saved_at < _SAVE_EVERY_S:
            return
        key = f"{self._folder}/{len(curve)}.safetensors"
        stored = save_state(self._blobs, key, state())
        index = {"key": key, "sha256": stored.sha256, "seconds": self.seconds, "curve": curve}
        partial_path = self._path.with_suffix(".partial")
        partial_path.write_text(json.dumps(index), encoding="utf-8")
        partial_path.replace(self._path)
        for other in self._blobs.keys(self._folder):
            if other != key:
                self._blobs.delete(other)
        self._saved_at = time.monotonic()

    def delete(self) -> None:
        """Delete the saved state."""
        self._path.unlink(missing_ok=True)
        self._blobs.delete(self._folder)


def _settings(recipe: Recipe, *, quick: bool) -> str:
    """Return a short hash of all settings, so that a run resumes only its own state."""
    settings = dataclasses.replace(recipe, title="", remark="")
    if isinstance(settings, DensityRecipe):
        settings = dataclasses.replace(settings, published=())
    return hashlib.sha256(f"{settings} {quick}".encode()).hexdigest()[:12]


# Flow, learning curve, metrics, and the test rows if there are any.
_Found = tuple[Flow, list[list[float]], dict[str, Any], torch.Tensor | None]


def _run_density(
    recipe: DensityRecipe,
    place: Place,
    saved: _Saved,
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
    last, curve = _fit(flow, rows, options, saved, progress)
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
    flow: Flow, rows: Data, options: FitOptions, saved: _Saved, progress: Progress
) -> tuple[EpochReport, list[list[float]]]:
    state, curve = saved.load()
    # Difference of the data's units and those of the preprocessed rows, as for the test likelihood.
    train, held_out = (
        ModelRows(flow, part, seed=seed, name="recipe's").constant - log_scale(flow)
        for part, seed in ((rows.train, options.seed), (rows.validation, options.seed + 1))
    )
    last, epoch, reached = None, 0 if state is None else int(curve[-1][0]), ""

    def on_batch(done: int, batches: int) -> None:
        begun = min(epoch + 1, options.max_epochs)
        part = epoch + done / batches
        progress(part, options.max_epochs, f"epoch {begun} of {options.max_epochs}{reached}")

    fitting = fit(
        flow, rows.train, rows.validation, options=options, state=state, on_batch=on_batch
    )
    for last in fitting:
        if not curve or curve[-1][0] < last.epoch:
            likelihoods = (
                last.train_log_likelihood - train,
                last.validation_log_likelihood - held_out,
            )
            curve.append([last.epoch, *likelihoods])
        epoch, best = last.epoch, last.best_validation_log_likelihood - held_out
        reached = (
            f", train {curve[-1][1]:.3f}, validation {curve[-1][2]:.3f}"
            f" (best {best:.3f} of epoch {last.best_epoch})"
        )
        on_batch(0, 1)
        if last.stop_reason is None:
            saved.save(last.snapshot, curve)
    assert last is not None  # noqa: S101  there is one report at least
    return last, curve


def _run_variational(
    recipe: VariationalRecipe,
    place: Place,
    saved: _Saved,
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
    state, curve = saved.load()
    last = None
    for last in fit_variational(flow, target, options=options, state=state):
        if not curve or curve[-1][0] < last.iteration:
            curve.append([last.iteration, last.elbo])
        progress(last.iteration, options.iterations, f"ELBO {last.elbo:.4f}")
        if last.stop_reason is None:
            saved.save(last.snapshot, curve)
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
