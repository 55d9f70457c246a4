"""Learning curves: what the training of a version reported, or what the file that it came from says."""

from collections.abc import Mapping, Sequence
from typing import Any, get_args

import numpy as np

from app.engine.engine import Array
from models_store.exports.exported_files import MAX_CURVE, CurveName, LearningCurve, read_record
from models_store.files.blobs import Blobs, job_of
from models_store.job_states import EventKind
from models_store.jobs.jobs import Jobs
from models_store.records import Version

CURVES: tuple[CurveName, ...] = get_args(CurveName)
LARGEST = 1e100
"""Largest number that is drawn: squares and differences of those must be finite too."""


def read_curve(version: Version, jobs: Jobs, blobs: Blobs) -> dict[str, Array]:
    """Return the epochs `at` and their numbers by name, NaN where there are none; no empty curves.

    Of a long training some epochs are left out, evenly.

    Args:
        jobs: Jobs, whose events tell of it.
        blobs: Store that has the file of an imported version.

    Raises:
        BlobMissingError: The file of an imported version is missing.
    """
    told = _imported(version, blobs) if version.job_id is None else _trained(version, jobs)
    return {name: values for name, values in told.items() if not np.isnan(values).all()}


def kept_epoch(
    version: Version, curve: Mapping[str, Array], decides: str
) -> tuple[float, float] | None:
    """Return the epoch whose weights were kept, and its likelihood; None if it is not known.

    The curve may have left it out.

    Args:
        version: Version whose weights they are.
        curve: Curve that `read_curve` gave.
        decides: Name of the likelihood that chose the epoch.
    """
    at, best = curve["at"], version.metrics.get("best_epoch")
    # An imported file may have anything in its place.
    if not isinstance(best, int) or not at.min() <= best <= at.max():
        return None
    found = np.flatnonzero(at == best)
    told = curve[decides][found[-1]] if len(found) else version.metrics.get(f"best_{decides}")
    reached = _number(told)
    return None if np.isnan(reached) else (float(best), reached)


def exported_curve(version: Version, jobs: Jobs, blobs: Blobs) -> LearningCurve | None:
    """Return a learning curve for another service; None if nothing is known of the training."""
    curve = read_curve(version, jobs, blobs)
    if not curve.keys() & set(CURVES):
        return None
    values = {
        name: [None if np.isnan(value) else float(value) for value in curve[name]]
        for name in CURVES
        if name in curve
    }
    return LearningCurve(at=curve["at"].tolist(), values=values)


def _imported(version: Version, blobs: Blobs) -> dict[str, Array]:
    record = read_record(blobs.open(version.checkpoint_key, version.checkpoint_sha256))
    if record is None or record.learning_curve is None:
        return {}
    curve = record.learning_curve
    told = {name: _array(values) for name, values in curve.values.items()}
    at = _array(curve.at)
    placed = ~np.isnan(at)
    return {name: values[placed] for name, values in (*told.items(), ("at", at))}


def _trained(version: Version, jobs: Jobs) -> dict[str, Array]:
    """Read the curves of a training."""
    # Of a search, the child that trained the flow reported its epochs.
    job_id = job_of(version.checkpoint_key) or version.job_id or ""
    epochs = jobs.spread_events(version.project, job_id, EventKind.EPOCH, most=MAX_CURVE)
    told = [_numbers(data, at=at) for at, data in enumerate(epochs)]
    table = np.array(told).reshape(len(told), 1 + len(CURVES))
    return dict(zip(("at", *CURVES), table.T, strict=True))


def _numbers(data: dict[str, Any], *, at: int) -> tuple[float, ...]:
    place = data.get("epoch", data.get("iteration", at))
    return _number(place), *(_number(data.get(name)) for name in CURVES)


def _array(values: Sequence[object]) -> Array:
    return np.array([_number(value) for value in values], dtype=np.float64)


def _number(value: object) -> float:
    number = float(value) if isinstance(value, int | float) else float("nan")
    return number if abs(number) <= LARGEST else float("nan")
